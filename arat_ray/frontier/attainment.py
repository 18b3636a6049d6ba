"""Attainment surfaces: what at least so many of several fronts attain.

A set of points attains a goal vector when one of its points is as good in every goal. The empirical attainment function
of N sets is the share of them that attain it (Grunert da Fonseca et al. 2001, https://doi.org/10.1007/3-540-44719-9_15);
where it first reaches a level is a surface, here of two goals that are maximised.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from arat_ray.frontier.dominance import Floats


def surfaces(sets: Sequence[Floats]) -> list[Floats]:
    """For each k of 1..N, the best points that at least k of N sets attain: [P, 2], descending in the first goal.

    Each set is [M, 2]; an empty one attains nothing. Surfaces that no point is on are left out, the last ones first.
    """
    import moocore

    filled = [points for points in sets if len(points)]
    if not filled:
        return []
    numbers = np.repeat(np.arange(len(filled)), [len(points) for points in filled])
    found = moocore.eaf(-np.concatenate(filled), numbers)  # it minimises; its last column is the level, in percent
    by_level = [-found[found[:, 2] == level, :2] for level in np.unique(found[:, 2])]
    assert len(by_level) == len(filled)
    return [points[np.argsort(-points[:, 0], kind="stable")] for points in by_level]


def level(percent: int, sets: int) -> int:
    """The smallest number of `sets` that are at least `percent` of them: 2 for 50 % of 3."""
    return max(1, -(-percent * sets // 100))
