"""Curves of dials over seeds: mean and 95 % interval of both accuracies at each setting, and of the area below.

The interval is Student's over the seeds, which says how a run with another seed may turn out on these images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from statistics import fmean, stdev
from typing import NamedTuple

from arat_ray.frontier.dominance import hypervolume

Point = tuple[float, float]
"""Clean and robust accuracy."""


class Mean(NamedTuple):
    """Over the seeds, with the 95 % interval of the mean; None for one seed."""

    value: float
    low: float | None
    high: float | None


class MeanSetting(NamedTuple):
    """Both accuracies at one setting."""

    dial: float
    clean: Mean
    robust: Mean


class MeanCurve(NamedTuple):
    """The dial of one member of a front, over the seeds with which all its settings were measured.

    `hypervolume` is the area above (0, 0) of the whole curve, `gain` how much of it the setting 0 alone, the deployed
    network, lacks with the same seed; None where 0 was not measured.
    """

    number: int
    seeds: list[int]
    settings: list[MeanSetting]
    hypervolume: Mean
    gain: Mean | None


def mean_of(values: Sequence[float]) -> Mean:
    """Of independent values, with Student's 95 % interval."""
    from scipy.special import stdtrit

    mean, count = fmean(values), len(values)
    if count < 2:
        return Mean(mean, None, None)
    half = float(stdtrit(count - 1, 0.975)) * stdev(values) / sqrt(count)
    return Mean(mean, mean - half, mean + half)


def mean_curve(number: int, by_seed: Mapping[int, Mapping[float, Point]]) -> MeanCurve | None:
    """Of the settings that were measured with every seed; None where there are none."""
    curves = {seed: curve for seed, curve in sorted(by_seed.items()) if curve}
    if not curves or not (common := set.intersection(*(set(curve) for curve in curves.values()))):
        return None
    areas, gains = [], []
    for curve in curves.values():
        areas.append(hypervolume([curve[dial] for dial in common], (0.0, 0.0)))
        gains.append(areas[-1] - curve[0.0][0] * curve[0.0][1] if 0.0 in common else 0.0)
    return MeanCurve(
        number=number,
        seeds=list(curves),
        settings=[
            MeanSetting(dial, *(mean_of([curve[dial][axis] for curve in curves.values()]) for axis in (0, 1)))
            for dial in sorted(common)
        ],
        hypervolume=mean_of(areas),
        gain=mean_of(gains) if 0.0 in common else None,
    )


def as_json(curve: MeanCurve) -> dict[str, object]:
    """By name, in fractions."""
    settings = [
        {"dial": each.dial, "clean": each.clean._asdict(), "robust": each.robust._asdict()} for each in curve.settings
    ]
    gain = curve.gain and curve.gain._asdict()
    return {**curve._asdict(), "settings": settings, "hypervolume": curve.hypervolume._asdict(), "gain": gain}
