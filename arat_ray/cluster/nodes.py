"""Joining or starting a cluster, and whether it can ever place a trial."""

from __future__ import annotations

import functools
import json
import logging
import os
import socket
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray
from ray._private.runtime_env.constants import RAY_JOB_CONFIG_JSON_ENV_VAR

from arat_ray.cluster import ENVIRONMENT, autoscaler
from arat_ray.cluster.checkpoints import server
from arat_ray.experiment.config import Resources

NOBODY = "no Ray cluster answers at {address}; start one with `ray start --head`, or leave the address out"


class PlacementError(ValueError):
    """The cluster can never run a trial of this experiment."""


@contextmanager
def cluster(address: str | None, *, verbose: bool) -> Iterator[None]:
    """Join the cluster at `address` or RAY_ADDRESS, or start one on this machine that ends with the block.

    Raises ValueError where there is no cluster at the address.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    quiet = {"log_to_driver": verbose, "logging_level": logging.INFO if verbose else logging.ERROR}
    if not verbose:
        for name in ("ray", "ray.train", "ray.data"):
            logging.getLogger(name).setLevel(logging.ERROR)
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # a lost worker is told in one line, not in twenty
    if address and address not in ("auto", "local"):
        _check_answers(address)
    try:
        if address:
            variables = {name: value for name, value in (ENVIRONMENT | server()).items() if name not in _of_job()}
            ray.init(address=address, runtime_env={"env_vars": variables}, **quiet)
        else:
            ray.init(address="local", include_dashboard=False, object_store_memory=100 << 20, **quiet)
    except ConnectionError as error:
        without = " (it wants a token? then set RAY_AUTH_MODE=token)" if not os.environ.get("RAY_AUTH_MODE") else ""
        raise ValueError(NOBODY.format(address=address) + without) from error
    try:
        yield
    finally:
        ray.shutdown()


def _of_job() -> Container[str]:
    """Variables that this process's job was submitted with: all its workers have them, and Ray takes none twice."""
    config: dict[str, Any] = json.loads(os.environ.get(RAY_JOB_CONFIG_JSON_ENV_VAR, "{}"))
    variables: dict[str, str] = (config.get("runtime_env") or {}).get("env_vars") or {}
    return variables.keys()


def _check_answers(address: str) -> None:
    """Refuse in seconds an address where nobody listens; Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"{address!r} is no address of a Ray cluster; write host:port, ray://host:port or auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        raise ValueError(NOBODY.format(address=address)) from error


def check_placeable(resources: Resources) -> int:
    """How many trials the cluster can run at once, with the nodes that its autoscaler may add.

    Raises PlacementError, naming what is asked for and what is there, where it is none.
    """
    nodes = autoscaler.full_size(functools.partial(slots, resources))
    count = placeable(resources, nodes)
    if count == 0:
        have = "; ".join(f"{node.get('CPU', 0):g} CPU, {node.get('GPU', 0):g} GPU" for node in nodes)
        raise PlacementError(
            f"a trial takes {resources.workers} worker(s) with {resources.cpus_per_worker:g} CPU and "
            f"{resources.gpus_per_worker:g} GPU each, which this cluster can never place "
            f"({len(nodes)} node(s): {have}); lower resources.workers, "
            "cpus_per_worker or gpus_per_worker, or join a larger cluster with --address"
        )
    return count


def placeable(resources: Resources, nodes: Sequence[dict[str, Any]]) -> int:
    """Trials that fit onto nodes at once, each node given as {"CPU": 8, "GPU": 1}.

    Where there is no room for all workers of a trial, 1 if there is for as few as it may have.
    """
    found = sum(slots(resources, node) for node in nodes)
    return found // resources.workers or int(found >= (resources.min_workers or resources.workers))


def wake(resources: Resources, *, limit_s: float) -> bool:
    """Have the autoscaler start the nodes of one trial, where there is no room for one; whether there is in time."""
    if placeable(resources, [node["Resources"] for node in ray.nodes() if node["Alive"]]):
        return True
    return autoscaler.wake([per_worker(resources)] * resources.workers, limit_s=limit_s)


def per_worker(resources: Resources) -> dict[str, float]:
    """What Ray reserves for a worker."""
    need = {"CPU": resources.cpus_per_worker, "GPU": resources.gpus_per_worker}
    return {kind: amount for kind, amount in need.items() if amount}


def slots(resources: Resources, node: dict[str, Any]) -> int:
    """Workers that fit onto a node."""
    need = {"CPU": resources.cpus_per_worker, "GPU": resources.gpus_per_worker}
    return min(int((node.get(kind, 0) + 1e-6) / amount) for kind, amount in need.items() if amount)
