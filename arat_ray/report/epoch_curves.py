"""What the epochs of each trial measured, as the report draws it: whole numbers, each as the step from the one before.

A curve is smooth, so its steps are small, and compress to half of what its numbers do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from arat_ray.results import reader

LOSSES = ("loss_adversarial", "loss_clean", "loss_invariance")
PLACES = 5
"""Decimal places of a share: that of any number of images up to 100,000 is told from its neighbours."""
LOSS_DIGITS = 4
"""Digits of the largest loss of a curve."""


def of(study: Path, goals: Sequence[str]) -> dict[str, dict[str, Any]]:
    """By trial_id its epochs, and the curve of each column that any trial has; of an epoch run twice the later one."""
    if not reader.part_files(study / "epochs"):
        return {}
    names = [*(f"validation_{goal}" for goal in goals), *LOSSES]
    there = set(reader.schema(study, "epochs").names)
    names = [name for name in names if name in there]
    table = reader.read(study, "epochs", ["trial_id", "epoch", "attempt", *names])
    names = [name for name in names if table[name].null_count < len(table)]
    table = table.select(["trial_id", "epoch", "attempt", *names])
    columns = [table[name].to_pylist() for name in table.column_names]
    by_trial: dict[str, dict[int, tuple[Any, ...]]] = {}
    for trial_id, epoch, attempt, *values in zip(*columns, strict=True):
        epochs = by_trial.setdefault(trial_id, {})
        if epoch not in epochs or epochs[epoch][0] <= attempt:
            epochs[epoch] = (attempt, *values)
    return {trial_id: _trial(names, epochs) for trial_id, epochs in by_trial.items()}


def _trial(names: Sequence[str], epochs: dict[int, tuple[Any, ...]]) -> dict[str, Any]:
    order = sorted(epochs)
    curves = ((name, [epochs[epoch][i] for epoch in order]) for i, name in enumerate(names, 1))
    return {"epoch": steps(order, 0)} | {name: steps(values, _places(name, values)) for name, values in curves}


def _places(name: str, values: Sequence[float | None]) -> int:
    """How many decimal places count."""
    largest = max((abs(value) for value in values if value is not None and math.isfinite(value)), default=0.0)
    if name not in LOSSES and largest <= 1:
        return PLACES
    return LOSS_DIGITS - 1 - math.floor(math.log10(largest)) if largest else 0


def steps(values: Sequence[float | None], places: int) -> dict[str, Any]:
    """`[0.25, null, 0.5]` at two places: `{"places": 2, "steps": [25, null, 25]}`; null what is no finite number."""
    before, found = 0, list[int | None]()
    for value in values:
        if value is None or not math.isfinite(value):
            found.append(None)
            continue
        now = round(value * 10.0**places)
        found.append(now - before)
        before = now
    return {"places": places, "steps": found}
