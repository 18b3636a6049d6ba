from __future__ import annotations

import numpy as np
import pytest

from arat_ray.frontier.dominance import hypervolume
from arat_ray.frontier.expected_improvement import boxes, expected_improvement


def volume(lower: np.ndarray, upper: np.ndarray, top: float) -> float:
    return float(np.prod(np.minimum(upper, top) - np.minimum(lower, top), axis=1).sum())


@pytest.mark.parametrize("goals", [1, 2, 3, 4])
@pytest.mark.parametrize("members", [0, 1, 2, 9])
def test_the_boxes_fill_what_the_front_leaves_of_the_unit_cube(goals: int, members: int) -> None:
    front = np.random.default_rng(members).random((members, goals))
    lower, upper = boxes(front, np.zeros(goals))
    assert volume(lower, upper, 1.0) == pytest.approx(1 - hypervolume(front, np.zeros(goals)), abs=1e-12)


@pytest.mark.parametrize("goals", [1, 2, 3, 4])
def test_expected_improvement_is_that_of_sampled_trials(goals: int) -> None:
    """An independent way: draw trials, add each to the front, and measure its hypervolume."""
    draw = np.random.default_rng(goals)
    front, corner = 0.2 + 0.5 * draw.random((4, goals)), np.full(goals, 0.1)
    mean, deviation = draw.random((2, goals)), 0.05 + 0.3 * draw.random((2, goals))
    found = expected_improvement(mean, deviation, boxes(front, corner))
    before = hypervolume(front, corner)
    for i in range(2):
        points = draw.normal(mean[i], deviation[i], (1500, goals))
        added = np.array([hypervolume(np.vstack([front, point]), corner) - before for point in points])
        assert found[i] == pytest.approx(added.mean(), abs=4 * added.std() / np.sqrt(len(added)))


def test_two_goals_agree_with_quadrature() -> None:
    """E = integral over what is not dominated of P(Y1 > u1) P(Y2 > u2)."""
    from scipy.stats import norm

    front = np.array([[0.3, 0.8], [0.6, 0.5], [0.8, 0.1]])
    mean, deviation = np.array([[0.55, 0.6]]), np.array([[0.08, 0.12]])
    side = (np.arange(800) + 0.5) / 400
    survives = [norm.sf(side, m, s) for m, s in zip(mean[0], deviation[0], strict=True)]
    free = np.ones((800, 800), dtype=bool)
    for a, b in front:
        free &= ~((side[:, None] < a) & (side[None] < b))
    expected = (np.outer(*survives) * free).sum() / 160_000
    found = expected_improvement(mean, deviation, boxes(front, [0, 0]))
    assert found[0] == pytest.approx(expected, rel=1e-4)


def test_a_sure_trial_adds_what_it_adds() -> None:
    front = np.array([[0.3, 0.8], [0.6, 0.5]])
    mean = np.array([[0.7, 0.7], [0.5, 0.4], [0.6, 0.5]])
    found = expected_improvement(mean, np.full((3, 2), 1e-9), boxes(front, [0, 0]))
    np.testing.assert_allclose(found, [hypervolume(np.vstack([front, mean[0]]), [0, 0]) - 0.54 + 0.15, 0, 0], atol=1e-8)


def test_points_below_the_reference_and_doubles_change_nothing() -> None:
    front = np.array([[0.3, 0.8], [0.6, 0.5]])
    more = np.vstack([front, front, [[0.2, 0.1]], [[-1.0, 2.0]]])
    mean, deviation = np.array([[0.5, 0.6]]), np.array([[0.2, 0.2]])
    found = [expected_improvement(mean, deviation, boxes(each, [0, 0])) for each in (front, more)]
    assert found[0] == found[1]


def test_more_is_expected_of_a_better_and_of_a_less_certain_trial() -> None:
    above = boxes([[0.5, 0.5]], [0, 0])
    low, better, vague = expected_improvement(
        np.array([[0.4, 0.4], [0.45, 0.4], [0.4, 0.4]]), np.array([[0.1, 0.1], [0.1, 0.1], [0.3, 0.3]]), above
    )
    assert low < better
    assert low < vague
