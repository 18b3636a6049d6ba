"""Successive halving against a slow implementation that reads as the definition: exact fractions, no numpy."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import cache

import numpy as np
import pytest

from arat_ray.frontier.halving import Decision, Halving, kept, named, sort

Point = tuple[Fraction, ...]


def beats(a: Point, b: Point) -> bool:
    return all(x >= y for x, y in zip(a, b, strict=True)) and a != b


@cache
def front_of(point: Point, points: tuple[Point, ...]) -> int:
    """One more than the worst front among those that beat it: the longest chain above it."""
    return 1 + max((front_of(other, points) for other in points if beats(other, point)), default=0)


def distance(a: Point, b: Point, members: Sequence[Point]) -> Fraction:
    """Squared, each goal in units of its range on the front."""
    total = Fraction(0)
    for goal, (x, y) in enumerate(zip(a, b, strict=True)):
        values = [member[goal] for member in members]
        total += ((x - y) / ((max(values) - min(values)) or 1)) ** 2
    return total


def in_order(points: dict[int, Point]) -> list[int]:
    """Trial numbers, best first, as the definition says it."""
    order: list[int] = []
    for front in itertools.count(1):
        left = sorted(number for number in points if front_of(points[number], tuple(points.values())) == front)
        if not left:
            return order
        members = [points[number] for number in left]
        ideal = tuple(max(member[goal] for member in members) for goal in range(len(members[0])))
        chosen = [min(left, key=lambda number: (distance(points[number], ideal, members), number))]
        while len(chosen) < len(left):
            gaps = {
                number: min(distance(points[number], points[other], members) for other in chosen)
                for number in left
                if number not in chosen
            }
            chosen.append(min(gaps, key=lambda number: (-gaps[number], number)))
        order += chosen
    raise AssertionError


def draw(seed: int, *, trials: int, goals: int, levels: int) -> dict[int, Point]:
    """Trials with goals on a coarse grid, so that ties and equal points are common."""
    chance = random.Random(seed)
    numbers = chance.sample(range(100), trials)
    return {number: tuple(Fraction(chance.randrange(levels), levels) for _ in range(goals)) for number in numbers}


def judged(points: Mapping[int, Point], *, reduction_factor: int, rung: int = 10) -> list[Decision]:
    halving = Halving([rung], reduction_factor=reduction_factor)
    return [halving.decide(number, rung, [float(goal) for goal in point]) for number, point in points.items()]


@pytest.mark.parametrize("goals", [1, 2, 3, 4])
@pytest.mark.parametrize("levels", [2, 5, 60])
@pytest.mark.parametrize("reduction_factor", [2, 3, 4])
@pytest.mark.parametrize("seed", range(3))
def test_decisions_are_what_the_definition_says(goals: int, levels: int, reduction_factor: int, seed: int) -> None:
    points = draw(seed, trials=14, goals=goals, levels=levels)
    there: dict[int, Point] = {}
    for decision in judged(points, reduction_factor=reduction_factor):
        number = decision.number
        there[number] = points[number]
        order = in_order(there)
        rank = order.index(number) + 1
        assert (decision.rank, decision.of) == (rank, len(there))
        assert decision.front == front_of(points[number], tuple(there.values()))
        assert decision.goes_on == (rank <= max(1, len(there) // reduction_factor))
        assert decision.beaten_by == tuple(sorted(other for other in there if beats(there[other], points[number])))
        same = [n for n in order[: rank - 1] if front_of(there[n], tuple(there.values())) == decision.front]
        assert decision.behind == tuple(sorted(same))


def test_four_trials_by_hand() -> None:
    halving = Halving([10], reduction_factor=2)
    goals = {0: (0.8, 0.4), 1: (0.9, 0.5), 2: (0.7, 0.6), 3: (0.6, 0.3)}
    decisions = [halving.decide(number, 10, values) for number, values in goals.items()]
    assert [each.goes_on for each in decisions] == [True, True, False, False]
    assert [(each.rank, each.of, each.front) for each in decisions] == [(1, 1, 1), (1, 2, 1), (2, 3, 1), (4, 4, 3)]
    assert decisions[2].why == "rung 10, rank 2 of 3, front 1; not beaten, but trial 1 spread the front better"
    assert decisions[3].why == "rung 10, rank 4 of 4, front 3; beaten by trials 0, 1, 2"


def test_within_a_front_the_balanced_trial_comes_first_and_then_the_ends() -> None:
    line = [(0.0, 1.0), (0.1, 0.95), (0.7, 0.7), (0.95, 0.1), (1.0, 0.0)]
    order, front = sort(line)
    assert front == [1] * 5
    assert order[0] == 2
    assert set(order[1:3]) == {0, 4}


@pytest.mark.parametrize("goals", [2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_wherever_a_front_is_cut_what_is_left_covers_it_within_twice_the_best_radius(goals: int, seed: int) -> None:
    normal = np.abs(np.random.default_rng(seed).normal(size=(8, goals)))
    points = normal / np.linalg.norm(normal, axis=1, keepdims=True)  # on a sphere: one front
    scaled = (points - points.min(axis=0)) / (points.max(axis=0) - points.min(axis=0))
    between = np.linalg.norm(scaled[:, None] - scaled[None], axis=-1)
    order, front = sort(points)
    assert set(front) == {1}
    for size in range(1, 8):
        best = min(between[list(chosen)].min(axis=0).max() for chosen in itertools.combinations(range(8), size))
        assert between[order[:size]].min(axis=0).max() <= 2 * best + 1e-9


@pytest.mark.parametrize("seed", range(5))
def test_a_decision_depends_on_who_was_there_and_not_on_the_order_they_came_in(seed: int) -> None:
    points = draw(seed, trials=15, goals=2, levels=6)
    last = list(points)[-1]
    decisions = set()
    for shuffle in range(5):
        others = [number for number in points if number != last]
        random.Random(shuffle).shuffle(others)
        decisions.add(judged({number: points[number] for number in [*others, last]}, reduction_factor=3)[-1])
    assert len(decisions) == 1


@pytest.mark.parametrize("scale", [(1000.0, 0.001), (1.0, 1e-6)])
def test_units_of_a_goal_do_not_matter(scale: tuple[float, float]) -> None:
    points = np.random.default_rng(0).random((40, 2))
    assert sort(points * np.array(scale)) == sort(points)


def test_of_equal_trials_the_lower_number_comes_first() -> None:
    assert judged({7: (Fraction(1, 2),) * 2, 3: (Fraction(1, 2),) * 2}, reduction_factor=2)[1].rank == 1
    assert judged({3: (Fraction(1, 2),) * 2, 7: (Fraction(1, 2),) * 2}, reduction_factor=2)[1].rank == 2


def test_who_beats_all_others_always_goes_on() -> None:
    for reduction_factor in (2, 3, 10):
        rising = {number: (Fraction(number, 50), Fraction(number, 60)) for number in range(20)}
        assert all(decision.goes_on for decision in judged(rising, reduction_factor=reduction_factor))


@pytest.mark.parametrize("reduction_factor", [2, 3, 4])
def test_in_any_order_about_one_in_reduction_factor_goes_on(reduction_factor: int) -> None:
    points = draw(1, trials=100, goals=2, levels=1000)
    went_on = sum(decision.goes_on for decision in judged(points, reduction_factor=reduction_factor))
    assert went_on == pytest.approx(100 / reduction_factor, abs=10)
    assert kept(2, 3) == kept(5, 3) == 1
    assert kept(6, 3) == 2


@pytest.mark.parametrize("bad", [math.nan, math.inf, None])
def test_a_trial_without_a_goal_goes_on_and_is_never_ranked(bad: float | None) -> None:
    halving = Halving([5], reduction_factor=2)
    halving.decide(0, 5, [0.5, 0.5])
    decision = halving.decide(1, 5, [0.9, bad])
    assert decision.goes_on
    assert (decision.rank, decision.front, decision.of) == (None, None, 1)
    assert "not ranked" in decision.why
    assert halving.decide(2, 5, [0.4, 0.4]).of == 2


@pytest.mark.parametrize("after", range(0, 36, 5))
def test_decisions_recalled_after_any_of_them_go_on_as_if_nothing_had_happened(after: int) -> None:
    chance = random.Random(0)
    reports = [(number, rung) for rung in (2, 6, 18) for number in range(12)]
    reports.sort(key=lambda report: (report[0] % 5, report))
    goals = {report: [chance.random(), chance.random()] for report in reports}

    def run(halving: Halving, reports: Sequence[tuple[int, int]]) -> list[Decision]:
        return [halving.decide(number, rung, goals[number, rung]) for number, rung in reports]

    whole = run(Halving([2, 6, 18], reduction_factor=3), reports)
    resumed = Halving([2, 6, 18], reduction_factor=3)
    resumed.recall(whole[:after])
    assert len(resumed) == after
    assert run(resumed, reports[after:]) == whole[after:]
    stopped = {decision.number for decision in whole if not decision.goes_on}
    for number in range(12):
        found = resumed.stopped(number)
        assert (found is not None) == (number in stopped)


def test_a_reason_names_a_few_trials_and_counts_the_others() -> None:
    assert named([2]) == "trial 2"
    assert named([2, 5]) == "trials 2, 5"
    assert named(range(9)) == "trials 0, 1, 2, 3, 4 and 4 more"
