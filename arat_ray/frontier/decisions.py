"""Decisions of early stopping as rows of the `decisions` table, and back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from arat_ray.frontier.gain_decision import GainDecision
from arat_ray.frontier.halving import Decision
from arat_ray.results import reader
from arat_ray.results.rows import DecisionRow

Made = Decision | GainDecision
"""What one of the rules decided."""


def as_row(decision: Made, *, trial_id: str, goals: Sequence[str], order: int) -> DecisionRow:
    """The row of a decision that is made now, the study's `order`-th from 0."""
    row: DecisionRow = {
        "trial_id": trial_id,
        "rung": decision.rung,
        "order": order,
        "number": decision.number,
        "goals": dict(zip(goals, decision.goals, strict=True)),
        "goes_on": decision.goes_on,
        "of": decision.of,
        "why": decision.why,
        "decided_at": datetime.now(UTC),
    }
    if isinstance(decision, Decision):
        return row | {
            "rank": decision.rank,
            "keep": decision.keep,
            "front": decision.front,
            "beaten_by": list(decision.beaten_by),
            "behind": list(decision.behind),
        }
    if decision.expected is None or decision.deviation is None:
        return row
    return row | {
        "expected": dict(zip(goals, decision.expected, strict=True)),
        "deviation": dict(zip(goals, decision.deviation, strict=True)),
        "gain": decision.gain,
        "gain_of_new": decision.gain_of_new,
    }


def of_rows(rows: Iterable[DecisionRow], goals: Sequence[str]) -> list[Made]:
    """Decisions in the order in which they were made."""
    return [_decision(row, goals) for row in sorted(rows, key=lambda row: row["order"])]


def read(study: Path) -> list[Made]:
    """The decisions of a study in the order in which they were made; empty where it has none."""
    if not reader.part_files(study / "decisions"):
        return []
    return of_rows(reader.read(study, "decisions").to_pylist(), reader.metadata(study).goals)


def _decision(row: DecisionRow, goals: Sequence[str]) -> Made:
    known: dict[str, Any] = {name: row.get(name) for name in ("number", "rung", "goes_on", "of")}
    known["goals"] = _by_goal(row["goals"], goals)
    keep = row.get("keep")
    if keep is None:
        expected, deviation = row.get("expected"), row.get("deviation")
        return GainDecision(
            **known,
            expected=None if expected is None else _by_goal(expected, goals),
            deviation=None if deviation is None else _by_goal(deviation, goals),
            gain=row.get("gain"),
            gain_of_new=row.get("gain_of_new"),
        )
    return Decision(
        **known,
        rank=row["rank"],
        keep=keep,
        front=row["front"],
        beaten_by=tuple(row["beaten_by"]),
        behind=tuple(row["behind"]),
    )


def _by_goal(values: Mapping[str, float | None], goals: Sequence[str]) -> tuple[float, ...]:
    """The numbers of a map in the goals' order, NaN for null."""
    known = {goal: value for goal, value in dict(values).items() if value is not None}
    return tuple(float(known.get(goal, math.nan)) for goal in goals)
