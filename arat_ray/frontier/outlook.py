"""What trials are expected to reach at their end, and to add to a front, by models that believe in the running ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

from arat_ray.frontier.curve_model import CurveModel, Ints
from arat_ray.frontier.dominance import Floats
from arat_ray.frontier.expected_improvement import expected_improvement
from arat_ray.frontier.links import Link


class Outlook(NamedTuple):
    """Models that believe in the running trials, those of constraints, and what lies above the expected front."""

    models: list[CurveModel]
    link: Link
    limits: list[CurveModel]
    above: tuple[Floats, Floats]

    def gains(self, x: Floats, trial: Ints) -> Floats:
        """[N]: the expected hypervolume that trials add at their end, by their knobs [N, D] and number."""
        mean, deviation = at_end(self.models, self.link, x, trial)
        return expected_improvement(mean, deviation, self.above) * feasible(self.limits, x, trial)


def at_end(models: Sequence[CurveModel], link: Link, x: Floats, trial: Ints) -> tuple[Floats, Floats]:
    """Mean and deviation [N, G] of the goals of trials at their last epoch."""
    both = [link.back(*model.predict(x, 1.0, trial)) for model in models]
    return np.stack([mean for mean, _ in both], axis=1), np.stack([deviation for _, deviation in both], axis=1)


def feasible(limits: Sequence[CurveModel], x: Floats, trial: Ints) -> Floats:
    """[N]: the probability that trials violate no constraint."""
    likely = np.ones(len(x))
    for model in limits:
        mean, deviation = model.predict(x, 1.0, trial)
        likely *= ndtr(mean / deviation)
    return likely
