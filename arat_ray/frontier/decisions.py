"""Decisions of early stopping as rows of the `decisions` table, and back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from arat_ray.frontier.halving import Decision
from arat_ray.results import reader
from arat_ray.results.rows import DecisionRow


def as_row(decision: Decision, *, trial_id: str, goals: Sequence[str], order: int) -> DecisionRow:
    """The row of a decision that is made now, the study's `order`-th from 0."""
    return {
        "trial_id": trial_id,
        "rung": decision.rung,
        "order": order,
        "number": decision.number,
        "goals": dict(zip(goals, decision.goals, strict=True)),
        "goes_on": decision.goes_on,
        "rank": decision.rank,
        "of": decision.of,
        "keep": decision.keep,
        "front": decision.front,
        "beaten_by": list(decision.beaten_by),
        "behind": list(decision.behind),
        "why": decision.why,
        "decided_at": datetime.now(UTC),
    }


def of_rows(rows: Iterable[DecisionRow], goals: Sequence[str]) -> list[Decision]:
    """Decisions in the order in which they were made."""
    return [_decision(row, goals) for row in sorted(rows, key=lambda row: row["order"])]


def read(study: Path) -> list[Decision]:
    """The decisions of a study in the order in which they were made; empty where it has none."""
    if not reader.part_files(study / "decisions"):
        return []
    return of_rows(reader.read(study, "decisions").to_pylist(), reader.metadata(study).goals)


def _decision(row: DecisionRow, goals: Sequence[str]) -> Decision:
    values = dict(row["goals"])
    return Decision(
        number=row["number"],
        rung=row["rung"],
        goals=tuple(math.nan if values.get(goal) is None else float(values[goal] or 0.0) for goal in goals),
        goes_on=row["goes_on"],
        rank=row["rank"],
        of=row["of"],
        keep=row["keep"],
        front=row["front"],
        beaten_by=tuple(row["beaten_by"]),
        behind=tuple(row["behind"]),
    )
