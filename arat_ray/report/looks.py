"""What the author of a paper decides about the figure of a front: title, size, labels, colours, reference points."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from arat_ray.frontier import attributes, references
from arat_ray.frontier.attributes import STUDY, Key
from arat_ray.frontier.pareto import Front
from arat_ray.frontier.references import Reference
from arat_ray.report.figure_style import SIZE
from arat_ray.results.schema import ACCURACIES

SMALLEST, LARGEST = 1.0, 40.0
"""Inches."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """`size` is in inches; `labels` name studies, by their path; where `values` has what each trial is coloured by,
    `by` says what that is. References are drawn beside the front."""

    title: str | None = None
    size: tuple[float, float] = SIZE
    labels: Mapping[str, str] = field(default_factory=dict)
    by: str | None = None
    values: Mapping[Key, Any] | None = None
    references: Sequence[Reference] = ()


PLAIN = Look()


def look(
    studies: Sequence[Path],
    *,
    title: str | None = None,
    labels: Sequence[str] = (),
    size: str | None = None,
    by: str | None = None,
    references: Sequence[Reference] = (),
) -> Look:
    """For a front of these studies. Several have a colour each, unless trials are coloured by something else.

    ValueError where labels are not as many as studies, and for a size or a column that is none.
    """
    if labels and len(labels) != len(studies):
        raise ValueError(f"--label: {len(labels)} for {len(studies)} studies; give one a study, in their order")
    by = by or (STUDY if len(studies) > 1 else None)
    return Look(
        title=title,
        size=SIZE if size is None else size_of(size),
        labels=dict(zip((f"{study}" for study in studies), labels, strict=False)),
        by=by,
        values=None if by is None else attributes.values(studies, by),
        references=references,
    )


def size_of(words: str) -> tuple[float, float]:
    """Inches, from `3.5x2.6`. ValueError where that is no size."""
    number = r"(\d+(?:\.\d+)?|\.\d+)"
    match = re.fullmatch(rf"\s*{number}\s*[xX]\s*{number}\s*(?:in)?\s*", words)
    if match is None or not all(SMALLEST <= float(side) <= LARGEST for side in match.groups()):
        raise ValueError(
            f"--size: {words!r} is no width and height in inches from {SMALLEST:g} to {LARGEST:g}; write it as 3.5x2.6"
        )
    return float(match[1]), float(match[2])


def references_for(which: str, front: Front, studies: Sequence[Path]) -> tuple[list[Reference], list[str]]:
    """Of the published points (`published`), or a user's file, those measured like the front, and in words why the
    others are left out. ValueError where none was."""
    if not set(front.goals) <= set(ACCURACIES):
        raise ValueError(f"--reference: published points are accuracies, and the goals are {', '.join(front.goals)}")
    measured = {name: getattr(front, name, None) for name in references.CONDITIONS}
    measured["dataset"] = attributes.dataset(studies)
    return references.demanded(references.load(which), measured)
