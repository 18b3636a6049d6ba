"""Ray's private names, all that this project uses of them: what to look at when Ray changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from typing import Any

import ray
import ray._private.node as node
import ray._private.ray_constants as ray_constants
import ray._private.services as services
from ray._private import utils, worker
from ray._private.runtime_env.constants import RAY_JOB_CONFIG_JSON_ENV_VAR
from ray._private.state import state
from ray._raylet import (  # type: ignore[attr-defined]
    DASHBOARD_AGENT_LISTEN_PORT_NAME,
    METRICS_AGENT_PORT_NAME,
    METRICS_EXPORT_PORT_NAME,
    GcsClient,
    persist_port,
)
from ray.core.generated.autoscaler_pb2 import DrainNodeReason
from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_get, _internal_kv_list, _internal_kv_put

__all__ = ["JOB_CONFIG_VARIABLE", "node", "persist_port", "ray_constants", "services", "utils"]

JOB_CONFIG_VARIABLE = RAY_JOB_CONFIG_JSON_ENV_VAR
"""The environment variable with the configuration of the job that this process belongs to, as JSON."""
AGENT_PORTS = (METRICS_AGENT_PORT_NAME, METRICS_EXPORT_PORT_NAME, DASHBOARD_AGENT_LISTEN_PORT_NAME)
"""Ports of the dashboard's agent, which a raylet waits for."""
psutil: Any = node.psutil  # Ray brings it along


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """One of Ray's names means something else in this block."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def is_connected() -> bool:
    """Whether this process is connected to a cluster as one of its workers, not through Ray Client."""
    return bool(worker.global_worker.connected)


def is_client() -> bool:
    """Whether this process is connected through Ray Client, `ray://`."""
    return bool(ray.util.client.ray.is_connected())


def own_node() -> Any:
    """The processes of Ray that this process has started; None where others have, or none runs."""
    return worker._global_node


def session_name() -> str:
    """The session of the cluster that this process has joined."""
    return str(worker.global_worker.node.session_name)


def draining_nodes() -> Mapping[str, int]:
    """Nodes that Ray was told will go: id -> deadline in ms since 1970. RayError or RuntimeError without an answer."""
    return dict(state.get_draining_nodes())


def drain_node(gcs_address: str, node_id: str, *, why: str, deadline_ms: int) -> None:
    """Tell Ray that a node is preempted, so that nothing new is placed on it. Raises RayError."""
    reason = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    GcsClient(address=gcs_address).drain_node(node_id, reason, why, deadline_ms)


def put(key: str, value: str, *, namespace: str) -> None:
    """Write to the cluster's key-value store."""
    _internal_kv_put(key, value, overwrite=True, namespace=namespace)


def values(prefix: str, *, namespace: str) -> list[bytes]:
    """What the key-value store has under the keys that begin so."""
    found = (_internal_kv_get(key, namespace=namespace) for key in _internal_kv_list(prefix, namespace=namespace))
    return [value for value in found if value]


def delete(prefix: str, *, namespace: str) -> None:
    """Remove from the key-value store the keys that begin so."""
    _internal_kv_del(prefix, del_by_prefix=True, namespace=namespace)


def kuberay_configuration(cluster: str, namespace: str) -> dict[str, Any]:
    """The configuration of KubeRay's autoscaler. OSError or requests.RequestException where it cannot be had."""
    from ray.autoscaler._private.kuberay.autoscaling_config import AutoscalingConfigProducer

    found: dict[str, Any] = AutoscalingConfigProducer(cluster, namespace)()
    return found


def controlled_by(controller: type) -> AbstractContextManager[None]:
    """Searches in this block are run by this kind of `TuneController`."""
    return replaced(import_module("ray.tune.tune"), "TuneController", controller)


def propagate_only(prefixes: tuple[str, ...]) -> None:
    """Of the environment variables that Ray Tune copies to its actors, leave those that begin with one of these."""
    from ray.tune.execution import class_cache  # here: only a search needs Ray Tune

    copied = class_cache.ENV_VARS_TO_PROPAGATE
    class_cache.ENV_VARS_TO_PROPAGATE = {name for name in copied if name.startswith(prefixes)}
