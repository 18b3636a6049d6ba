"""Asynchronous successive halving for several goals, as decisions alone: who goes on at which epoch, and why.

At each rung, an epoch, a trial's goals are ranked among those of all trials that reached that rung so far, and it goes
on if it is among the best 1 / reduction_factor: ASHA's rule (https://arxiv.org/abs/1810.05934) without waiting for
others. With several goals the rank is that of non-dominated sorting (https://arxiv.org/abs/2106.12639): better fronts
first. Only a part of a front may fit into what goes on; its order is an epsilon-net: first the trial nearest to the
best of each goal, then always the one farthest from all before it, which covers the front within twice the smallest
possible radius wherever the line is drawn (Gonzalez 1985, https://doi.org/10.1016/0304-3975(85)90224-5). Crowding
distance (https://doi.org/10.1109/4235.996017) is no such order: it drops both of two neighbours where one would do,
and keeps the extremes first, a trial without any robustness among them.

The decisions are a function of the goals and of the order in which they came; no clock, no random number.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from arat_ray.frontier.dominance import Floats, non_dominated

NAMED_AT_MOST = 5
"""Trials that a reason names before it counts the others."""
DIGITS = 12
"""Distances that differ behind this digit are equal: rounding must not decide what trial numbers should."""


class Standing(NamedTuple):
    """Trials at a rung in their order, best first: index [N] into what was given, and the front of each, from 1."""

    order: list[int]
    front: list[int]


def sort(points: npt.ArrayLike) -> Standing:
    """Non-dominated sorting of points [N, G], all goals maximised; ties go to the earlier point."""
    points = np.asarray(points, dtype=np.float64)
    left, order, front = np.arange(len(points)), list[int](), list[int]()
    while left.size:
        mask = non_dominated(points[left])
        assert mask.any(), "a point with a NaN cannot be ranked"
        members = left[mask]
        order += members[_spread(points[members])].tolist()
        front += [front[-1] + 1 if front else 1] * len(members)
        left = left[~mask]
    return Standing(order, front)


def _spread(points: Floats) -> list[int]:
    """The epsilon-net of a front [N, G], each goal scaled to the front's range."""
    low, high = points.min(axis=0), points.max(axis=0)
    scaled = (points - low) / np.where(high > low, high - low, 1.0)
    order = [int(np.argmin(_squared(scaled, np.ones(points.shape[1]))))]
    nearest = _squared(scaled, scaled[order[0]])
    while len(order) < len(points):
        nearest[order[-1]] = -1.0
        order.append(int(np.argmax(nearest)))
        nearest = np.minimum(nearest, _squared(scaled, scaled[order[-1]]))
    return order


def _squared(points: Floats, point: Floats) -> Floats:
    return np.asarray(((points - point) ** 2).sum(axis=1).round(DIGITS))


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What was decided on one trial at one rung, and why.

    `rank` and `front` count from 1 and are None where a goal is missing or no number: such a trial is not ranked and
    goes on to whatever is wrong with it. `of` trials were ranked, this one among them, and the first `keep` go on.
    `beaten_by` dominate it; `behind` lie on the same front and come first by spread.
    """

    number: int
    rung: int
    goals: tuple[float, ...]
    goes_on: bool
    rank: int | None
    of: int
    keep: int
    front: int | None
    beaten_by: tuple[int, ...] = ()
    behind: tuple[int, ...] = ()

    @property
    def why(self) -> str:
        """`rung 10, rank 7 of 9, front 3; beaten by trials 2, 5`."""
        if self.rank is None:
            return f"rung {self.rung}, not ranked: a goal is missing or no number"
        where = f"rung {self.rung}, rank {self.rank} of {self.of}, front {self.front}"
        if self.beaten_by:
            return f"{where}; beaten by {named(self.beaten_by)}"
        if self.behind and not self.goes_on:
            return f"{where}; not beaten, but {named(self.behind)} spread the front better"
        return where


class Halving:
    """The rungs of one study and who reached them."""

    def __init__(self, rungs: Sequence[int], *, reduction_factor: int) -> None:
        self.rungs, self.reduction_factor = tuple(rungs), reduction_factor
        self._made: dict[int, dict[int, Decision]] = {rung: {} for rung in rungs}

    def recall(self, decisions: Iterable[Decision]) -> None:
        """Take up what was decided before, in the order in which it was."""
        for decision in decisions:
            self._made[decision.rung][decision.number] = decision

    def made(self, number: int, rung: int) -> Decision | None:
        """What was decided on a trial at a rung; each trial once."""
        return self._made[rung].get(number)

    def stopped(self, number: int) -> Decision | None:
        """The decision that stopped a trial, if one did."""
        there = (made[number] for made in self._made.values() if number in made)
        return next((decision for decision in there if not decision.goes_on), None)

    def __len__(self) -> int:
        return sum(map(len, self._made.values()))

    def decide(self, number: int, rung: int, goals: Sequence[float | None]) -> Decision:
        """Judge a trial that has reached a rung, with what others reached it before."""
        values = tuple(math.nan if value is None else float(value) for value in goals)
        assert number not in self._made[rung]
        before = [decision for decision in self._made[rung].values() if decision.rank is not None]
        decision = decision_on(number, rung, values, before, reduction_factor=self.reduction_factor)
        self._made[rung][number] = decision
        return decision


def decision_on(
    number: int, rung: int, goals: tuple[float, ...], before: Sequence[Decision], *, reduction_factor: int
) -> Decision:
    """The rule. The best at a rung always goes on, also where it is one of fewer than `reduction_factor`."""
    if not all(map(math.isfinite, goals)):
        keep = kept(len(before), reduction_factor)
        return Decision(
            number=number, rung=rung, goals=goals, goes_on=True, rank=None, of=len(before), keep=keep, front=None
        )
    known = {decision.number: decision.goals for decision in before} | {number: goals}
    numbers = sorted(known)
    points = np.array([known[each] for each in numbers])
    order, fronts = sort(points)
    position = order.index(numbers.index(number))
    keep = kept(len(numbers), reduction_factor)
    own = np.array(goals)
    better = (points >= own).all(axis=1) & (points > own).any(axis=1)
    return Decision(
        number=number,
        rung=rung,
        goals=goals,
        goes_on=position < keep,
        rank=position + 1,
        of=len(numbers),
        keep=keep,
        front=fronts[position],
        beaten_by=tuple(numbers[i] for i in np.flatnonzero(better)),
        behind=tuple(
            sorted(numbers[i] for i, front in zip(order[:position], fronts, strict=False) if front == fronts[position])
        ),
    )


def kept(trials: int, reduction_factor: int) -> int:
    """How many of so many trials at a rung go on."""
    return max(1, trials // reduction_factor)


def named(numbers: Sequence[int]) -> str:
    """`trials 2, 5`, the first few of many."""
    shown = ", ".join(map(str, numbers[:NAMED_AT_MOST]))
    more = len(numbers) - NAMED_AT_MOST
    return f"trial{'s' if len(numbers) > 1 else ''} {shown}{f' and {more} more' if more > 0 else ''}"
