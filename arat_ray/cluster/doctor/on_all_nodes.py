"""Running a function on every node of a cluster, within a time limit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import ray
from ray.exceptions import GetTimeoutError, RayError

from arat_ray.cluster.node_affinity import task_on


class Trouble(NamedTuple):
    """Why a node has no answer."""

    why: str


def nodes() -> dict[str, dict[str, Any]]:
    """The nodes that are alive, as Ray describes them, by a name that a person knows."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    names = [node["NodeManagerHostname"] for node in alive]
    return {
        name if names.count(name) == 1 else f"{name}-{node['NodeID'][:6]}": node
        for name, node in sorted(zip(names, alive, strict=True), key=lambda pair: (pair[0], pair[1]["NodeID"]))
    }


def run(function: Callable[..., Any], *arguments: Any, limit_s: float) -> dict[str, Any]:
    """What a function gives on each node, or the Trouble with it; the function gets the node's name first."""
    running = {name: task_on(node["NodeID"], function, name, *arguments) for name, node in nodes().items()}
    ready, late = ray.wait(list(running.values()), num_returns=len(running), timeout=limit_s)
    for each in late:
        ray.cancel(each, force=True)
    return {
        name: answer(each) if each in ready else Trouble(f"no answer within {limit_s:g} s")
        for name, each in running.items()
    }


def wait(running: Any, *, limit_s: float) -> Any:
    """What one task gives, or the Trouble with it."""
    ready, _ = ray.wait([running], timeout=limit_s)
    if ready:
        return answer(running)
    ray.cancel(running, force=True)
    return Trouble(f"no answer within {limit_s:g} s")


def answer(done: Any) -> Any:
    """What a task that has ended gave, or the Trouble with it: the last line of its error."""
    try:
        return ray.get(done, timeout=60)
    except (RayError, GetTimeoutError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return Trouble(lines[-1] if lines else type(error).__name__)


def troubles(answers: dict[str, Any]) -> list[str]:
    """The nodes with Trouble, and which."""
    return [f"{node}: {given.why}" for node, given in answers.items() if isinstance(given, Trouble)]
