"""The jobs of an evaluation, spread over Ray: the same bits for any number of workers.

A job is a Ray task on one thread or one GPU that depends on nothing but itself. One that is lost with its worker or its
node runs again wherever there is room.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import ray
import torch

from arat_ray.evaluation.autoattack import Attacker, Job, Runner, Verdicts, on_cpu
from arat_ray.training.memory import keep_freed_memory

KIND = "accelerator_type:"
"""The resource by which Ray tells what a node's GPUs are."""

_attackers: dict[str, Attacker] = {}
"""The last one that this worker process was given."""


def hardware(device: torch.device) -> str:
    """What runs a job on this cluster, as `autoattack.hardware` has it of one process."""
    if device.type == "cpu":
        return on_cpu(1)
    kinds = sorted(name.removeprefix(KIND) for name in ray.cluster_resources() if name.startswith(KIND))
    return ", ".join(["cuda", *kinds])


def device_of_cluster() -> torch.device:
    """GPUs where the cluster that this process has joined has any."""
    return torch.device("cuda" if ray.cluster_resources().get("GPU") else "cpu")


def spread(workers: int, *, device: torch.device) -> Runner:
    """A runner of so many jobs at once on the cluster that this process has joined, a CPU or a GPU each.

    Raises ValueError where the cluster has fewer.
    """
    kind = "GPU" if device.type == "cuda" else "CPU"
    there = int(ray.cluster_resources().get(kind, 0))
    if there < workers:
        raise ValueError(f"--workers {workers}: this cluster has {there} {kind}; lower it, or join a larger --address")
    # max_calls=0: a process that has the network on its GPU takes the next job as well
    task: Any = ray.remote(num_cpus=1, num_gpus=int(kind == "GPU"), max_retries=-1, max_calls=0)(_run)
    served: list[Attacker] = []
    kept: list[Any] = []

    def runner(attacker: Attacker, jobs: Sequence[Job]) -> Iterator[tuple[Job, Verdicts]]:
        if served != [attacker]:  # the same one for all attacks of a plan
            served[:], kept[:] = [attacker], [ray.put(attacker)]
        waiting, running = list(reversed(jobs)), list[Any]()
        while waiting or running:
            while waiting and len(running) < workers:
                running.append(task.remote(kept, device.type, waiting.pop()))  # a list: its reference, not its value
            (done,), running = ray.wait(running, num_returns=1)
            yield ray.get(done)

    return runner


def _run(shared: list[Any], device: str, job: Job) -> tuple[Job, Verdicts]:
    key = shared[0].hex()
    if key not in _attackers:
        torch.set_num_threads(1)
        keep_freed_memory()
        attacker: Attacker = ray.get(shared[0])
        attacker.model.to(device)
        _attackers.clear()
        _attackers[key] = attacker
    return job, _attackers[key](job)
