"""The networks of a study, or one checkpoint, measured one after another; each report in its study's tables."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from arat_ray.api.data import Ask, data_of, refuse, unchecked
from arat_ray.evaluation import accuracy
from arat_ray.evaluation.accuracy import Other, Report, SplitName
from arat_ray.evaluation.autoattack import Runner, one_after_another
from arat_ray.evaluation.ensembles import Ensemble
from arat_ray.evaluation.request import checkpoints_of, record, with_dials
from arat_ray.results.schema import FITTED
from arat_ray.storage import mirror, session
from arat_ray.training import clean_branch, pairs
from arat_ray.training.attacks import Attack
from arat_ray.training.checkpoint import load
from arat_ray.training.data.subset import Subset

Tell = Callable[[str], None]


class Measured(NamedTuple):
    """A report, and the study whose tables have it, if the checkpoint is of one."""

    report: Report
    study: Path | None


def reports(
    target: Path,
    *,
    attack: Attack | Ensemble,
    split: SplitName,
    data: str | None,
    front: bool,
    images: int | None,
    subset: Subset | None,
    subset_seed: int = 0,
    seed: int,
    batch_size: int,
    averaged: bool,
    dials: Sequence[float] | None = None,
    fit: int | None = None,
    other: Other | None = None,
    device: str | None,
    workers: int | None,
    address: str | None,
    records: Path | None,
    tell: Tell,
    note: Tell,
    progress: Tell,
    begin: Callable[[int, int, Path], None] = lambda number, of, checkpoint: None,
    ask: Ask = refuse,
    around: Callable[[], AbstractContextManager[None]] = nullcontext,
    ray_ended: Callable[[str, threading.Event], None],
) -> Iterator[Measured]:
    """Measure a checkpoint, or a study's complete trials, or those on its front; each comes when it is recorded.

    With `dials` it is measured at each of these settings between its norm branches, and not as deployed. `fit` trains a
    clean branch in so many epochs for networks that all have none. With an `other` checkpoint
    the settings are those of a soup or a mixture of both.
    `begin(number, of, checkpoint)` is called before each, which is measured within `around`; with `workers` on Ray,
    which is not loaded otherwise.
    """
    if subset and images is None:
        raise ValueError(f"--subset {subset} says which images, and not how many; add --images N")
    if address and not workers:
        raise ValueError(f"--address {address} says where workers run, and there are none; add --workers N")
    with ExitStack() as stack:
        study, _ = session.study_of(target)
        session.pull(study, mirror.TABLES, log=tell)
        if other is not None and target.is_dir():  # of a bucket, which is known now
            raise ValueError(f"--{other.way} goes from one checkpoint to another, and {target} is a folder")

        def fetch(chosen: Sequence[Path]) -> None:
            names = [str(path.relative_to(study)) for path in chosen]
            batches = [f"{name.rpartition('/')[0]}/attacks/" for name in names]
            session.pull(study, [*names, *batches], log=tell)
            branches = [f"{name.rpartition('/')[0]}/{FITTED}*" for name in names] if fit else []
            if branches:
                session.pull(study, branches, log=tell)
            stack.enter_context(session.evaluating(study, [*batches, *branches], log=tell))

        if records:
            session.pull(records, [""], log=tell)
            stack.enter_context(session.evaluating(records, [""], log=tell))
        checkpoints = checkpoints_of(target, front=front, fetch=fetch)
        settings: Sequence[float | None] = [None] if dials is None else dials
        if fit:
            local_device = torch.device("cpu") if workers else device_of(device)
            for number, checkpoint in enumerate(checkpoints):
                run = load(checkpoint, mmap=True).train
                with around(), data_of(checkpoint, [run], data, ask=ask, test=False):
                    checkpoints[number] = clean_branch.fitted(
                        checkpoint, epochs=fit, averaged=averaged, device=local_device, say=note, progress=progress
                    )
        if other is not None:
            its_study, inside = session.study_of(other.path)
            session.pull(its_study, [inside], log=tell)
            (first,) = checkpoints
            pair = pairs.TwoNetworks(other.way, load(first, mmap=True), load(other.path, mmap=True))
            pairs.check(pair, (first, other.path), dials or ())
            note(f"t = 0 is {first} and t = 1 {other.path}")
            if other.way == "mix":
                note("a mixture is two networks: twice the memory and the time of one, in use as well")
        elif dials is not None:
            checkpoints = with_dials(checkpoints, dials, averaged=averaged, note=note)
        runner: Runner = one_after_another
        hardware = None
        if workers:
            from arat_ray.cluster import evaluate as on_cluster
            from arat_ray.cluster import local, nodes

            stack.enter_context(local.watched(ray_ended))
            stack.enter_context(nodes.cluster(address, verbose=False))
            theirs = torch.device(device) if device else on_cluster.device_of_cluster()
            runner, hardware = on_cluster.spread(workers, device=theirs), on_cluster.hardware(theirs)
            on = torch.device("cpu")  # this machine need not have what the workers have
        else:
            on = device_of(device)
        for number, checkpoint in enumerate(checkpoints, start=1):
            begin(number, len(checkpoints), checkpoint)
            state = load(checkpoint, mmap=True)
            if number == 1:
                for text in unchecked(checkpoint, state):
                    note(text)
            for dial in settings:
                with around(), data_of(checkpoint, [state.train], data, ask=ask, test=split == "test"):
                    report = accuracy.evaluate(
                        checkpoint,
                        split=split,
                        attack=attack,
                        images=images,
                        subset=subset or "stratified",
                        subset_seed=subset_seed,
                        seed=seed,
                        batch_size=batch_size,
                        averaged=averaged,
                        dial=dial,
                        other=other,
                        device=on,
                        records=records,
                        runner=runner,
                        hardware=hardware,
                        progress=progress if dial is None else partial(_at, progress, dial),
                        say=tell,
                    )
                    with session.adding(study, log=tell):
                        added_to = record(report)
                yield Measured(report, added_to)


def _at(progress: Tell, dial: float, line: str) -> None:
    progress(f"dial {dial:g}: {line}")


def device_of(name: str | None) -> torch.device:
    """The device of this process by its name; a GPU where none is named and there is one."""
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError:
        raise ValueError(f"--device {name}: torch knows no such device; use cpu or cuda") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch sees no GPU on this machine; use --device cpu")
    return device
