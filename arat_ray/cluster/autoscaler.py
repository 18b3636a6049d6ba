"""What a cluster may grow to: the node types that its autoscaler may start, as their configuration says.

Ray's control store does not know them (2.60 has a field for them that nothing fills), so they are read where the
autoscaler reads them: the file that `ray up` leaves on the head, or the RayCluster object of KubeRay.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ray
import requests
import yaml
from ray.exceptions import GetTimeoutError
from ray.util import placement_group, remove_placement_group

from arat_ray.cluster import ray_internals
from arat_ray.cluster.node_affinity import task_on
from arat_ray.text import plain

logger = logging.getLogger(__name__)
HEAD = "node:__internal_head__"
"""The resource by which Ray marks the head."""
NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
ANSWER_S = 300.0

Node = dict[str, float]
"""A node as {"CPU": 8, "GPU": 1}."""


def full_size(slots: Callable[[Node], int]) -> list[Node]:
    """The nodes of the cluster when its autoscaler has started all it may, those first that hold most by `slots`.

    Without an autoscaler those that are there; a Ray that this process has started has none. Ray must be connected.
    ValueError where the head does not answer.
    """
    alive = [node for node in ray.nodes() if node["Alive"]]
    present: list[Node] = [node["Resources"] for node in alive]
    head = next((node for node in alive if HEAD in node["Resources"]), None)
    own = ray_internals.own_node()
    if head is None or (own is not None and own.is_head()):
        return present
    asked = task_on(head["NodeID"], configuration, ray.get_runtime_context().gcs_address)
    try:
        found = ray.get(asked, timeout=ANSWER_S)
    except GetTimeoutError:
        raise ValueError(
            f"the head of this cluster was asked how far it may grow, and gave no answer in {ANSWER_S:.0f} s; try "
            "again when it is less busy"
        ) from None
    if found is None:
        return present
    grown = [head["Resources"], *addable(found, slots)]
    return max(present, grown, key=lambda nodes: sum(map(slots, nodes)))


def wake(bundles: list[Node], *, limit_s: float) -> bool:
    """Have nodes started until there is room for all of these at once; whether there was in time."""
    group = placement_group(bundles, strategy="PACK")
    there = bool(group.wait(limit_s))
    remove_placement_group(group)
    return there


def addable(config: Mapping[str, Any], slots: Callable[[Node], int]) -> list[Node]:
    """The workers that an autoscaler's configuration allows, those first that hold most."""
    most = int(config.get("max_workers", 0))
    types = config["available_node_types"]
    workers = [each for name, each in types.items() if name != config["head_node_type"]]
    workers.sort(key=lambda each: -slots(each.get("resources", {})))
    nodes = [each.get("resources", {}) for each in workers for _ in range(min(most, each.get("max_workers", most)))]
    return nodes[:most]


def configuration(gcs_address: str) -> dict[str, Any] | None:
    """On the head: what the autoscaler of this cluster was told; None where there is none."""
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = process.read_bytes().decode(errors="replace").split("\0")
        except OSError:  # it has ended
            continue
        options = dict(word.split("=", 1) for word in words if word.startswith("--") and "=" in word)
        if options.get("--gcs-address") == gcs_address and (path := options.get("--autoscaling-config")):
            found: dict[str, Any] = yaml.safe_load(Path(path).expanduser().read_text())
            return found
    if os.environ.get("KUBERNETES_SERVICE_HOST") and (name := os.environ.get("RAY_CLUSTER_NAME")):
        return _of_kuberay(name)
    return None


def _of_kuberay(name: str) -> dict[str, Any] | None:
    """As KubeRay's autoscaler reads it; None where the pod may not ask."""
    try:
        return ray_internals.kuberay_configuration(name, NAMESPACE.read_text().strip())
    except (OSError, requests.RequestException) as error:
        logger.warning(plain(f"cannot ask Kubernetes how far this cluster may grow: {error}"))
        return None
