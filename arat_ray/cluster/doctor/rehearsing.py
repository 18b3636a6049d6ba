"""A rehearsal on the cluster: the first steps of a trial, placed as a trial's workers are."""

from __future__ import annotations

import json
import socket
import tempfile
import time
from pathlib import Path
from typing import Any

import ray
import torch
import torch.distributed as dist
from ray import train as ray_train

from arat_ray.cluster.doctor import on_all_nodes, probes
from arat_ray.cluster.torch_trainer import torch_trainer
from arat_ray.experiment.spec import Experiment, Resources
from arat_ray.training.context import Context
from arat_ray.training.rehearsal import rehearse
from arat_ray.training.run import Train, Validate

TIMED_S = 10.0
MEASURED = "rehearsal.json"


def run(experiment: Experiment, *, workers: int, storage: str, limit_s: float) -> Any:
    """A rehearsal's measurements as a dict, or the Trouble with it. `storage`: a folder or address that all nodes see.

    `workers` may be fewer than a trial wants.
    """
    resources = experiment.resources.model_copy(update={"workers": workers, "min_workers": None})
    config = {
        "train": experiment.base.located().model_dump(mode="json"),
        "validate": experiment.validation.model_dump(mode="json"),
        "resources": resources.model_dump(mode="json"),
        "storage": storage,
        "seconds": min(TIMED_S, limit_s / 4),
    }
    if resources.workers == 1:
        task = ray.remote(num_cpus=resources.cpus_per_worker, num_gpus=resources.gpus_per_worker, max_retries=0)
        return on_all_nodes.wait(task(_alone).remote(config), limit_s=limit_s)
    return on_all_nodes.wait(ray.remote(num_cpus=0, max_retries=0)(_together).remote(config), limit_s=limit_s)


def _alone(config: dict[str, Any]) -> dict[str, Any]:
    device = torch.device("cuda" if config["resources"]["gpus_per_worker"] else "cpu")
    return _rehearse(config, device, rank=0, world_size=1)


def _together(config: dict[str, Any]) -> dict[str, Any]:
    """The workers of one trial, through Ray Train, as `launch` places them."""
    resources = Resources.model_validate(config["resources"])
    with tempfile.TemporaryDirectory(prefix="arat-ray-") as scratch:
        failures = ray_train.FailureConfig(max_failures=0, controller_failure_limit=1)
        torch_trainer(
            _worker,
            config,
            resources,
            workers=resources.workers,
            name="rehearsal",
            storage=scratch,
            failures=failures,
        ).fit()
    return dict(json.loads(probes.read_file(MEASURED, config["storage"])))


def _worker(config: dict[str, Any]) -> None:
    world = ray_train.get_context()
    rank, workers = world.get_world_rank(), world.get_world_size()
    device = ray_train.torch.get_device() if config["resources"]["gpus_per_worker"] else torch.device("cpu")
    collective = _collective(device, rank, workers)
    measured = collective | _rehearse(config, device, rank=rank, world_size=workers)
    if rank == 0:  # Ray Train gives no measurements back without a checkpoint
        probes.leave_a_file(MEASURED, config["storage"], json.dumps(measured))


def _collective(device: torch.device, rank: int, workers: int) -> dict[str, Any]:
    """An all-reduce whose sum is known, and how long one of 16 MiB takes."""
    values = torch.full((4 << 20,), float(rank + 1), device=device)
    dist.all_reduce(values)
    right = bool((values == workers * (workers + 1) / 2).all())
    began = time.perf_counter()
    dist.all_reduce(values)
    float(values[0])  # waits for the device
    names: list[Any] = [None] * workers
    dist.all_gather_object(names, socket.gethostname())
    return {
        "backend": dist.get_backend(),
        "sum_right": right,
        "all_reduce_s": time.perf_counter() - began,
        "hosts": sorted(set(names)),
    }


def _rehearse(config: dict[str, Any], device: torch.device, *, rank: int, world_size: int) -> dict[str, Any]:
    torch.set_num_threads(max(1, int(config["resources"]["cpus_per_worker"])))
    with tempfile.TemporaryDirectory() as folder:
        context = Context(Path(folder), lambda row, replayed: False, device, rank, world_size)
        train, validate = Train.model_validate(config["train"]), Validate.model_validate(config["validate"])
        measured = rehearse(train, validate, context, seconds=config["seconds"])
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return measured._asdict() | {"device": name}
