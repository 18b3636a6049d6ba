"""A front that grows is at any moment that of all points so far, and so is its hypervolume."""

from __future__ import annotations

import math
import random

import pytest

from arat_ray.frontier.dominance import hypervolume, non_dominated
from arat_ray.frontier.growing_front import GrowingFront


@pytest.mark.parametrize("goals", [1, 2, 3])
def test_it_is_the_front_of_all_points_after_each(goals: int) -> None:
    draw, front, points = random.Random(goals), GrowingFront(), dict[str, list[float]]()
    for number in range(150):
        point = [draw.randrange(9) / 8 for _ in range(goals)]  # many are equal
        before = dict(front.points)
        points[f"t{number}"] = point
        assert front.add(f"t{number}", point) == (front.points != before)
        mask = non_dominated(list(points.values()))
        assert set(front.points) == {name for name, keep in zip(points, mask, strict=True) if keep}
        assert front.hypervolume == pytest.approx(hypervolume(list(points.values()), [0.0] * goals), abs=1e-12)


def test_a_point_with_a_nan_is_on_none() -> None:
    front = GrowingFront()
    assert not front.add("a", (math.nan, 0.5))
    assert front.add("b", (0.5, 0.5))
    assert not front.add("c", (0.9, math.nan))
    assert list(front.points) == ["b"]
