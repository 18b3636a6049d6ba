"""Whether a cluster file's machines can ever hold a trial: its workers against the largest node and all nodes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from arat_ray.launchers.kuberay import quantity
from arat_ray.launchers.pods import clusters
from arat_ray.launchers.problems import Problem, amount, at, listed, mapping
from arat_ray.launchers.ray_up import commands, workers
from arat_ray.launchers.slurm import read

if TYPE_CHECKING:
    from arat_ray.experiment.spec import Resources


class Nodes(NamedTuple):
    """Nodes of one kind: at most how many, and what each has."""

    name: str
    most: int
    cpus: float
    gpus: float

    def __str__(self) -> str:
        return f"{self.most} x {self.name} ({self.cpus:g} CPU, {self.gpus:g} GPU)"


def of_ray_up(config: Any) -> list[Nodes] | None:
    """The workers that `ray up` may start; None where the file does not say what they have."""
    if at(config, "provider", "type") == "local":
        return _of_local(config)
    most = at(config, "max_workers")
    return [
        Nodes(name, _most(most, each.get("max_workers", most)), *_has(mapping(each.get("resources"))))
        for name, each in workers(config).items()
    ]


def _most(everywhere: Any, here: Any) -> int:
    return int(min(amount(each) for each in (everywhere, here)))


def _has(resources: dict[str, Any]) -> tuple[float, float]:
    return amount(resources.get("CPU")), amount(resources.get("GPU"))


def _of_local(config: Any) -> list[Nodes] | None:
    starts = " ".join(command for _, command in commands(config, "worker_start_ray_commands"))
    cpus, gpus = (re.search(rf"--num-{kind}[= ](\d+)", starts) for kind in ("cpus", "gpus"))
    if cpus is None or gpus is None:
        return None
    return [
        Nodes(
            "worker", len(listed(at(config, "provider", "worker_ips"))), amount(float(cpus[1])), amount(float(gpus[1]))
        )
    ]


def of_kuberay(documents: list[Any]) -> list[list[Nodes]]:
    """The worker pods of each cluster."""
    return [
        [
            Nodes(str(at(group, "groupName")), int(amount(at(group, "maxReplicas"))), *_pod(mapping(group)))
            for group in listed(cluster.get("workerGroupSpecs"))
        ]
        for _, cluster in clusters(documents)
    ]


def _pod(group: dict[str, Any]) -> tuple[float, float]:
    limits = mapping(at(group, "template", "spec", "containers", 0, "resources", "limits"))
    return quantity(limits.get("cpu", 0)), quantity(limits.get("nvidia.com/gpu", 0))


def of_slurm(text: str) -> list[Nodes]:
    """The nodes of a batch job."""
    options = read(text).options
    found = re.search(r"(\d+)$", options.get("gpus-per-node") or options.get("gres", ""))
    nodes, cpus = (options.get(name, "") for name in ("nodes", "cpus-per-task"))
    if not all(re.fullmatch(r"[0-9]{1,9}", each) for each in (nodes, cpus)):
        return []
    return [Nodes("node", int(nodes), float(cpus), amount(float(found[1])) if found else 0.0)]


def trials_at_once(resources: Resources, nodes: list[Nodes]) -> int:
    """How many trials the nodes hold at once."""
    return sum(_slots(resources, each) * each.most for each in nodes) // resources.workers


def _slots(resources: Resources, node: Nodes) -> int:
    need = ((node.cpus, resources.cpus_per_worker), (node.gpus, resources.gpus_per_worker))
    return min(int((have + 1e-6) / amount) for have, amount in need if amount)


def too_small(resources: Resources, nodes: list[Nodes], path: tuple[str | int, ...]) -> list[Problem]:
    """A problem where the nodes can never hold one trial."""
    need = f"{resources.cpus_per_worker:g} CPU and {resources.gpus_per_worker:g} GPU"
    if not any(_slots(resources, each) for each in nodes):
        largest = max(nodes, key=lambda each: (each.gpus, each.cpus), default="none")
        says = f"a worker of a trial takes {need}, and the largest node is {largest}"
        fix = "choose larger machines, or lower resources.cpus_per_worker or gpus_per_worker of the experiment"
        return [Problem(path, says, fix)]
    if trials_at_once(resources, nodes) == 0:
        holds = sum(_slots(resources, each) * each.most for each in nodes)
        says = f"a trial takes {resources.workers} workers of {need}, and all nodes together hold {holds}: "
        fix = "raise max_workers (maxReplicas, --nodes), or lower resources.workers of the experiment"
        return [Problem(path, says + ", ".join(map(str, nodes)), fix)]
    return []
