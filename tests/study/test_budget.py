"""Budgets: what counts as spent, what an earlier session spent, and when a front has stopped growing."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from arat_ray.experiment.spec import Experiment
from arat_ray.results import reader
from arat_ray.study.budget import Over, Watch
from arat_ray.study.recorder import Recorder
from tests.study.driving import opened
from tests.study.test_recorder import SAMPLED, message, open_study

Make = Callable[..., Experiment]
PRICE = {"price": {"usd_per_device_hour": 36.0}}
"""A cent a device-second."""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Time that passes only when told to."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def wait(seconds: float) -> None:
        now[0] += seconds

    return wait


def started(folder: Path, experiment: Experiment, number: int = 0) -> Recorder:
    recorder, _, _ = open_study(folder, experiment)
    recorder.start(number, SAMPLED, experiment.resolve(SAMPLED))
    return recorder


def watch(folder: Path, experiment: Experiment) -> Watch:
    return Watch(experiment, opened(folder, experiment).state)


def rows(folder: Path) -> list[dict[str, Any]]:
    return list(reader.read(folder, "trials").to_pylist())


@pytest.mark.parametrize(
    ("resources", "devices"),
    [
        ({"cpus_per_worker": 4}, 1),  # a worker on the CPU is one device, on however many cores
        ({"workers": 2}, 2),
        ({"gpus_per_worker": 0.5}, 0.5),
        ({"workers": 2, "gpus_per_worker": 1, "cpus_per_worker": 8}, 2),
        ({"gpus_per_worker": 4}, 4),
    ],
)
def test_device_time_and_cost_of_a_trial_are_those_of_its_devices(
    resources: dict[str, Any], devices: float, make: Make, tmp_path: Path, clock: Callable[[float], None]
) -> None:
    recorder = started(tmp_path, make(resources=resources | PRICE))
    clock(10)
    recorder.report(0, message(2))
    recorder.end(0)
    (row,) = rows(tmp_path)
    assert row["train_s"] == 10
    assert row["device_s"] == 10 * devices
    assert row["cost_usd"] == pytest.approx(0.1 * devices)


def test_without_a_price_the_cost_is_not_known(make: Make, tmp_path: Path) -> None:
    recorder = started(tmp_path, make())
    recorder.report(0, message(2))
    recorder.end(0)
    assert [row["cost_usd"] for row in rows(tmp_path)] == [None]


def test_every_attempt_has_its_own_time_and_waiting_for_a_worker_takes_none(
    make: Make, tmp_path: Path, clock: Callable[[float], None]
) -> None:
    experiment = make(resources=PRICE)
    recorder = started(tmp_path, experiment)
    clock(10)
    recorder.start(0, SAMPLED, experiment.resolve(SAMPLED))  # as Tune's callback says before it says that it is lost
    recorder.retry(0, "the node died")
    clock(100)
    recorder.tick()
    assert recorder.watch.device_s == 10, "while it waits"
    recorder.start(0, SAMPLED, experiment.resolve(SAMPLED))
    clock(5)
    recorder.report(0, message(2))
    recorder.end(0)
    assert [(row["attempt"], row["device_s"]) for row in rows(tmp_path)] == [(1, 10), (2, 5)]
    assert recorder.watch.device_s == 15
    assert recorder.watch.usd == pytest.approx(0.15)


def test_what_was_spent_before_an_interruption_counts_and_is_not_counted_twice(
    make: Make, tmp_path: Path, clock: Callable[[float], None]
) -> None:
    experiment = make(resources=PRICE)
    recorder = started(tmp_path, experiment)
    clock(10)
    recorder.report(0, message(1))
    recorder.close("interrupted")
    clock(100)
    resumed = started(tmp_path, experiment)
    assert resumed.watch.device_s == 10
    clock(5)
    resumed.tick()
    assert resumed.watch.device_s == 15
    assert resumed.watch.usd == pytest.approx(0.15)


def test_a_study_that_is_interrupted_while_a_trial_waits_for_a_worker_has_not_paid_for_it(
    make: Make, tmp_path: Path, clock: Callable[[float], None]
) -> None:
    experiment = make(resources=PRICE)
    recorder = started(tmp_path, experiment)
    clock(10)
    recorder.retry(0, "the node died")
    clock(100)
    recorder.close("interrupted")
    assert started(tmp_path, experiment).watch.device_s == 10


@pytest.mark.parametrize(("workers", "later"), [(1, 4), (4, 1)])
def test_other_resources_count_from_now_on(
    workers: int, later: int, make: Make, tmp_path: Path, clock: Callable[[float], None]
) -> None:
    recorder = started(tmp_path, make(resources={"workers": workers}))
    clock(10)
    recorder.close("interrupted")
    resumed = started(tmp_path, make(resources={"workers": later}))
    clock(5)
    resumed.tick()
    assert resumed.watch.device_s == 10 * workers + 5 * later
    resumed.close("interrupted")
    assert [(row["train_s"], row["device_s"]) for row in rows(tmp_path)] == [(15, 10 * workers + 5 * later)]


def test_a_new_price_counts_from_now_on(make: Make, tmp_path: Path, clock: Callable[[float], None]) -> None:
    recorder = started(tmp_path, make(resources=PRICE))
    clock(10)
    recorder.close("interrupted")
    dearer = started(tmp_path, make(resources={"price": {"usd_per_device_hour": 360.0}}))
    clock(10)
    dearer.tick()
    assert dearer.watch.usd == pytest.approx(0.1 + 1.0)


def test_time_without_a_price_is_priced_when_there_is_one(
    make: Make, tmp_path: Path, clock: Callable[[float], None]
) -> None:
    recorder = started(tmp_path, make())
    clock(10)
    recorder.close("interrupted")
    assert watch(tmp_path, make(resources=PRICE)).usd == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("budget", "reason"),
    [
        ({"hours": 0.01}, "0.01 hours are over"),
        ({"device_hours": 0.01}, "0.01 of 0.01 device-hours are spent"),
        ({"usd": 0.36}, "0.36 of 0.36 usd are spent"),
    ],
)
def test_a_budget_is_over_when_it_is_spent_and_not_before(
    budget: dict[str, Any], reason: str, make: Make, tmp_path: Path, clock: Callable[[float], None]
) -> None:
    recorder = started(tmp_path, make(budget=budget, resources=PRICE))
    clock(35)
    recorder.tick()
    assert recorder.watch.over() is None
    clock(1.01)
    recorder.tick()
    over = recorder.watch.over()
    assert over is not None
    assert (over.budget, over.reason) == (next(iter(budget)), reason)


def end(recorder: Recorder, experiment: Experiment, number: int, clean: float, robust: float) -> Over | None:
    recorder.start(number, SAMPLED, experiment.resolve(SAMPLED))
    recorder.report(number, message(2, clean=clean, robust=robust))
    recorder.end(number)
    return recorder.watch.over()


def test_a_study_stalls_when_its_front_has_not_grown_for_so_many_trials(make: Make, tmp_path: Path) -> None:
    experiment = make(budget={"stall": 2})
    recorder, _, _ = open_study(tmp_path, experiment)
    assert end(recorder, experiment, 0, 0.8, 0.4) is None
    assert end(recorder, experiment, 1, 0.7, 0.3) is None  # dominated: one
    assert end(recorder, experiment, 2, 0.9, 0.1) is None  # another end of the front: it grew
    assert end(recorder, experiment, 3, 0.8, 0.4) is None  # the same again: one
    recorder.start(4, SAMPLED, experiment.resolve(SAMPLED))
    recorder.report(4, {"failed": "NaN"})
    recorder.end(4)  # failed: two
    over = recorder.watch.over()
    assert over is not None
    assert (over.budget, over.reason) == ("stall", "the hypervolume of the front has not grown for 2 trials")
    assert watch(tmp_path, experiment).over() == over, "a resumed study knows it from its tables"
    assert watch(tmp_path, make(budget={"stall": 3})).over() is None


def test_an_interrupted_trial_has_not_ended(make: Make, tmp_path: Path) -> None:
    experiment = make(budget={"stall": 1})
    recorder, _, _ = open_study(tmp_path, experiment)
    assert end(recorder, experiment, 0, 0.8, 0.4) is None
    recorder.start(1, SAMPLED, experiment.resolve(SAMPLED))
    recorder.close("interrupted")
    assert recorder.watch.over() is None
    assert watch(tmp_path, experiment).over() is None


def run_one(recorder: Recorder, experiment: Experiment, number: int, error: str | None) -> None:
    recorder.start(number, SAMPLED, experiment.resolve(SAMPLED))
    if error is None:
        recorder.report(number, message(2))
    recorder.end(number, error)


@pytest.mark.parametrize(
    ("budget", "ends", "is_over"),
    [
        ({}, "fffff", True),
        ({}, "ffff", False),
        ({}, "ffffcffff", False),
        ({}, "cfffff", True),
        ({"max_failures": 2}, "fcff", True),
        ({"max_failures": None}, "ffffffff", False),
    ],
)
def test_failures_in_a_row_end_a_study_with_the_last_reason(
    budget: dict[str, Any], ends: str, is_over: bool, make: Make, tmp_path: Path
) -> None:
    experiment = make(budget={"trials": 100, **budget})
    recorder, _, _ = open_study(tmp_path, experiment)
    for number, end in enumerate(ends):
        run_one(recorder, experiment, number, f"the loss became nan ({number})" if end == "f" else None)
    over = recorder.watch.over()
    assert bool(over) == is_over
    if over:
        count, last = budget.get("max_failures", 5), len(ends) - 1
        reason = f"{count} trials in a row have failed, the last one with: the loss became nan ({last})"
        assert over == Over("max_failures", reason, "that mended, or a larger --max-failures")
    resumed, _, _ = open_study(tmp_path, experiment)
    assert resumed.watch.over() is None, "it counts anew"


def test_a_lost_worker_is_no_failure_of_its_trial(make: Make, tmp_path: Path) -> None:
    experiment = make(budget={"trials": 100, "max_failures": 1})
    recorder = started(tmp_path, experiment)
    recorder.retry(0, "its worker was lost")
    assert recorder.watch.over() is None
    recorder.interrupt(0, "interrupted")
    assert recorder.watch.over() is None
