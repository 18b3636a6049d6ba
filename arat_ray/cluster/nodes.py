"""Joining or starting a cluster, and whether it can ever place a trial."""

from __future__ import annotations

import functools
import json
import logging
import os
import socket
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import AuthenticationError

from arat_ray.cluster import ENVIRONMENT, autoscaler, ray_internals, starting
from arat_ray.cluster.secrecy import server
from arat_ray.cluster.token import PLACES
from arat_ray.cluster.waiting import Waiting, tell
from arat_ray.experiment.spec import Resources
from arat_ray.text import plain

NOBODY = "no Ray cluster answers at {address}; start one with `ray start --head`, or leave the address out"


class PlacementError(ValueError):
    """The cluster can never run a trial of this experiment."""


@contextmanager
def cluster(
    address: str | None, *, verbose: bool, several_workers: bool = False, warn: Callable[[str], None] = tell
) -> Iterator[None]:
    """Join the cluster at `address` or RAY_ADDRESS, or start one on this machine that ends with the block.

    Trials that take `several_workers` start sooner where that is known. `warn` hears what the user should know. Raises
    ValueError where there is no cluster at the address or none can be started, and KeyboardInterrupt when the process
    is told to stop meanwhile.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    quiet = {"log_to_driver": verbose, "logging_level": logging.INFO if verbose else logging.ERROR}
    if not verbose:
        for name in ("ray", "ray.train", "ray.data"):
            logging.getLogger(name).setLevel(logging.ERROR)
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # a lost worker is told in one line, not in twenty
    if not address or address == "local":
        with starting.own(verbose=verbose, warn=warn, several_workers=several_workers, **quiet):
            yield
        return
    if address != "auto":
        _check_answers(address)
    try:
        with Waiting(f"joining Ray at {plain(address)}", give_up=lambda: None):
            _join(address, quiet)
        warn(_joined(address))
        yield
    finally:
        ray.shutdown()


def _join(address: str, quiet: dict[str, Any]) -> None:
    job = {} if "://" in address else {"job_config": starting.InstalledJobConfig()}
    try:
        ray.init(address=address, runtime_env={"env_vars": variables()}, **job, **quiet)
    except AuthenticationError as error:
        raise ValueError(f"the Ray cluster at {address} wants another token; copy its own to {PLACES}") from error
    except ConnectionError as error:
        without = " (it wants a token? then set RAY_AUTH_MODE=token)" if not os.environ.get("RAY_AUTH_MODE") else ""
        raise ValueError(NOBODY.format(address=address) + without) from error
    except RuntimeError as error:  # another version of Ray or Python; a machine that is no node of it
        raise ValueError(f"the Ray at {address} cannot be joined: {plain(' '.join(str(error).split()))}") from error
    except OSError as error:  # of another user's Ray, whose files say where it is
        reason = f"{error.filename}: {error.strerror}" if error.filename else error
        raise ValueError(
            f"{address} finds no Ray that can be joined ({reason}); write its address, host:port"
        ) from error


def variables() -> dict[str, str]:
    """That workers on all nodes of a cluster that was joined are given: what this process has chosen."""
    ours = {name: os.environ.get(name, usual) for name, usual in ENVIRONMENT.items()} | server()
    return {name: value for name, value in ours.items() if name not in _of_job()}


def _joined(address: str) -> str:
    """What was joined, in words: `auto` takes whatever it finds."""
    nodes, there = [node for node in ray.nodes() if node["Alive"]], ray.cluster_resources()
    session = ""
    if not ray_internals.is_client():
        address = ray.get_runtime_context().gcs_address
        session = f", {ray_internals.session_name()}"
    return plain(
        f"joined the Ray at {address}{session}: {len(nodes)} node(s), {there.get('CPU', 0):g} CPU, "
        f"{there.get('GPU', 0):g} GPU"
    )


def _of_job() -> Container[str]:
    """Variables that this process's job was submitted with: all its workers have them, and Ray takes none twice."""
    config: dict[str, Any] = json.loads(os.environ.get(ray_internals.JOB_CONFIG_VARIABLE, "{}"))
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
