"""The sample of a space with the highest expected gain: looked for at random, around good ones, and then around the
best of these, coarsely and finely."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from arat_ray.frontier.dominance import Floats
from arat_ray.frontier.knobs import Sampled, Space

CANDIDATES, NEIGHBOURS, NEAR = 200, 10, 0.15
"""Points at random at first, and around each good one, and how far from it."""
CLIMBS, CLIMBERS, AROUND = (0.08, 0.03), 4, 15
"""How far the best look around then, how many of them, and at how many points each."""


class NewTrial(NamedTuple):
    """A new trial, the hypervolume that it is expected to add, and mean and deviation [G] of its goals at its end."""

    sampled: Sampled
    gain: float
    expected: tuple[float, ...]
    deviation: tuple[float, ...]


def best_of(
    space: Space,
    gains: Callable[[Sequence[Sampled]], Floats],
    *,
    near: Sequence[Sampled],
    taken: Sequence[Sampled],
    draw: np.random.Generator,
) -> tuple[Sampled, float]:
    """The best that is not `taken`, or of all where they all are, and its gain; some candidates lie `near` good
    samples."""
    good = [space.units(sampled, draw) for sampled in near for _ in range(NEIGHBOURS)]
    units = draw.random((CANDIDATES, len(space.knobs)))
    units = np.concatenate([units, space.moved(np.array(good).reshape(-1, len(space.knobs)), NEAR, draw)])
    seen: list[tuple[float, Sampled]] = []
    for deviation in (*CLIMBS, None):
        samples = [space.sample(point) for point in units]
        found = gains(samples)
        seen += zip(found.tolist(), samples, strict=True)
        if deviation is not None:
            top = np.argsort(-found, kind="stable")[:CLIMBERS]
            units = space.moved(np.repeat(units[top], AROUND, axis=0), deviation, draw)
    seen.sort(key=lambda each: -each[0])
    known = {_key(sampled) for sampled in taken}
    gain, sampled = next((each for each in seen if _key(each[1]) not in known), seen[0])
    return sampled, gain


def _key(sampled: Mapping[str, object]) -> str:
    """Also of values that cannot be hashed."""
    return repr(sorted(sampled.items()))
