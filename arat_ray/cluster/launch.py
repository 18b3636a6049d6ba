"""One trial on the cluster: the loop directly in the Tune actor (one worker), or on the actor's crew (more).

Tune's actors are used again for the next trial, and so are the workers of a crew.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

import torch
import torch.distributed as dist
from ray import train as ray_train
from ray import tune

from arat_ray.cluster import early_stopping
from arat_ray.cluster.crew import LOSSES, Crew, Message
from arat_ray.experiment.config import Resources
from arat_ray.training.loop import Context, Row, fit
from arat_ray.training.run import Train, Validate
from arat_ray.training.timing import describe

FAILURES = LOSSES
"""How often a trial's worker is replaced before the trial counts as failed."""


class TrialConfig(TypedDict):
    """What Ray carries to a trial: JSON of the specs, where its checkpoints go, and the epochs that decide on it."""

    number: int
    sampled: dict[str, Any]
    train: dict[str, Any]
    validate: dict[str, Any]
    resources: dict[str, Any]
    folder: str
    ray_folder: str
    rungs: list[int]


def trainable(resources: Resources) -> Any:
    """The Tune trainable for trials that take `resources`."""
    if resources.workers == 1:
        bundle = {"CPU": resources.cpus_per_worker, "GPU": resources.gpus_per_worker}
        return tune.with_resources(run_here, {kind: amount for kind, amount in bundle.items() if amount})
    # The function that drives the workers computes nothing. Were it to hold a CPU, as many drivers as CPUs would wait
    # for workers for ever; Tune wants some resource, and every node has memory.
    return tune.with_resources(run_on_workers, {"CPU": 0, "memory": 1 << 20})


def run_here(config: TrialConfig) -> None:
    """The loop in this process."""
    resources = Resources.model_validate(config["resources"])
    torch.set_num_threads(max(1, int(resources.cpus_per_worker)))
    device = torch.device("cuda" if resources.gpus_per_worker else "cpu")
    _fit(config, tune.report, device, rank=0, world_size=1)


_crews: list[Crew] = []
"""The crew of this process, a Tune actor that is used again for the next trial."""


def run_on_workers(config: TrialConfig) -> None:
    """The loop on several workers, each with its share of every batch."""
    if not _crews:
        resources = Resources.model_validate(config["resources"])
        _crews.append(Crew(resources, storage=config["ray_folder"], work=_work))
    for message in _crews[0].train(config):
        tune.report(message)


def _work(config: TrialConfig, say: Callable[[Message], None], give_up: Callable[[str], None]) -> None:
    resources = Resources.model_validate(config["resources"])
    torch.set_num_threads(max(1, int(resources.cpus_per_worker)))
    world = ray_train.get_context()
    device = ray_train.torch.get_device() if resources.gpus_per_worker else torch.device("cpu")
    try:
        _fit(config, say, device, rank=world.get_world_rank(), world_size=world.get_world_size())
    except torch.OutOfMemoryError as error:
        give_up(_reason(error, config))
        raise  # the other workers wait for this one: only ending them all gets them out


def _fit(config: TrialConfig, send: Any, device: torch.device, *, rank: int, world_size: int) -> None:
    """Run the loop, sending each row; what the user can mend is sent as a failure instead of raised.

    Where Tune stops a trial, `send` does not come back from a rung. Several workers ask at each rung whether to stop,
    as one: were Tune to stop them, their resources would never come free.
    """

    def report(row: Row, replayed: bool) -> bool:
        send({"row": row, "replayed": replayed, **describe(device)})
        if world_size == 1 or row["epoch"] not in config["rungs"]:
            return False
        stops = rank == 0 and early_stopping.ask(config["number"], row["epoch"])
        answer = torch.tensor([float(stops)], device=device)
        dist.all_reduce(answer)
        return bool(answer.item())

    train, validate = Train.model_validate(config["train"]), Validate.model_validate(config["validate"])
    try:
        fit(train, validate, Context(Path(config["folder"]), report, device, rank, world_size))
    except (ValueError, torch.OutOfMemoryError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            torch.cuda.empty_cache()
            if world_size > 1:
                raise
        send({"failed": _reason(error, config)})


def _reason(error: Exception, config: TrialConfig) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0]} (batch_size {config['train']['batch_size']})"
