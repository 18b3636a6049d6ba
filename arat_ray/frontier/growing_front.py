"""A front that grows point by point: who is on it now, and its hypervolume."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from arat_ray.frontier.dominance import hypervolume


class GrowingFront:
    """The front of what was added so far, every goal maximised; the same as `non_dominated` of all of it.

    A point that is dominated once stays so, because none is ever taken away: adding one costs a look at the front.
    """

    def __init__(self) -> None:
        self.points: dict[str, tuple[float, ...]] = {}
        """Those on the front, by name."""
        self.hypervolume = 0.0
        """Of the front, above 0 in each goal."""

    def add(self, name: str, point: Sequence[float]) -> bool:
        """Whether the front is another one now. A point with a NaN is on none."""
        new = np.asarray(point, dtype=np.float64)
        there = np.array(list(self.points.values())).reshape(-1, len(new))
        if np.isnan(new).any() or ((there >= new).all(axis=1) & (there > new).any(axis=1)).any():
            return False
        is_beaten = (new >= there).all(axis=1) & (new > there).any(axis=1)
        names = list(self.points)
        for i in np.flatnonzero(is_beaten):
            del self.points[names[i]]
        self.points[name] = tuple(new.tolist())
        self.hypervolume = hypervolume(list(self.points.values()), [0.0] * len(new))
        return True
