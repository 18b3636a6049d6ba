"""How much hypervolume a trial is expected to add to a front, exactly, for any number of goals.

The volume above the front is cut into boxes, slice by slice along the last goal. The expectation of the volume that an
independent normal point [G] adds is the sum over boxes of the product over goals of what it is expected to reach into
each side (https://arxiv.org/abs/1905.02370 for two goals). Its cost is one product a box, candidate and goal.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from arat_ray.frontier.dominance import Floats, non_dominated

ROOT_2PI = np.sqrt(2 * np.pi)


def boxes(front: npt.ArrayLike, reference: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Lower and upper corners [B, G] of disjoint boxes that fill what lies above the reference [G] and no point of
    the front [F, G] dominates; upper ones may be infinite."""
    corner = np.asarray(reference, dtype=np.float64)
    points = np.asarray(front, dtype=np.float64).reshape(-1, len(corner))
    points = points[(points > corner).all(axis=1)]
    cut = _cut(points, corner)
    return cut[:, 0], cut[:, 1]


def _cut(points: Floats, corner: Floats) -> Floats:
    """[B, 2, G]; between two levels of the last goal only the points above them dominate anything."""
    points = np.unique(points[non_dominated(points)], axis=0)
    if len(corner) == 1:
        return np.array([[[points.max(initial=corner[0])], [np.inf]]])
    levels = np.unique(np.append(points[:, -1], corner[-1]))
    slices = []
    for low, high in zip(levels, np.append(levels[1:], np.inf), strict=True):
        below = _cut(points[points[:, -1] >= high, :-1], corner[:-1])
        ends = np.broadcast_to(np.array([low, high])[None, :, None], (len(below), 2, 1))
        slices.append(np.concatenate([below, ends], axis=2))
    return np.concatenate(slices)


def expected_improvement(mean: Floats, deviation: Floats, above: tuple[Floats, Floats]) -> Floats:
    """[C]: the expected volume within the boxes `above` that normal points [C, G] of these deviations dominate."""
    lower, upper = above
    total = np.ones((len(mean), len(lower)))
    for goal in range(mean.shape[1]):
        levels, where = np.unique(np.append(lower[:, goal], upper[:, goal]), return_inverse=True)
        reached = _above(mean[:, goal, None], deviation[:, goal, None], levels[None])
        total *= reached[:, where[: len(lower)]] - reached[:, where[len(lower) :]]
    return np.asarray(np.maximum(total, 0.0).sum(axis=1))


def _above(mean: Floats, deviation: Floats, level: Floats) -> Floats:
    """E[(Y - level)+] of normal Y; 0 where the level is infinite."""
    finite = np.where(np.isfinite(level), level, 0.0)
    z = (mean - finite) / deviation
    expected = deviation * (np.exp(-0.5 * z * z) / ROOT_2PI + z * ndtr(z))
    return np.asarray(np.where(np.isfinite(level), expected, 0.0))
