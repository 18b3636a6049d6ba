from __future__ import annotations

import math

import numpy as np
import pytest

from arat_ray.frontier.curves import Curves
from arat_ray.frontier.expected_gain import GainJudge
from tests.frontier.test_curves import SPACE, goals_of, searched

GOOD, POOR = {"balance": 0.5, "rate": 0.03}, {"balance": 0.5, "rate": 0.9}


def judge(trials: int = 10, slack: float = 0.4) -> GainJudge:
    return GainJudge(searched(trials), [1, 3], slack=slack)


def test_a_poor_trial_is_stopped_and_one_that_fills_a_gap_goes_on() -> None:
    for sampled, goes_on in ((GOOD, True), (POOR, False)):
        rule = judge(trials=6)
        rule.curves.begin(100, sampled)
        assert rule.decide(100, 3, goals_of(sampled, 3)).goes_on is goes_on
        assert (rule.stopped(100) is None) is goes_on


def test_none_is_stopped_before_some_are_complete() -> None:
    rule = judge(trials=2)
    rule.curves.begin(100, POOR)
    made = rule.decide(100, 1, goals_of(POOR, 1))
    assert made.goes_on
    assert made.why == "epoch 1, not judged: fewer than 3 trials are complete or past the first epoch"


@pytest.mark.parametrize("missing", [None, math.nan])
def test_a_trial_without_a_goal_goes_on_to_whatever_is_wrong_with_it(missing: float | None) -> None:
    rule = judge()
    rule.curves.begin(100, POOR)
    made = rule.decide(100, 1, [0.5, missing])
    assert made.goes_on
    assert made.why == "epoch 1, not judged: a goal is missing or no number"


def test_a_decision_says_what_was_expected_and_compared() -> None:
    rule = judge()
    rule.curves.begin(100, POOR)
    made = rule.decide(100, 3, goals_of(POOR, 3))
    assert made.gain is not None
    assert made.gain_of_new is not None
    assert made.gain < 0.4 * made.gain_of_new
    assert made.expected == pytest.approx(goals_of(POOR, 9), abs=0.05)
    assert made.why.startswith("epoch 3, expected at the end 0.")
    assert made.why.endswith(f"adds {made.gain:.1e} an epoch, a new trial {made.gain_of_new:.1e}")


def test_slack_decides_how_much_is_enough() -> None:
    made = []
    for slack in (0.0, 1e9):
        rule = judge(slack=slack)
        rule.curves.begin(100, GOOD)
        made.append(rule.decide(100, 1, goals_of(GOOD, 1)).goes_on)
    assert made == [True, False]


def test_decisions_that_are_recalled_are_made_no_more() -> None:
    rule, again = judge(), judge()
    rule.curves.begin(100, POOR)
    made = rule.decide(100, 3, goals_of(POOR, 3))
    again.recall([made])
    assert again.made(100, 3) == made
    assert again.stopped(100) == made
    assert len(again) == 1
    assert again.made(100, 1) is None


def test_a_judge_told_the_same_decides_the_same() -> None:
    draw = np.random.default_rng(0)
    one, other = judge(), judge()
    for number in range(100, 106):
        sampled = one.curves.space.sample(draw.random(2))
        for rule in (one, other):
            rule.curves.begin(number, sampled)
        one.curves.propose()
        assert one.decide(number, 1, goals_of(sampled, 1)) == other.decide(number, 1, goals_of(sampled, 1))


def test_a_trial_that_is_likely_to_violate_a_constraint_gains_less_and_is_stopped() -> None:
    goes_on, gains = [], []
    for bounded in (False, True):
        curves = Curves(SPACE, last=9, keep=[1, 3], reference=[0.0, 0.0])
        for number in range(12):
            sampled = {"balance": 0.5 * number / 12, "rate": 0.03}
            if number % 3 == 2:
                sampled["balance"] += 0.5
            curves.begin(number, sampled)
            for epoch in (1, 3, 9):
                curves.measured(number, epoch, goals_of(sampled, epoch))
            curves.ended(number, "complete", {"train_s": sampled["balance"] - 0.55} if bounded else {})
        rule = GainJudge(curves, [1, 3], slack=0.4)
        curves.begin(100, {"balance": 0.85, "rate": 0.03})
        made = rule.decide(100, 3, [each + 0.1 for each in goals_of({"balance": 0.85, "rate": 0.03}, 3)])
        assert made.gain is not None
        goes_on.append(made.goes_on)
        gains.append(made.gain)
    assert goes_on == [True, False]
    assert gains[1] < 0.1 * gains[0]
