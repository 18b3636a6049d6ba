"""One trial on the cluster: the loop directly in the Tune actor (one worker), or as a TorchTrainer (more).

A reused actor starts its next trial at once, where a TorchTrainer starts processes of its own, so a world of one worker
never pays for Ray Train.
"""

from __future__ import annotations

from typing import Any, TypedDict

import torch
import torch.distributed as dist
from ray import train as ray_train
from ray import tune
from ray.train.torch import TorchTrainer
from ray.tune.integration.ray_train import TuneReportCallback

from arat_ray.cluster import checkpoints, early_stopping
from arat_ray.experiment.config import Resources
from arat_ray.training.loop import Context, Row, fit
from arat_ray.training.run import Train, Validate
from arat_ray.training.timing import describe

FAILURES = 3
"""How often workers lost with their node are replaced before a trial counts as failed."""


class TrialConfig(TypedDict):
    """What Ray carries to a trial: JSON of the specs, where its checkpoints go (`address`, where that is a bucket), and
    the epochs that decide on it."""

    number: int
    sampled: dict[str, Any]
    train: dict[str, Any]
    validate: dict[str, Any]
    resources: dict[str, Any]
    folder: str
    address: str | None
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


def run_on_workers(config: TrialConfig) -> None:
    """The loop on several workers, each with its share of every batch."""
    resources = Resources.model_validate(config["resources"])
    per_worker = {"CPU": resources.cpus_per_worker, "GPU": resources.gpus_per_worker}
    trainer = TorchTrainer(
        _run_worker,
        train_loop_config=dict(config),
        scaling_config=ray_train.ScalingConfig(
            num_workers=resources.workers,
            use_gpu=resources.gpus_per_worker > 0,
            resources_per_worker={kind: amount for kind, amount in per_worker.items() if amount},
        ),
        run_config=ray_train.RunConfig(
            name=f"trial-{config['number']:05d}",
            **checkpoints.ray_storage(config),
            callbacks=[TuneReportCallback()],
            failure_config=ray_train.FailureConfig(max_failures=FAILURES, controller_failure_limit=2),
        ),
    )
    trainer.fit()


def _run_worker(config: TrialConfig) -> None:
    resources = Resources.model_validate(config["resources"])
    torch.set_num_threads(max(1, int(resources.cpus_per_worker)))
    world = ray_train.get_context()
    device = ray_train.torch.get_device() if resources.gpus_per_worker else torch.device("cpu")
    _fit(config, ray_train.report, device, rank=world.get_world_rank(), world_size=world.get_world_size())


def _fit(config: TrialConfig, send: Any, device: torch.device, *, rank: int, world_size: int) -> None:
    """Run the loop, sending each row; what the user can mend is sent as a failure instead of raised.

    Where Tune stops a trial, `send` does not come back from a rung. Several workers ask at each rung whether to stop,
    as one: were Tune to stop them, their resources would never come free.
    """

    def report(row: Row, replayed: bool) -> bool:
        if row["epoch"] in config["rungs"]:
            kept.flush()  # from here the trial may not come back
        send({"row": row, "replayed": replayed, **describe(device)})
        if world_size == 1 or row["epoch"] not in config["rungs"]:
            return False
        stops = rank == 0 and early_stopping.ask(config["number"], row["epoch"])
        answer = torch.tensor([float(stops)], device=device)
        dist.all_reduce(answer)
        return bool(answer.item())

    train, validate = Train.model_validate(config["train"]), Validate.model_validate(config["validate"])
    try:
        with checkpoints.kept(config, device, rank=rank, world_size=world_size) as kept:
            fit(train, validate, Context(kept.folder, report, device, rank, world_size))
    except (ValueError, torch.OutOfMemoryError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            torch.cuda.empty_cache()
            if world_size > 1:
                raise  # the other workers wait for this one: only ending them all gets them out
        send({"failed": f"{type(error).__name__}: {str(error).splitlines()[0]} (batch_size {train.batch_size})"})
