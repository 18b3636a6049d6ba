"""How goals are measured: the scale on which they are modelled, and back, and how noisy they are known to be."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from arat_ray.frontier.dominance import Floats

BEYOND = 0.02
"""How far beyond 0 and 1 the logit ends: it keeps shares of 0 and 1 finite."""
WIDTH = 1 + 2 * BEYOND
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(9)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


class Link(NamedTuple):
    """There, its slope, and mean and deviation of the goal where it is normal there."""

    there: Callable[[Floats], Floats]
    slope: Callable[[Floats], Floats]
    back: Callable[[Floats, Floats], tuple[Floats, Floats]]


def _there(share: Floats) -> Floats:
    inner = (share + BEYOND) / WIDTH
    return np.asarray(np.log(inner / (1 - inner)))


def _slope(share: Floats) -> Floats:
    inner = (share + BEYOND) / WIDTH
    return np.asarray(1 / (inner * (1 - inner) * WIDTH))


def _back(mean: Floats, deviation: Floats) -> tuple[Floats, Floats]:
    """By Gauss-Hermite quadrature."""
    shares = WIDTH / (1 + np.exp(-(mean[..., None] + deviation[..., None] * NODES))) - BEYOND
    middle = shares @ WEIGHTS
    variance = ((shares - middle[..., None]) ** 2) @ WEIGHTS
    return middle, np.sqrt(np.maximum(variance, 1e-12))


IDENTITY = Link(lambda goals: goals, np.ones_like, lambda mean, deviation: (mean, deviation))
"""For goals of any kind."""
LOGIT = Link(_there, _slope, _back)
"""For shares: between 0.90 and 0.95 lies as much as between 0.65 and 0.80, and failed trials lie less far off."""


def no_noise(goals: Floats) -> Floats:
    """The variances [G] of measured goals where nothing is known of them."""
    return np.zeros_like(goals)


def of_counts(images: int) -> Callable[[Floats], Floats]:
    """The variances of shares of so many images; also of none and of all of them above 0."""

    def variances(goals: Floats) -> Floats:
        share = np.clip((goals * images + 1) / (images + 2), 0.0, 1.0)
        return np.asarray(share * (1 - share) / images)

    return variances
