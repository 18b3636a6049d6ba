"""Attainment surfaces: by hand, and against the definition on every point of a grid."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from arat_ray.frontier.attainment import level, surfaces
from arat_ray.frontier.dominance import Floats, non_dominated


def attained_by_at_least(k: int, sets: list[Floats]) -> list[tuple[float, float]]:
    """The definition: of all pairs of coordinates, the non-dominated ones that k sets have a point above."""
    x, y = (sorted({float(point[axis]) for points in sets for point in points}) for axis in (0, 1))
    attained = [
        z for z in itertools.product(x, y) if sum(any((point >= z).all() for point in points) for points in sets) >= k
    ]
    if not attained:
        return []
    kept = zip(attained, non_dominated(attained), strict=True)
    return sorted((z for z, keep in kept if keep), reverse=True)


def test_surfaces_of_two_sets_by_hand() -> None:
    a, b = np.array([[3.0, 1.0], [1.0, 3.0]]), np.array([[2.0, 2.0]])
    best, worst = surfaces([a, b])
    assert best.tolist() == [[3, 1], [2, 2], [1, 3]]
    assert worst.tolist() == [[2, 1], [1, 2]]  # below both: the corners of a's staircase that b reaches


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("levels", [4, 1000])
def test_surfaces_are_what_the_definition_says(seed: int, levels: int) -> None:
    draw = np.random.default_rng(seed)
    sets = [draw.integers(0, levels, (draw.integers(1, 6), 2)) / levels for _ in range(2 + seed % 4)]
    for k, surface in enumerate(surfaces(sets), start=1):
        assert [tuple(point) for point in surface.tolist()] == attained_by_at_least(k, sets), k


def test_an_empty_set_attains_nothing() -> None:
    a, nothing = np.array([[1.0, 1.0]]), np.empty((0, 2))
    assert [surface.tolist() for surface in surfaces([a, nothing, a])] == [[[1, 1]], [[1, 1]]]
    assert surfaces([nothing]) == []


@pytest.mark.parametrize(
    ("percent", "sets", "expected"),
    [(25, 3, 1), (50, 3, 2), (75, 3, 3), (50, 4, 2), (25, 4, 1), (75, 4, 3), (100, 7, 7), (50, 1, 1), (29, 100, 29)],
)
def test_a_share_of_the_sets_is_at_least_that_many(percent: int, sets: int, expected: int) -> None:
    assert level(percent, sets) == expected
