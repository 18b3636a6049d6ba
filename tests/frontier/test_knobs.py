from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from arat_ray.frontier.knobs import Knob, Space

KNOBS = [
    Knob(name="uniform", low=-2.0, high=3.0),
    Knob(name="log", low=1e-4, high=1.0, log=True),
    Knob(name="int", low=2, high=9, step=1, integer=True),
    Knob(name="log int", low=1, high=64, step=1, log=True, integer=True),
    Knob(name="stepped", low=0.0, high=1.0, step=0.25),
    Knob(name="choice", choices=("a", "b", "c")),
]


@pytest.mark.parametrize("knob", KNOBS, ids=lambda knob: knob.name)
def test_the_ends_are_reached_and_every_value_is_found_where_it_came_from(knob: Knob) -> None:
    low, high = (knob.choices[0], knob.choices[-1]) if knob.choices else (knob.low, knob.high)
    assert knob.at(0.0) == pytest.approx(low) if not knob.choices else knob.at(0.0) == low
    assert knob.at(1.0) == pytest.approx(high) if not knob.choices else knob.at(1.0) == high
    for u in np.linspace(0, 1, 21):
        value = knob.at(float(u))
        again = knob.at(knob.unit(value))
        assert again == value if knob.choices else again == pytest.approx(value)


def test_discrete_values_are_equally_likely() -> None:
    (knob,) = (each for each in KNOBS if each.name == "int")
    counts = Counter(knob.at((i + 0.5) / 8000) for i in range(8000))
    assert counts == dict.fromkeys(range(2, 10), 1000)
    assert all(isinstance(value, int) for value in counts)


def test_a_range_of_one_value_has_a_place() -> None:
    knob = Knob(name="fixed", low=3.0, high=3.0)
    assert knob.at(0.2) == 3.0
    assert knob.unit(3.0) == 0.5


def test_a_conditional_knob_is_absent_where_it_does_not_apply_and_lies_in_the_middle() -> None:
    space = Space(
        [Knob(name="kind", choices=("plain", "rich")), Knob(name="depth", low=0, high=4)],
        lambda name, sampled: name != "depth" or sampled["kind"] == "rich",
    )
    plain, rich = space.sample(np.array([0.1, 0.75])), space.sample(np.array([0.9, 0.75]))
    assert plain == {"kind": "plain"}
    assert rich == {"kind": "rich", "depth": 3.0}
    np.testing.assert_allclose(space.encode([plain, rich]), [[0.7, 0, 0.5], [0, 0.7, 0.75]])


def test_a_sample_is_found_again_at_its_units_and_neighbours_stay_in_the_cube() -> None:
    space, draw = Space(KNOBS), np.random.default_rng(0)
    for point in draw.random((20, len(KNOBS))):
        sampled = space.sample(point)
        again = space.sample(space.units(sampled, draw))
        assert {**again, "choice": None} == pytest.approx({**sampled, "choice": None})
    moved = space.moved(draw.random((500, len(KNOBS))), 0.5, draw)
    assert ((moved >= 0) & (moved <= 1)).all()
