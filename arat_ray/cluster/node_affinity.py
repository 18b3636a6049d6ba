"""Node affinity: a Ray task or actor on one given node, beside whatever reserves that node's resources."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


def task_on(node_id: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """The reference to what a function returns on this node. It is never run again, nor anywhere else."""
    task: Any = ray.remote(num_cpus=0, max_retries=0)(function)
    return task.options(scheduling_strategy=_affinity(node_id)).remote(*arguments)


def actor_on(node_id: str, kind: type, *arguments: Any, name: str | None = None) -> Any:
    """An actor on this node, as long as its handle is kept."""
    actor: Any = ray.remote(kind)
    return actor.options(name=name, num_cpus=0, scheduling_strategy=_affinity(node_id)).remote(*arguments)


def _affinity(node_id: str) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node_id, soft=False)
