"""The jobs of an evaluation, spread over Ray actors: the same bits for any number of them.

An actor computes on one thread or one GPU. One that is lost with its node is started again elsewhere, and its job with
it: a job depends on nothing but itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import ray
import torch
from ray.util import ActorPool

from arat_ray.evaluation.autoattack import Attacker, Job, Runner, Verdicts
from arat_ray.training.memory import keep_freed_memory


def spread(workers: int, *, device: torch.device) -> Runner:
    """A runner on so many actors of the cluster that this process has joined, a CPU or a GPU each.

    Raises ValueError where the cluster has fewer.
    """
    kind = "GPU" if device.type == "cuda" else "CPU"
    there = int(ray.cluster_resources().get(kind, 0))
    if there < workers:
        raise ValueError(f"--workers {workers}: this cluster has {there} {kind}; lower it, or join a larger --address")
    options = {"num_cpus": 1, "num_gpus": int(kind == "GPU"), "max_restarts": -1, "max_task_retries": -1}
    actors: list[Any] = []
    served: list[Attacker] = []
    kept: list[Any] = []

    def runner(attacker: Attacker, jobs: Sequence[Job]) -> Iterable[tuple[Job, Verdicts]]:
        if served != [attacker]:  # the same one for all attacks of a plan
            served[:] = [attacker]
            # by reference inside a list: an actor that is started again fetches it, where it lies for all of them
            kept[:] = [ray.put(attacker)]
            actors[:] = [ray.remote(_Worker).options(**options).remote(kept, device.type) for _ in range(workers)]
        done: Iterable[tuple[Job, Verdicts]] = ActorPool(actors).map_unordered(
            lambda actor, job: actor.run.remote(job), jobs
        )
        return done

    return runner


class _Worker:
    """An attacker in a process of its own."""

    def __init__(self, shared: list[Any], device: str) -> None:
        torch.set_num_threads(1)
        keep_freed_memory()
        self.attacker: Attacker = ray.get(shared[0])
        self.attacker.model.to(device)

    def run(self, job: Job) -> tuple[Job, Verdicts]:
        return job, self.attacker(job)
