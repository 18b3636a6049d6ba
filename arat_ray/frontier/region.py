"""Where a point lies by a front, in words: between which of its members, beyond which, or behind whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from arat_ray.frontier.dominance import non_dominated
from arat_ray.frontier.halving import named


def region(point: Sequence[float], trials: Mapping[int, Sequence[float]], goals: Sequence[str]) -> str:
    """`between trials 4 and 9 of the front`, of whole trials by their numbers; all goals are maximised.

    Between whom it lies is said of two goals alone.
    """
    if not trials:
        return "before any trial was complete"
    numbers = list(trials)
    values = np.array([trials[number] for number in numbers], dtype=np.float64)
    front = {numbers[i]: values[i] for i in np.flatnonzero(non_dominated(values)).tolist()}
    ahead = sorted(number for number, member in front.items() if (member >= np.asarray(point)).all())
    if ahead:
        return f"behind {named(ahead)}: it adds where it turns out better than expected"
    if len(goals) != 2:
        return "ahead of the front"
    order = sorted(front, key=lambda number: -front[number][0])
    before = [number for number in order if front[number][0] >= point[0]]
    if before and len(before) < len(order):
        return f"between trials {before[-1]} and {order[len(before)]} of the front"
    end, goal = (order[-1], goals[1]) if before else (order[0], goals[0])
    return f"beyond trial {end}, then the best in {goal.replace('_', ' ')}"
