"""The knobs of a search as numbers: samples from points of the unit cube, and samples as rows of a model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from arat_ray.frontier.dominance import Floats

Sampled = dict[str, Any]
APART = 0.7
"""Of a choice's column where it was taken: two choices are as far apart as the ends of an interval."""
ABSENT = 0.5
"""Of the column of a knob that does not apply: the middle."""


@dataclass(frozen=True, kw_only=True)
class Knob:
    """An interval, in steps or not, or a choice."""

    name: str
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    step: float | None = None
    integer: bool = False
    choices: tuple[Any, ...] | None = None

    @property
    def columns(self) -> int:
        """Of a model: one for each choice, or the number itself."""
        return len(self.choices) if self.choices is not None else 1

    def at(self, u: float) -> Any:
        """The value at u in [0, 1]; each of discrete values takes an equal share of it."""
        if self.choices is not None:
            return self.choices[min(int(u * len(self.choices)), len(self.choices) - 1)]
        low, high = self._ends
        value = math.exp(low + u * (high - low)) if self.log else low + u * (high - low)
        if self.step is not None:
            value = self.low + self.step * round((value - self.low) / self.step)
        value = min(max(value, self.low), self.high)
        return round(value) if self.integer else float(value)

    def unit(self, value: Any) -> float:
        """The place in [0, 1] of a value."""
        if self.choices is not None:
            return (self.choices.index(value) + 0.5) / len(self.choices)
        low, high = self._ends
        return ((math.log(value) if self.log else value) - low) / (high - low) if high > low else 0.5

    @cached_property
    def _ends(self) -> tuple[float, float]:
        """Half a step beyond the discrete values, so that the outer ones are as likely as the others."""
        half = 0.5 * self.step if self.step is not None else 0.0
        if self.log:
            return math.log(max(self.low - half, self.low / 2)), math.log(self.high + half)
        steps = math.floor((self.high - self.low) / self.step + 1e-9) * self.step if self.step else 0.0
        return self.low - half, (self.low + steps + half) if self.step else self.high


class Space:
    """The knobs in their order, and whether one applies to what was sampled before it."""

    def __init__(
        self,
        knobs: Sequence[Knob],
        applies: Callable[[str, Mapping[str, Any]], bool] = lambda name, sampled: True,
    ) -> None:
        self.knobs, self.applies = tuple(knobs), applies
        self.group = np.array([i for i, knob in enumerate(self.knobs) for _ in range(knob.columns)], dtype=np.int64)
        """[D]: the knob of each column."""

    def sample(self, units: Floats) -> Sampled:
        """The sample at a point [K] of the unit cube."""
        sampled: Sampled = {}
        for knob, u in zip(self.knobs, units, strict=True):
            if self.applies(knob.name, sampled):
                sampled[knob.name] = knob.at(float(u))
        return sampled

    def units(self, sampled: Mapping[str, Any], draw: np.random.Generator) -> Floats:
        """A point [K] at which this sample lies; a knob that does not apply, or has no such value, is drawn."""
        drawn = draw.random(len(self.knobs))
        return np.array(
            [
                knob.unit(sampled[knob.name]) if knob.name in sampled else u
                for knob, u in zip(self.knobs, drawn, strict=True)
            ]
        )

    def encode(self, samples: Sequence[Mapping[str, Any]]) -> Floats:
        """Rows [N, D] of a model: a choice has a column each of its values, a number is its place in [0, 1]."""
        rows = np.empty((len(samples), len(self.group)))
        for row, sampled in zip(rows, samples, strict=True):
            at = 0
            for knob in self.knobs:
                if knob.choices is not None:
                    taken = sampled.get(knob.name, self)
                    row[at : at + knob.columns] = [APART * (choice == taken) for choice in knob.choices]
                else:
                    row[at] = knob.unit(sampled[knob.name]) if knob.name in sampled else ABSENT
                at += knob.columns
        return rows

    def moved(self, units: Floats, deviation: float, draw: np.random.Generator) -> Floats:
        """Neighbours of points [N, K]: most knobs a little elsewhere, now and then another choice."""
        shift = deviation * draw.normal(size=units.shape) * (draw.random(units.shape) < 0.6)
        is_choice = np.array([knob.choices is not None for knob in self.knobs])
        jumps = (draw.random(units.shape) < 0.15) & is_choice
        moved = np.where(is_choice, units, np.clip(units + shift, 0.0, 1.0))
        return np.where(jumps, draw.random(units.shape), moved)
