"""The checkpoints of a trial whose study lies in a bucket: brought to the node that trains it, pushed while it trains.

Only rank 0 asks the bucket, so that all workers begin from the same file; it sends it to the others.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import ray
import torch
import torch.distributed as dist
from rich.console import Console

from arat_ray.cluster import ray_internals
from arat_ray.cluster.node_affinity import task_on
from arat_ray.cluster.trials.config import TrialConfig
from arat_ray.storage import objects
from arat_ray.storage.address import mirror_of, parse, uri_of
from arat_ray.storage.mirror import Mirror
from arat_ray.storage.pushing import Pushing
from arat_ray.terminal import report
from arat_ray.text import plain
from arat_ray.training import checkpoint
from arat_ray.training.checkpoint import BEST, LAST
from arat_ray.training.identity import another_run
from arat_ray.training.run import Train, Validate

logger = logging.getLogger(__name__)
FILES = (LAST, BEST)
LEFT = "left-on-nodes.txt"
"""In a study that ended while its bucket was gone: the nodes that have something of it."""
PATIENCE_S = 60.0
"""How long a trial waits for a bucket that is gone, when it begins and when it ends."""

_pushing: list[Pushing] = []
"""Of the trial that this process trained last: Tune may have stopped it without a word."""


class Kept(NamedTuple):
    """Where the loop finds and leaves its checkpoints, and who brings them to the bucket."""

    folder: Path
    pushing: Pushing | None = None

    def flush(self) -> None:
        """Bring what is there to the bucket now, if it answers."""
        if self.pushing:
            self.pushing.flush()


@contextmanager
def kept(config: TrialConfig, device: torch.device, *, rank: int, world_size: int) -> Iterator[Kept]:
    """The folder of a trial's checkpoints on this node; with what the bucket has, and in the bucket at the end."""
    if config["address"] is None:
        yield Kept(Path(config["folder"]))
        return
    while _pushing:
        _pushing.pop().stop()
    if rank > 0:
        with tempfile.TemporaryDirectory() as temporary:
            _receive(Path(temporary) / LAST, device)
            yield Kept(Path(temporary))
        return
    mirror = Mirror(mirror_of(parse(config["address"])))
    mirror.folder.mkdir(parents=True, exist_ok=True)
    _pull(mirror)
    _remove_useless(mirror.folder, config)
    if world_size > 1:
        _send(mirror.folder / LAST, device)
    pushing = Pushing(mirror, FILES, log=logger.warning)
    _pushing.append(pushing)
    pushing.start()
    yield Kept(mirror.folder, pushing)
    _pushing.remove(pushing)
    if pushing.close(patience_s=PATIENCE_S):
        Pushing(mirror, FILES, log=logger.warning).start()  # as long as this process lives


def _pull(mirror: Mirror) -> None:
    """Bring what is in the bucket, or where it stays away take what this node has."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            mirror.pull(FILES, log=logger.warning)
            mirror.restore(FILES)
            return
        except OSError as error:
            if time.monotonic() >= deadline:
                logger.warning(plain(f"{mirror.address.uri} is not there ({error}); going on from what this node has"))
                return
            time.sleep(2)


def _remove_useless(folder: Path, config: TrialConfig) -> None:
    """What no run goes on from: a damaged file is set aside here, as the bucket would give it again and again.

    Files of another run of this number as well: a driver died before anybody else heard of that trial.
    """
    if not (folder / LAST).exists():
        return
    try:
        found = checkpoint.load(folder / LAST)
    except checkpoint.NotACheckpointError as error:
        checkpoint.set_aside(error.path)
        logger.warning(plain(f"{error}, {checkpoint.SET_ASIDE}; the trial begins anew"))
        return
    except ValueError:  # all workers will say so
        return
    train, validate = Train.model_validate(config["train"]), Validate.model_validate(config["validate"])
    if another_run((found.train, found.validate), train, validate):
        for name in FILES:
            (folder / name).unlink(missing_ok=True)


def _send(path: Path, device: torch.device) -> None:
    content = path.read_bytes() if path.exists() else b""
    dist.broadcast(torch.tensor([len(content)], device=device), 0)
    for begin in range(0, len(content), objects.CHUNK):
        part = torch.frombuffer(bytearray(content[begin : begin + objects.CHUNK]), dtype=torch.uint8)
        dist.broadcast(part.to(device), 0)


def _receive(path: Path, device: torch.device) -> None:
    size = torch.zeros(1, dtype=torch.int64, device=device)
    dist.broadcast(size, 0)
    left = int(size.item())
    if left:
        with path.open("wb") as file:
            while left:
                part = torch.empty(min(left, objects.CHUNK), dtype=torch.uint8, device=device)
                dist.broadcast(part, 0)
                file.write(part.cpu().numpy().tobytes())
                left -= len(part)


def are_left(folder: Path) -> bool:
    """Whether nodes had something of a study that has ended which its bucket has not."""
    note = folder / LEFT
    return note.exists() and note.stat().st_size > 0


def push_left(folder: Path, console: Console) -> None:
    """At the end of a study, have every node push what its workers could not."""
    address = uri_of(folder)
    if address is None:
        return
    here = None if ray_internals.is_client() else ray.get_runtime_context().get_node_id()
    others = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] != here]  # this one ends with its driver
    asked = {task_on(node["NodeID"], _push_all, address): node for node in others}
    done, _ = ray.wait(list(asked), num_returns=len(asked), timeout=PATIENCE_S) if asked else ([], [])
    lines = []
    for reference, node in asked.items():
        left = ray.get(reference) if reference in done else "it does not answer"
        if left:
            lines.append(f"not all of node {node['NodeName']} is in the bucket: {left}")
            report(console, f"{folder}: {lines[-1]}; --resume has it asked again", style="bold red")
    note = folder / LEFT
    if lines or note.exists():  # emptied and not removed: nothing is ever deleted in the bucket
        note.write_text("".join(f"{line}\n" for line in lines))


def _push_all(address: str) -> str:
    """What is left on this node after another attempt, in words; nothing where all is pushed."""
    mirror = Mirror(mirror_of(parse(address)))
    if not mirror.folder.exists():
        return ""
    try:
        mirror.pull(mirror.unpushed(["checkpoints/"]))
        mirror.push(["checkpoints/"])
    except OSError as error:
        return f"{len(mirror.unpushed(['checkpoints/']))} files in {mirror.folder!s} ({error})"
    return ""
