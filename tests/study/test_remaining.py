"""How much longer a study takes, by a clock that the test turns."""

from __future__ import annotations

import time

import pytest

from arat_ray.study.remaining import Remaining


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    turned = Clock()
    monkeypatch.setattr(time, "monotonic", turned)
    return turned


def left(remaining: Remaining) -> float:
    seconds = remaining.seconds()
    assert seconds is not None
    return seconds


def test_nothing_is_promised_before_the_first_epoch_and_without_a_number_of_trials(clock: Clock) -> None:
    remaining, endless = Remaining(waiting=3, epochs=10), Remaining(waiting=None, epochs=10)
    for each in (remaining, endless):
        assert each.seconds() is None
        each.started(0)
        clock.now += 100
        assert each.seconds() is None
    remaining.reported(0, 1)
    endless.reported(0, 1)
    assert left(remaining) == pytest.approx(29 * 200)
    assert endless.seconds() is None


def test_a_running_trial_counts_with_the_epochs_that_it_has_left(clock: Clock) -> None:
    remaining = Remaining(waiting=2, epochs=10)
    remaining.started(0)
    for epoch in range(1, 11):
        clock.now += 5
        remaining.reported(0, epoch)
        assert left(remaining) == pytest.approx(5 * (20 - epoch))
    remaining.ended(0, 10, "complete")
    assert left(remaining) == pytest.approx(50)
    remaining.started(1)
    clock.now += 2.5
    remaining.reported(1, 0)
    assert left(remaining) == pytest.approx(47.5)


@pytest.mark.parametrize("places", [1, 2, 3])
def test_it_falls_with_the_clock_and_never_climbs_while_nothing_happens(places: int, clock: Clock) -> None:
    remaining = Remaining(waiting=7, epochs=4)
    for number in range(places):
        remaining.started(number)
    clock.now += 3
    remaining.reported(0, 1)
    before = left(remaining)
    for _ in range(200):
        clock.now += 1
        now = left(remaining)
        assert now == pytest.approx(max(before - 1, 0))
        before = now
    assert left(remaining) == 0


@pytest.mark.parametrize("places", [1, 2, 3, 5])
@pytest.mark.parametrize("trials", [1, 2, 5, 12])
def test_of_trials_that_take_equally_long_it_is_exact_from_the_first_epoch_on(
    places: int, trials: int, clock: Clock
) -> None:
    """Each place trains one trial after the other, an epoch in 10 s; simulated event by event."""
    epochs, rounds = 3, -(-trials // places)
    remaining = Remaining(waiting=trials, epochs=epochs)
    end = clock.now + 10 * epochs * rounds
    for begin in range(0, trials, places):
        numbers = range(begin, min(begin + places, trials))
        for number in numbers:
            remaining.started(number)
        for epoch in range(1, epochs + 1):
            clock.now += 10
            for number in numbers:
                remaining.reported(number, epoch)
                assert left(remaining) == pytest.approx(end - clock.now)
        for number in numbers:
            remaining.ended(number, epochs, "complete")
            assert left(remaining) == pytest.approx(end - clock.now)


def test_what_is_going_on_elsewhere_is_not_forgotten_when_another_trial_reports(clock: Clock) -> None:
    remaining = Remaining(waiting=2, epochs=2)
    remaining.started(0)
    remaining.started(1)
    clock.now += 10
    remaining.reported(0, 1)
    remaining.reported(1, 1)
    assert left(remaining) == pytest.approx(10)
    clock.now += 9
    remaining.reported(0, 2)
    assert left(remaining) < 2  # trial 1 is nearly through its second epoch as well


def test_trials_that_are_stopped_early_make_those_that_follow_shorter(clock: Clock) -> None:
    remaining = Remaining(waiting=12, epochs=100)
    for number in range(2):
        remaining.started(number)
        for epoch in range(1, 11):
            clock.now += 1
            remaining.reported(number, epoch)
        remaining.ended(number, 10, "pruned")
    assert left(remaining) == pytest.approx(10 * 10)


def test_failed_trials_are_no_measure_and_stopped_ones_are_still_to_come(clock: Clock) -> None:
    remaining = Remaining(waiting=4, epochs=10)
    remaining.started(0)
    clock.now += 100
    remaining.ended(0, 0, "failed")
    assert remaining.seconds() is None
    remaining.started(1)
    clock.now += 2
    remaining.reported(1, 1)
    remaining.ended(1, 1, "stopped")
    assert left(remaining) == pytest.approx(2 * 10 * 3)


def test_a_trial_that_goes_on_counts_from_where_it_was(clock: Clock) -> None:
    remaining = Remaining(waiting=1, epochs=10)
    remaining.started(0, 8)
    remaining.reported(0, 8)  # what it has trained before is reported again at once
    assert remaining.seconds() is None
    clock.now += 5
    remaining.reported(0, 9)
    assert left(remaining) == pytest.approx(5)


def test_ten_thousand_trials_on_a_thousand_places_are_no_work(clock: Clock) -> None:
    remaining = Remaining(waiting=1_000_000, epochs=10)
    for number in range(1000):
        remaining.started(number)
    clock.now += 1
    remaining.reported(0, 1)
    assert left(remaining) == pytest.approx(10 * 1000, rel=0.01)
