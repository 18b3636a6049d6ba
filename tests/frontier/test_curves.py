from __future__ import annotations

import time

import numpy as np
import pytest

from arat_ray.frontier.curve_model import NEW, fitted_at
from arat_ray.frontier.curves import Curves
from arat_ray.frontier.expected_gain import GainJudge
from arat_ray.frontier.knobs import Knob, Space
from arat_ray.frontier.links import no_noise, of_counts
from arat_ray.frontier.outlook import feasible

SPACE = Space([Knob(name="balance", low=0.0, high=1.0), Knob(name="rate", low=1e-3, high=1.0, log=True)])


def goals_of(sampled: dict[str, float], epoch: int, goals: int = 2) -> list[float]:
    """A trade-off along the balance; a rate of 0.03 is best, and what is missed at epoch 1 is half."""
    lost = 0.1 * abs(np.log10(sampled["rate"]) + 1.5)
    front = [0.9 - 0.4 * sampled["balance"] ** 2, 0.3 + 0.4 * sampled["balance"], 0.5][:goals]
    return [(each - lost) * (1 - 0.5 / epoch) for each in front]


def searched(trials: int, *, last: int = 9, goals: int = 2, running: int = 0, images: int = 0) -> Curves:
    """After so many whole random trials, and some that have come to epoch 3."""
    noise = of_counts(images) if images else no_noise
    curves = Curves(SPACE, last=last, keep=[1, 3], reference=[0.0] * goals, noise=noise)
    draw = np.random.default_rng(0)
    for number in range(trials + running):
        sampled = SPACE.sample(draw.random(2))
        curves.begin(number, sampled)
        for epoch in (1, 3, last) if number < trials else (1, 3):
            curves.measured(number, epoch, goals_of(sampled, epoch, goals))
        if number < trials:
            curves.ended(number, "complete")
    return curves


@pytest.mark.parametrize("goals", [1, 2, 3])
def test_what_is_proposed_lies_where_the_front_is_and_promises_something(goals: int) -> None:
    proposal = searched(12, goals=goals).propose()
    assert 0.008 < proposal.sampled["rate"] < 0.12
    assert proposal.gain > 0


def test_the_same_told_in_the_same_order_proposes_the_same_and_asking_changes_nothing() -> None:
    once, again = searched(9, running=2), searched(9, running=2)
    once.outlook(), once.gain(9), once.propose(without=9)
    assert once.propose() == again.propose()
    assert once.gain(10) == again.gain(10)


def test_hyperparameters_are_fitted_at_fixed_numbers_of_rows_whenever_one_asks() -> None:
    asked_often, asked_once = searched(0), searched(0)
    for curves in (asked_often, asked_once):
        draw = np.random.default_rng(1)
        for number in range(11):
            sampled = SPACE.sample(draw.random(2))
            curves.begin(number, sampled)
            for epoch in (1, 3, 9):
                curves.measured(number, epoch, goals_of(sampled, epoch))
                if curves is asked_often:
                    curves.propose()
            curves.ended(number, "complete")
    assert asked_often.propose() == asked_once.propose()
    assert [fitted_at(rows) for rows in (0, 7, 8, 9, 10, 11, 12)] == [0, 0, 8, 8, 10, 10, 12]


def test_a_running_trial_is_believed_so_that_nobody_proposes_beside_it() -> None:
    curves = searched(10)
    first = curves.propose()
    curves.begin(10, first.sampled)
    second = curves.propose()
    assert second.gain < first.gain
    assert second.sampled != first.sampled


def test_a_trial_s_gain_falls_when_its_curve_disappoints() -> None:
    hopeful, poor = searched(10), searched(10)
    sampled = {"balance": 0.5, "rate": 0.03}
    for curves, share in ((hopeful, 1.0), (poor, 0.7)):
        curves.begin(50, sampled)
        curves.measured(50, 1, [share * each for each in goals_of(sampled, 1)])
        curves.measured(50, 3, [share * each for each in goals_of(sampled, 3)])
    assert poor.gain(50) < hopeful.gain(50)
    assert (poor.expected(50)[0] < hopeful.expected(50)[0]).all()


def test_a_goal_that_is_no_number_and_a_measurement_twice_say_nothing() -> None:
    curves, same = searched(8), searched(8)
    for each in (curves, same):
        each.begin(8, {"balance": 0.3, "rate": 0.03})
    curves.measured(8, 1, [np.nan, 0.4])
    curves.measured(7, 1, [0.0, 0.0])
    curves.measured(99, 1, [0.9, 0.9])
    assert len(curves) == len(same) == 24
    assert curves.propose() == same.propose()


def test_a_trial_that_failed_is_no_rival_and_one_that_was_stopped_teaches() -> None:
    curves = searched(8, running=1)
    curves.ended(8, "stopped")
    assert list(curves.running) == []
    assert 8 not in curves.complete
    assert (8, 3) in curves._places()


def test_a_place_that_violates_a_constraint_is_avoided() -> None:
    curves = Curves(SPACE, reference=[0.0, 0.0])
    draw = np.random.default_rng(3)
    for number in range(16):
        sampled = SPACE.sample(draw.random(2))
        curves.begin(number, sampled)
        curves.measured(number, 1, goals_of(sampled, 9))
        curves.ended(number, "complete", {"train_s": sampled["balance"] - 0.5})
    proposed = [curves.propose().sampled["balance"]]
    for number in range(16, 20):
        sampled = curves.propose().sampled
        curves.begin(number, sampled)
        proposed.append(sampled["balance"])
    assert max(proposed) < 0.6


@pytest.mark.parametrize("violation", [0.2, 1000.0])
def test_a_constraint_that_few_trials_violate_is_known(violation: float) -> None:
    """The wide network is better, and too large; of sixteen trials three have tried it."""
    curves = Curves(Space([Knob(name="width", choices=("small", "wide")), Knob(name="x")]), reference=[0.0])
    draw = np.random.default_rng(0)
    for number in range(16):
        wide = number % 5 == 4
        curves.begin(number, {"width": "wide" if wide else "small", "x": float(draw.random())})
        curves.measured(number, 1, [0.9 if wide else 0.5 + 0.01 * number])
        violations = {"memory.max": violation if wide else -0.88 - 0.02 * float(draw.random())}
        curves.ended(number, "complete", violations)
    outlook, new = curves.outlook(), np.full(2, NEW)
    x = curves.space.encode([{"width": "small", "x": 0.5}, {"width": "wide", "x": 0.5}])
    small, wide = feasible(outlook.limits, x, new)
    assert small > 0.9
    assert wide < 0.1
    assert curves.propose().sampled["width"] == "small"


def test_one_trial_that_barely_meets_a_constraint_does_not_hide_which_way_others_go() -> None:
    curves = Curves(Space([Knob(name="x"), Knob(name="y"), Knob(name="z")]), reference=[0.0])
    draw = np.random.default_rng(0)
    points = draw.random((400, 3))
    violated = points[points.mean(axis=1) < 0.55][:20]
    violated[7] += 0.6005 - violated[7].mean()
    for number, point in enumerate(violated.tolist()):
        curves.begin(number, dict(zip("xyz", point, strict=True)))
        curves.measured(number, 1, [0.5])
        curves.ended(number, "complete", {"clean_accuracy.min": 0.6 - float(np.mean(point))})
    there = points[points.mean(axis=1) > 0.7]
    assert feasible(curves.outlook().limits, there, np.full(len(there), NEW)).mean() > 0.7


def test_one_failure_among_many_is_none_of_the_successes() -> None:
    curves = Curves(Space([Knob(name="kind", choices=("plain", "breaks")), Knob(name="x")]), reference=[0.0])
    for number in range(60):
        kind = "breaks" if number == 30 else "plain"
        curves.begin(number, {"kind": kind, "x": number / 60})
        if kind == "plain":
            curves.measured(number, 1, [0.5])
        curves.ended(number, "failed" if kind == "breaks" else "complete")
    x = curves.space.encode([{"kind": "plain", "x": 0.5}, {"kind": "breaks", "x": 0.5}])
    plain, breaks = feasible(curves.outlook().limits, x, np.full(2, NEW))
    assert plain > 0.9
    assert breaks < 0.3


def test_where_trials_fail_is_avoided_though_nothing_was_measured_there() -> None:
    """The best goals lie at a balance of 0.8, where none comes to its end."""
    curves = Curves(SPACE, reference=[0.0])
    draw = np.random.default_rng(3)
    for number in range(16):
        sampled = SPACE.sample(draw.random(2))
        curves.begin(number, sampled)
        if sampled["balance"] > 0.6:
            curves.ended(number, "failed")
        else:
            curves.measured(number, 1, [sampled["balance"]])
            curves.ended(number, "complete")
    assert 0.45 < curves.propose().sampled["balance"] < 0.75


def test_a_sample_is_proposed_twice_only_where_all_are_taken() -> None:
    curves = Curves(Space([Knob(name="kind", choices=("a", "b", "c"))]), reference=[0.0])
    for number, kind in enumerate("ab"):
        curves.begin(number, {"kind": kind})
        curves.measured(number, 1, [0.5 + 0.1 * number])
        curves.ended(number, "complete")
    assert curves.propose().sampled == {"kind": "c"}
    curves.begin(2, {"kind": "c"})
    assert curves.propose().sampled["kind"] in "abc"


def test_without_a_reference_the_worst_of_the_front_is_just_above_it() -> None:
    curves = Curves(SPACE)
    for number, goals in enumerate([[-5.0, 100.0], [-3.0, 50.0], [-900.0, 10.0]]):
        curves.begin(number, {"balance": 0.1 + number / 4, "rate": 0.1})
        curves.measured(number, 1, goals)
        curves.ended(number, "complete")
    np.testing.assert_allclose(curves.reference(), [-5.2, 45.0])
    assert curves.propose().gain > 0


def test_without_a_reference_one_trial_and_curves_alone_have_one() -> None:
    curves = Curves(SPACE, last=9, keep=[1])
    curves.begin(0, {"balance": 0.1, "rate": 0.1})
    curves.measured(0, 1, [2.0, 3.0])
    np.testing.assert_allclose(curves.reference(), [1.9, 2.9])
    assert curves.propose().gain > 0


def test_counts_know_their_noise() -> None:
    np.testing.assert_allclose(of_counts(400)(np.array([0.5, 0.0])), [0.25 / 400, (1 / 402) * (401 / 402) / 400])


def test_a_thousand_trials_are_proposed_from_and_judged_in_time() -> None:
    curves = searched(250, running=750, images=1000)
    for number in range(250, 997):
        curves.ended(number, "stopped")
    curves.propose()  # fits the hyperparameters
    assert len(curves._places()) == 400
    curves.begin(2000, {"balance": 0.4, "rate": 0.02})
    began = time.process_time()
    curves.propose()
    proposed = time.process_time()
    GainJudge(curves, [1, 3], slack=0.4).decide(2000, 1, [0.5, 0.3])
    decided = time.process_time()
    assert proposed - began < 0.5
    assert decided - proposed < 0.8
