"""How much each knob of a search moves each goal, and the front, by the model of its learning curves.

A knob is set to values over its range while the others are spread over theirs (quasi-random points, the same for all
values). Functions drawn from the model's posterior, without a trial's own luck and noise, say what that does at the
last epoch. An effect is the difference between two values of the knob, so that an interval that holds 0 says that the
rows do not tell it from none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import qmc

from arat_ray.frontier.curves import Curves
from arat_ray.frontier.dominance import Floats, hypervolume
from arat_ray.frontier.knobs import Knob, Space

DRAWS = 200
"""Functions that are drawn from the posterior of each goal."""
SETTINGS, POINTS = 64, 2048
"""Of the other knobs; and with all values of one at most, because the time grows with their cube: fewer settings where
it has many values."""
LEVELS = 7
"""Values of an interval, its ends among them."""
INTERVAL = (5, 95)
"""Percentiles that an interval reaches from and to."""


class Effect(NamedTuple):
    """A difference with its 90 % interval."""

    effect: float
    low: float
    high: float


class Moved(NamedTuple):
    """What the best value of a knob has over the worst, the others averaged over."""

    best: Any
    worst: Any
    by: Effect


class Importance(NamedTuple):
    """Of one knob: what it moves of each goal, in the goal's unit, and of the hypervolume of the front of settings with
    one value, as a share of that of the best; of a choice of sets, what settings with a member have over those without,
    in each goal and in that share."""

    knob: str
    goals: list[Moved]
    front: Moved
    members: dict[str, list[Effect]]


def importance(
    curves: Curves, *, sets: Mapping[str, Mapping[Any, frozenset[str]]] | None = None, seed: int = 0
) -> list[Importance]:
    """Of all knobs that apply to any trial, those that move the front most first.

    `sets` has of each knob that chooses among sets the members of each choice.
    """
    found = []
    for knob in curves.space.knobs:
        count = len(knob.choices) if knob.choices is not None else LEVELS
        settings = _settings(curves.space, knob.name)[: max(2, POINTS // count)]
        if not len(settings):
            continue
        values, goals, volume = _drawn(curves, knob, count, settings, np.random.default_rng(seed))
        share = volume / (volume.mean(axis=0).max() or 1.0)
        moved = [_moved(values, goals[:, :, goal]) for goal in range(goals.shape[2])]
        members = _members([(sets or {}).get(knob.name, {}).get(value, frozenset()) for value in values])
        inclusions = {
            member: [_inclusion(each, there) for each in (*np.moveaxis(goals, 2, 0), share)]
            for member, there in members.items()
        }
        found.append(Importance(knob.name, moved, _moved(values, share), inclusions))
    return sorted(found, key=lambda each: -each.front.by.effect)


def _drawn(
    curves: Curves, knob: Knob, count: int, settings: Floats, draw: np.random.Generator
) -> tuple[list[Any], Floats, Floats]:
    """So many values [L] of the knob; by drawn function and value the goals [S, L, G], averaged over the settings
    [B, K], and the hypervolume [S, L] of their front."""
    place = [each.name for each in curves.space.knobs].index(knob.name)
    ends = np.linspace(0, 1, count) if knob.choices is None else (np.arange(count) + 0.5) / count
    units = np.repeat(settings[None], count, axis=0)
    units[:, :, place] = ends[:, None]
    samples = [curves.space.sample(each) for each in units.reshape(-1, settings.shape[1])]
    drawn = curves.drawn_at_end(samples, DRAWS, draw).reshape(DRAWS, count, len(settings), -1)
    reference = curves.reference()
    volume = np.array([[hypervolume(points, reference) for points in levels] for levels in drawn])
    values = [sampled[knob.name] for sampled in samples[:: len(settings)]]
    return values, drawn.mean(axis=2), volume


def _settings(space: Space, name: str) -> Floats:
    """[B, K]: points of the unit cube at which the knob applies."""
    points = qmc.Sobol(len(space.knobs), rng=0).random(8 * SETTINGS)
    applies = np.array([name in space.sample(point) for point in points])
    return np.asarray(points[applies][:SETTINGS])


def _moved(values: Sequence[Any], drawn: Floats) -> Moved:
    """From draws [S, L]."""
    mean = drawn.mean(axis=0)
    best, worst = int(mean.argmax()), int(mean.argmin())
    return Moved(values[best], values[worst], _effect(drawn[:, best] - drawn[:, worst]))


def _members(sets: Sequence[frozenset[str]]) -> dict[str, np.ndarray]:
    """Of each member that some sets have and some have not, which [L] do."""
    names = sorted(frozenset().union(*sets))
    there = {name: np.array([name in each for each in sets]) for name in names}
    return {name: mask for name, mask in there.items() if not mask.all()}


def _inclusion(drawn: Floats, there: np.ndarray) -> Effect:
    return _effect(drawn[:, there].mean(axis=1) - drawn[:, ~there].mean(axis=1))


def _effect(differences: Floats) -> Effect:
    low, high = np.percentile(differences, INTERVAL)
    return Effect(float(differences.mean()), float(low), float(high))
