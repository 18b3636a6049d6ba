"""Jobs of an evaluation on Ray: any number of workers, and some that die."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import ray
import torch
from ray.cluster_utils import Cluster

from arat_ray.cluster.evaluate import spread
from arat_ray.evaluation import autoattack
from arat_ray.evaluation.autoattack import Attacker, Job, Runner, Verdicts
from tests.cluster.studies import ray_processes, wait_until
from tests.evaluation.nets import digits, nearest_mean, plan
from tests.evaluation.test_autoattack import assert_same, attacker

pytestmark = pytest.mark.ray
CPU = torch.device("cpu")


@pytest.fixture
def _cluster() -> Iterator[None]:
    ray.init(num_cpus=3, address="local", include_dashboard=False, object_store_memory=100 << 20, log_to_driver=False)
    yield
    ray.shutdown()


def struck(runner: Runner, *, after: int, strike: Callable[[], None]) -> Runner:
    """The runner, and a blow after so many jobs."""
    done = 0

    def run(attacker: Attacker, jobs: Sequence[Job]) -> Iterator[tuple[Job, Verdicts]]:
        nonlocal done
        for each in runner(attacker, jobs):
            yield each
            done += 1
            if done == after:
                strike()

    return run


def workers() -> list[int]:
    """Process ids of Ray's workers that run a job."""
    return [pid for pid in ray_processes() if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::_run")]


@pytest.mark.usefixtures("_cluster")
def test_one_two_and_three_workers_find_the_same_bits_as_none_also_when_one_is_killed() -> None:
    who = attacker(nearest_mean(), plan("autoattack", 0.06, steps=5), digits(30))
    alone = autoattack.run(who, batch_size=4)
    for number in (1, 2, 3):
        assert_same(autoattack.run(who, batch_size=4, runner=spread(number, device=CPU)), alone)
    with pytest.raises(ValueError, match="--workers 4: this cluster has 3 CPU; lower it"):
        spread(4, device=CPU)

    slow = attacker(nearest_mean(), plan("autoattack", 0.06, steps=150), digits(30))
    alone = autoattack.run(slow, batch_size=4)
    killed: list[int] = []

    def kill() -> None:
        wait_until(lambda: bool(workers()), 60, "a worker at its job")
        for pid in workers():
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    blow = threading.Thread(target=kill)  # beside the runner: between two jobs of its own there may be none
    runner = struck(spread(2, device=CPU), after=11, strike=blow.start)
    assert_same(autoattack.run(slow, batch_size=4, runner=runner), alone)
    blow.join()
    assert killed, "the blow met a worker at its job"


def test_a_node_that_is_lost_leaves_its_jobs_to_the_others() -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 100 << 20})
    try:
        node = cluster.add_node(num_cpus=2, object_store_memory=100 << 20)
        ray.init(address=cluster.address, log_to_driver=False)
        cluster.wait_for_nodes()
        who = attacker(nearest_mean(), plan("autoattack", 0.06, steps=60), digits(30))
        alone = autoattack.run(who, batch_size=4)

        def lose() -> None:
            cluster.remove_node(node, allow_graceful=False)

        assert_same(
            autoattack.run(who, batch_size=4, runner=struck(spread(3, device=CPU), after=10, strike=lose)), alone
        )
        assert node not in cluster.worker_nodes
    finally:
        ray.shutdown()
        cluster.shutdown()
