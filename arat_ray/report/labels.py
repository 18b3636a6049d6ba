"""How goals, attacks and studies are written, in figures and tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from arat_ray.pixels import format_pixels
from arat_ray.results.schema import ACCURACIES
from arat_ray.text import line


class _Attacked(Protocol):
    @property
    def attack(self) -> str | None: ...
    @property
    def norm(self) -> str | None: ...
    @property
    def epsilon(self) -> float | None: ...


class _Measured(_Attacked, Protocol):
    @property
    def goals(self) -> tuple[str, ...]: ...
    @property
    def split(self) -> str | None: ...
    @property
    def images(self) -> int | None: ...


def goal_label(measured: _Measured, axis: int) -> str:
    """A goal with everything that its number depends on."""
    goal = measured.goals[axis]
    if goal not in ACCURACIES:
        return line(goal.replace("_", " "))
    what = "Clean accuracy (%)"
    if goal == "robust_accuracy":
        what = f"Robust accuracy (%), {attack_label(measured)}"
    split = f"{measured.split} split" if measured.split else "unnamed split"
    return f"{line(what)}\n{line(split)}" + (f", n = {measured.images:,} images" if measured.images else "")


def attack_label(measured: _Attacked) -> str:
    """`PGD-20, Linf, 8/255 (0.031)`."""
    parts = [(measured.attack or "unnamed attack").replace("pgd", "PGD").replace("autoattack", "AutoAttack")]
    if measured.norm:
        parts.append(measured.norm.capitalize())
    if measured.epsilon is not None:
        radius = format_pixels(measured.epsilon)
        parts.append(f"{radius} ({measured.epsilon:.3f})" if "/" in radius else radius)
    return ", ".join(parts)


def study_name(study: str, labels: Mapping[str, str]) -> str:
    """Its label, or the name of its folder."""
    return line(labels.get(study) or Path(study).resolve().name)
