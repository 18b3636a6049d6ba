"""How many workers come together, with what room; and a trial that goes on with fewer after its node was lost."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from arat_ray.cluster.trials.elastic import could_grow, settle
from arat_ray.experiment.config import load as load_experiment
from arat_ray.experiment.spec import Resources
from tests.cluster.studies import EXPERIMENT, tune_command, wait_until
from tests.cluster.test_failures import assert_goes_on, rows

Write = Callable[..., Path]


class Cluster:
    """Room for so many workers, one number for each time that somebody asks for all."""

    def __init__(self, *rounds: int, most: int) -> None:
        self.rounds, self.most = list(rounds), most
        self.waited = 0.0

    def __call__(self, count: int, seconds: float) -> bool:
        if count == self.most and len(self.rounds) > 1 and self.waited:
            self.rounds.pop(0)
        there = count <= self.rounds[0]
        self.waited += 0 if there else seconds
        return there


@pytest.mark.parametrize(
    ("fewest", "batch_size", "room", "count"),
    [
        (None, 64, 0, 4),  # not elastic: Ray waits for all
        (1, 64, 8, 4),
        (1, 64, 4, 4),
        (1, 64, 3, 2),  # three workers would not get equal shares
        (1, 60, 3, 3),
        (2, 64, 2, 2),
        (1, 64, 1, 1),
    ],
)
def test_a_trial_gets_the_most_workers_that_share_its_batches(
    fewest: int | None, batch_size: int, room: int, count: int
) -> None:
    resources = Resources(workers=4, min_workers=fewest)
    assert settle(resources, batch_size, room=Cluster(room, most=4)) == count


def test_too_few_are_waited_for_until_there_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arat_ray.cluster.trials.elastic.LOOK_S", 0.0)
    cluster = Cluster(1, 1, 2, most=4)
    assert settle(Resources(workers=4, min_workers=2), 64, room=cluster) == 2
    assert 30 < cluster.waited < 60


def test_a_crew_grows_when_there_is_room_for_those_it_lacks() -> None:
    resources = Resources(workers=4, min_workers=1)
    assert could_grow(resources, 64, workers=2, room=Cluster(2, most=4))
    assert not could_grow(resources, 64, workers=2, room=Cluster(1, most=4))
    assert not could_grow(resources, 64, workers=4, room=Cluster(8, most=4))


@pytest.mark.parametrize(
    ("resources", "train", "message"),
    [
        ({"workers": 2, "min_workers": 3}, {}, "min_workers 3 is more than workers 2"),
        ({"workers": 2, "min_workers": 1}, {}, "set train.sync_batch_norm: true"),
        ({"workers": 2, "min_workers": 0}, {}, "resources.min_workers"),
    ],
)
def test_what_cannot_be_elastic_is_refused(
    write: Write, resources: dict[str, Any], train: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        load_experiment(write(resources=resources, train=EXPERIMENT["train"] | train))


CLUSTER = """
import sys
import ray
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "memory": 1024, "include_dashboard": False})
nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
print(cluster.address, flush=True)
sys.stdin.readline()
ray.init(cluster.address, log_to_driver=False)
groups = ray.util.placement_group_table().values()
actor, = [group for group in groups if group["state"] == "CREATED" and "memory" in group["bundles"][0]]
ray.shutdown()
node, = [node for node in nodes if node.node_id == actor["bundles_to_node_id"][0]]
cluster.remove_node(node, allow_graceful=False)
sys.stdin.read()
cluster.shutdown()
"""


@pytest.fixture
def host() -> Iterator[subprocess.Popen[str]]:
    """Two nodes of one CPU each; a line takes away the one with the trial's actor, which no dashboard tells of."""
    host = subprocess.Popen([sys.executable, "-c", CLUSTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    yield host
    host.communicate("\n", timeout=120)


@pytest.mark.ray
def test_a_trial_that_lost_one_of_two_nodes_goes_on_with_one_worker(write: Write, host: subprocess.Popen[str]) -> None:
    assert host.stdin is not None
    assert host.stdout is not None
    address = host.stdout.readline().strip()
    attack = EXPERIMENT["train"]["attack"] | {"steps": 5}
    train = EXPERIMENT["train"] | {"attack": attack, "epochs": 12, "sync_batch_norm": True}
    resources = {"workers": 2, "min_workers": 1, "price": {"usd_per_device_hour": 3600}}
    file = write(train=train, budget={"trials": 1}, resources=resources)
    driver = subprocess.Popen(
        tune_command(file, "--address", address), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: driver.poll() is not None or len(rows(file, "epochs")) >= 2, 240, "some epochs")
    host.stdin.write("lose\n")
    host.stdin.flush()
    stdout, stderr = driver.communicate(timeout=400)
    assert driver.returncode == 0, stdout + stderr
    assert_goes_on(file, "", epochs=12)
    two, one = sorted(rows(file, "trials"), key=lambda row: row["attempt"])
    assert two["device_s"] == pytest.approx(2 * two["train_s"])
    assert one["device_s"] == pytest.approx(one["train_s"])
