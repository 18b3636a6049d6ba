"""The curve of one network: clean and robust accuracy at settings of its dial, on one set of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from arat_ray.frontier.dominance import Floats, Mask, hypervolume, non_dominated
from arat_ray.frontier.evaluations import NO_ATTACK
from arat_ray.results.rows import EvaluationRow

PAIRS = ("soup", "mix")
"""How the labels begin of what lies between two networks."""


class Share(NamedTuple):
    """An accuracy in [0, 1], and its 95 % interval."""

    value: float
    low: float
    high: float


class Setting(NamedTuple):
    """What was measured at one setting of the dial."""

    dial: float
    clean: Share
    robust: Share
    warnings: str | None
    """Why the robust accuracy may be too high."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """The settings of one network, in ascending order, and how they were measured."""

    name: str
    """Of its trial and checkpoint."""
    settings: tuple[Setting, ...]
    attack: str | None
    norm: str | None
    epsilon: float | None
    split: str | None
    images: int
    ends: tuple[str, str] = ("deployed", "clean branch")
    """What the settings 0 and 1 are."""
    goals: tuple[str, ...] = ("clean_accuracy", "robust_accuracy")

    @property
    def points(self) -> Floats:
        """float [N, 2]: clean and robust accuracy."""
        return np.array([[each.clean.value, each.robust.value] for each in self.settings])

    @property
    def on_front(self) -> Mask:
        """bool [N]: the settings that no other of this network beats."""
        return non_dominated(self.points)

    @property
    def hypervolume(self) -> float:
        """The area that the curve dominates above (0, 0)."""
        return hypervolume(self.points, (0.0, 0.0))


def curves(rows: Sequence[EvaluationRow]) -> list[Curve]:
    """One curve a network, of rows of `evaluations` that have a dial and were measured alike."""
    networks: dict[str, dict[float, dict[bool, EvaluationRow]]] = {}
    for row in rows:
        dial = row["dial"]
        assert dial is not None
        name = f"{row['trial_id']} {row['checkpoint']}"
        networks.setdefault(name, {}).setdefault(dial, {})[row["attack"] != NO_ATTACK] = row
    return [_curve(name, by_dial) for name, by_dial in networks.items()]


def _curve(name: str, by_dial: dict[float, dict[bool, EvaluationRow]]) -> Curve:
    attacked = next(iter(by_dial.values()))[True]
    trial, _, label = name.partition(" ")
    way, _, other = label.partition("-")
    return Curve(
        name=name,
        ends=(trial, other) if way in PAIRS else ("deployed", "clean branch"),
        settings=tuple(
            Setting(dial, _share(found[False]), _share(found[True]), found[True]["warnings"])
            for dial, found in sorted(by_dial.items())
        ),
        attack=attacked["attack"],
        norm=attacked["norm"],
        epsilon=attacked["epsilon"],
        split=attacked["split"],
        images=attacked["images"],
    )


def _share(row: EvaluationRow) -> Share:
    return Share(row["accuracy"], row["ci_low"], row["ci_high"])
