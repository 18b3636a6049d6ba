"""Early stopping by expected gain: a trial goes on as long as its end is worth the epochs that are still to be trained.

The hypervolume that it is expected to add to the front, an epoch that is left, is compared with what the best new trial
promises, an epoch of all of its own. It stops where it is less than a share `slack` of that: below 1, because what it
has been trained so far is at hand, and a promise is not (the winner's curse).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from arat_ray.frontier.curves import Curves
from arat_ray.frontier.gain_decision import WHOLE, GainDecision


class GainJudge:
    """The decisions of one study, with the interface of `Halving`. `curves` is told of its trials by others as well."""

    def __init__(self, curves: Curves, rungs: Sequence[int], *, slack: float) -> None:
        self.curves, self.rungs, self.slack = curves, tuple(rungs), slack
        self._made: dict[tuple[int, int], GainDecision] = {}

    def recall(self, decisions: Iterable[GainDecision]) -> None:
        """Take up what was decided before, in the order in which it was."""
        for decision in decisions:
            self._made[decision.number, decision.rung] = decision

    def made(self, number: int, rung: int) -> GainDecision | None:
        """What was decided on a trial at a rung; each trial once."""
        return self._made.get((number, rung))

    def stopped(self, number: int) -> GainDecision | None:
        """The decision that stopped a trial, if one did."""
        there = (self._made[number, rung] for rung in self.rungs if (number, rung) in self._made)
        return next((decision for decision in there if not decision.goes_on), None)

    def __len__(self) -> int:
        return len(self._made)

    def decide(self, number: int, rung: int, goals: Sequence[float | None]) -> GainDecision:
        """Judge a trial that has reached a rung, with what others have measured before."""
        assert (number, rung) not in self._made
        values = tuple(math.nan if value is None else float(value) for value in goals)
        self.curves.measured(number, rung, values)
        decision = self._judge(number, rung, values)
        self._made[number, rung] = decision
        return decision

    def _judge(self, number: int, rung: int, values: tuple[float, ...]) -> GainDecision:
        curves = self.curves
        past = [n for n in curves.running if n != number and curves.reaches(n) > self.rungs[0]]
        of = len(curves.complete) + len(past)
        if of < WHOLE or not all(map(math.isfinite, values)):
            return GainDecision(number=number, rung=rung, goals=values, goes_on=True, of=of)
        mean, deviation = curves.expected(number)
        gain = curves.gain(number) / (curves.last - rung)
        new = curves.propose(without=number).gain / curves.last
        return GainDecision(
            number=number,
            rung=rung,
            goals=values,
            goes_on=gain >= self.slack * new,
            of=of,
            expected=tuple(mean.tolist()),
            deviation=tuple(deviation.tolist()),
            gain=gain,
            gain_of_new=new,
        )
