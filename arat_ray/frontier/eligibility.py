"""Eligibility: which trials may be on a front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def competes(trial: Mapping[str, Any], goals: Sequence[str]) -> bool:
    """Whether a row of `trials` is complete at full fidelity, broke no constraint and has a number for every goal.

    `feasible` is null where there are no constraints, and in a study from before there were any.
    """
    return (
        trial.get("status") == "complete"
        and bool(trial.get("is_full_fidelity"))
        and trial.get("feasible") is not False
        and all(trial.get(goal) is not None for goal in goals)
    )
