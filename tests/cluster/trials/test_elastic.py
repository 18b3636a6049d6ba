"""How many workers come together, with what room; and a trial that goes on with fewer after its node was lost."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from arat_ray.cluster.trials.elastic import could_grow, settle
from arat_ray.experiment.config import load as load_experiment
from arat_ray.experiment.spec import Resources
from tests.cluster import nodes
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


@pytest.mark.ray
def test_a_trial_that_lost_one_of_two_nodes_goes_on_with_one_worker(write: Write) -> None:
    """The one with the trial's actor, which no dashboard tells of."""
    attack = EXPERIMENT["train"]["attack"] | {"steps": 5}
    train = EXPERIMENT["train"] | {"attack": attack, "epochs": 12, "sync_batch_norm": True}
    resources = {"workers": 2, "min_workers": 1, "price": {"usd_per_device_hour": 3600}}
    file = write(train=train, budget={"trials": 1}, resources=resources)
    with nodes.started(0, 1, 1, memory=1024) as cluster:
        command = tune_command(file, "--address", cluster.address)
        driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        wait_until(lambda: driver.poll() is not None or len(rows(file, "epochs")) >= 2, 240, "some epochs")
        cluster.tell("lose the actor's")
        stdout, stderr = driver.communicate(timeout=400)
    assert driver.returncode == 0, stdout + stderr
    assert_goes_on(file, "", epochs=12)
    two, one = sorted(rows(file, "trials"), key=lambda row: row["attempt"])
    assert two["train_s"] >= sum(row["epoch_s"] for row in rows(file, "epochs") if row["attempt"] == 1) > 0
    assert two["device_s"] == pytest.approx(2 * two["train_s"])
    assert one["device_s"] == pytest.approx(one["train_s"])
