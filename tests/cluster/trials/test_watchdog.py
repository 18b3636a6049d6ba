"""When the watchdog kills, when it tells, and when it does neither; its clock is moved by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import ray

from arat_ray.cluster.trials import heartbeat, watchdog
from arat_ray.cluster.trials.heartbeat import Beat
from arat_ray.cluster.trials.watchdog import Watchdog
from arat_ray.experiment.spec import Resources

FULL = "its checkpoint cannot be written (No space left on device); training goes on without"


class Stage:
    """A watchdog among a clock, workers that beat or not, and what it says and kills."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **resources: Any) -> None:
        self.now, self.said, self.killed, self.made_room = 0.0, list[str](), list[int](), 0
        self.alive: dict[int, list[Beat]] = {}
        monkeypatch.setattr(heartbeat, "forget", lambda study, number: self.alive.pop(number, None))
        monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 4}}, {"Alive": False}])
        self.watchdog = Watchdog(
            "study",
            Resources.model_validate(resources),
            log=self.said.append,
            clock=lambda: self.now,
            read=lambda study, number: self.alive.get(number, []),
            kill=self._kill,
            make_room=self._make_room,
        )

    def _kill(self, workers: Iterable[Beat]) -> None:
        self.killed += [beat.pid for beat in workers]

    def _make_room(self) -> None:
        self.made_room += 1

    def beat(self, number: int, *, trouble: str | None = None, workers: int = 1) -> None:
        self.alive[number] = [Beat(int(self.now) + 1, "node", 100 * number + n, trouble) for n in range(workers)]

    def pass_by(self, seconds: float, *, pending: Iterable[int] = (), room: int = 0) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += min(5.0, end - self.now)
            self.watchdog.tick(lambda: list(pending), room=room)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Stage]:
    return lambda **resources: Stage(monkeypatch, **resources)


def test_a_trial_that_was_not_heard_of_for_ten_minutes_is_killed_and_told_of_once(
    stage: Callable[..., Stage],
) -> None:
    at = stage()
    at.watchdog.start(3)
    at.beat(3)
    at.pass_by(600)
    assert not at.killed
    at.pass_by(15)
    assert at.killed == [300]
    assert at.said == [
        "trial 3: nothing was heard of it for 10 min 5 s; its workers are killed, "
        "and it goes on from its last checkpoint"
    ]
    assert at.watchdog.end(3) == "stalled: nothing was heard of it for 10 min 5 s, so its workers were killed"
    at.watchdog.start(3)
    at.pass_by(500)
    assert at.watchdog.end(3) is None
    assert at.killed == [300]


def test_a_trial_that_is_heard_of_is_left_alone(stage: Callable[..., Stage]) -> None:
    at = stage()
    at.watchdog.start(0)
    for _ in range(100):
        at.beat(0)
        at.pass_by(60)
    assert not at.killed
    assert not at.said


def test_long_steps_make_it_patient(stage: Callable[..., Stage]) -> None:
    at = stage()
    at.watchdog.start(0)
    at.beat(0)
    at.pass_by(300)
    at.beat(0)
    at.pass_by(5)
    assert at.watchdog.limit_s == pytest.approx(3000, abs=60)
    at.pass_by(2900)
    assert not at.killed


def test_preparations_may_take_ten_minutes_whatever_the_file_says(stage: Callable[..., Stage]) -> None:
    at = stage(timeout_minutes=1)
    at.watchdog.start(0)
    at.alive[0] = [Beat(0, "node", 7, None)]
    at.pass_by(590)
    assert not at.killed
    at.pass_by(30)
    assert at.killed == [7]


def test_the_file_may_say_how_long(stage: Callable[..., Stage]) -> None:
    at = stage(timeout_minutes=2)
    at.watchdog.start(0)
    at.beat(0)
    at.pass_by(130)
    assert at.killed == [0]


def test_all_workers_of_a_trial_are_killed_and_one_that_is_heard_of_saves_them(stage: Callable[..., Stage]) -> None:
    at = stage(workers=2, timeout_minutes=10)
    at.watchdog.start(1)
    at.beat(1, workers=2)
    at.pass_by(590)
    at.alive[1] = [at.alive[1][0], Beat(99, "node", 101, None)]
    at.pass_by(590)
    assert not at.killed
    at.pass_by(30)
    assert at.killed == [100, 101]


def test_a_driver_that_was_away_itself_kills_nobody(stage: Callable[..., Stage]) -> None:
    at = stage()
    at.watchdog.start(0)
    at.beat(0)
    at.pass_by(60)
    at.now += 8 * 3600  # a closed laptop
    at.pass_by(5)
    at.beat(0)
    at.pass_by(60)
    assert not at.killed


def test_a_disk_that_fails_is_told_of_once_and_when_it_is_over(stage: Callable[..., Stage]) -> None:
    at = stage()
    at.watchdog.start(2)
    for trouble in (None, FULL, FULL, FULL, None):
        at.beat(2, trouble=trouble)
        at.pass_by(10)
    assert at.said == [f"trial 2: {FULL}", "trial 2: its checkpoint is written again"]


def test_a_trial_without_room_is_told_of_and_told_of_again_ever_more_seldom(stage: Callable[..., Stage]) -> None:
    at = stage(cpus_per_worker=8)
    at.watchdog.start(0)
    for _ in range(60):
        at.beat(0)
        at.pass_by(10, pending=[1], room=2)
    assert [line.partition(" for ")[0] for line in at.said] == [
        f"trial 1: waiting since {minutes} min 0 s" for minutes in (2, 4, 8)
    ]
    assert "for 1 worker(s) with 8 CPU and 0 GPU; the cluster" in at.said[0]
    assert at.said[0].endswith("the cluster has 1 node(s) (4 CPU, 0 GPU) and has lost 1")
    assert not at.killed


def test_while_a_trial_waits_for_room_what_others_left_behind_is_removed(stage: Callable[..., Stage]) -> None:
    at = stage()
    at.watchdog.start(0)
    at.beat(0)
    at.pass_by(30)
    assert at.made_room == 0
    at.pass_by(30, pending=[1], room=2)
    assert at.made_room == 6


def test_a_trial_that_waits_behind_others_is_not_told_of(stage: Callable[..., Stage]) -> None:
    at = stage()
    at.watchdog.start(0)
    for _ in range(60):
        at.beat(0)
        at.pass_by(10, pending=[1], room=1)
    assert not at.said


def test_several_workers_that_have_no_room_yet_are_waited_for(stage: Callable[..., Stage]) -> None:
    at = stage(workers=2)
    at.watchdog.start(0)
    at.pass_by(3600, room=1)
    assert not at.killed
    assert at.said[0].startswith("trial 0: waiting since 2 min 0 s for 2 worker(s)")
    assert watchdog.WAIT_S == 120
