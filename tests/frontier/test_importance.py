"""How much knobs move goals and front: found back where it is known, and doubted where the rows do not say it."""

from __future__ import annotations

import numpy as np
import pytest

from arat_ray.frontier.curves import Curves
from arat_ray.frontier.importance import Effect, importance
from arat_ray.frontier.knobs import Knob, Sampled, Space

SPACE = Space(
    [
        Knob(name="slope", low=0.0, high=1.0),
        Knob(name="idle", low=1e-3, high=1.0, log=True),
        Knob(name="layers", choices=("a", "b", "ab", "none")),
        Knob(name="of_b", low=0.0, high=1.0),
    ],
    lambda name, sampled: name != "of_b" or sampled["layers"] == "b",
)
SETS = {"layers": {"a": frozenset("a"), "b": frozenset("b"), "ab": frozenset("ab"), "none": frozenset()}}


def goals_of(sampled: Sampled) -> list[float]:
    """The slope costs 0.2 of the first goal and adds 0.1 to the second, layer a adds 0.05 to both, the rest nothing
    but `of_b`, which adds 0.08 to the first where it applies."""
    has_a = 0.05 * ("a" in sampled["layers"])
    first = 0.7 - 0.2 * sampled["slope"] + has_a + 0.08 * sampled.get("of_b", 0.0)
    return [first, 0.3 + 0.1 * sampled["slope"] + has_a]


@pytest.fixture(scope="module")
def known() -> Curves:
    curves = Curves(SPACE, reference=[0.0, 0.0], floor=False)
    draw = np.random.default_rng(0)
    for number in range(60):
        sampled = SPACE.sample(draw.random(4))
        curves.begin(number, sampled)
        curves.measured(number, 1, [goal + draw.normal(0, 0.004) for goal in goals_of(sampled)])
        curves.ended(number, "complete")
    return curves


def holds(effect: Effect, value: float) -> bool:
    return effect.low - 0.01 <= value <= effect.high + 0.01 and abs(effect.effect - value) < 0.02


def test_what_is_known_is_found_back_within_narrow_intervals(known: Curves) -> None:
    by_knob = {each.knob: each for each in importance(known)}
    first, second = by_knob["slope"].goals
    assert (first.best, first.worst, second.best, second.worst) == (0.0, 1.0, 1.0, 0.0)
    assert holds(first.by, 0.2)
    assert holds(second.by, 0.1)
    assert first.by.high - first.by.low < 0.03
    assert by_knob["slope"].front.by.low > 0
    for moved in by_knob["idle"].goals:
        assert abs(moved.by.effect) < 0.01
        assert moved.by.low < 0.002


def test_a_knob_that_only_some_trials_have_is_judged_where_it_applies(known: Curves) -> None:
    (of_b,) = [each for each in importance(known) if each.knob == "of_b"]
    assert of_b.goals[0].best == 1.0
    assert abs(of_b.goals[0].by.effect - 0.08) < 0.04


def test_of_sets_of_layers_each_one_s_inclusion_is_told(known: Curves) -> None:
    (layers,) = [each for each in importance(known, sets=SETS) if each.knob == "layers"]
    assert sorted(layers.members) == ["a", "b"]
    assert all(effect.low > 0 for effect in layers.members["a"])
    assert holds(layers.members["a"][1], 0.05)
    assert layers.members["b"][1].low < 0 < layers.members["b"][1].high
    assert not importance(known)[0].members


def test_the_knob_that_moves_the_front_most_comes_first_and_asking_again_says_the_same(known: Curves) -> None:
    found = importance(known, sets=SETS)
    effects = [each.front.by.effect for each in found]
    assert effects == sorted(effects, reverse=True)
    assert found[-1].knob != "layers"
    assert importance(known, sets=SETS) == found


def test_many_values_take_no_more_memory_and_a_knob_that_applies_to_nothing_is_left_out() -> None:
    knobs = [Knob(name="many", choices=tuple(range(300))), Knob(name="never", low=0.0, high=1.0)]
    curves = Curves(Space(knobs, lambda name, sampled: name == "many"), reference=[0.0], floor=False)
    for number in range(9):
        curves.begin(number, {"many": number})
        curves.measured(number, 1, [0.0])
        curves.ended(number, "complete")
    (found,) = importance(curves)
    assert found.knob == "many"
    assert np.isfinite(found.front.by).all()
