"""Records of evaluations: what `arat-ray evaluate` measured, a sealed segment for each evaluation.

They come from other processes than the one that keeps the study's record, so each is a file of its own, in
`journal/evaluations/`, written before the tables. Its events are rows: `evaluation`, then `example`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from arat_ray.results.reading import Damage, Reading
from arat_ray.results.rows import EvaluationRow, ExampleRow
from arat_ray.results.segments import CLOSED, line, write_sealed

FOLDER = Path("journal") / "evaluations"
TABLE_OF = {b"evaluation": "evaluations", b"example": "examples"}


def write(study: Path, evaluations: Sequence[EvaluationRow], examples: Iterable[ExampleRow], *, name: str = "") -> None:
    """Keep the rows of one evaluation, under the id of its examples; OSError where that cannot be written."""
    name = name or evaluations[-1]["evaluation_id"]
    (study / FOLDER).mkdir(parents=True, exist_ok=True)
    events: list[Mapping[str, Any]] = [{"segment": {"record": name, "number": 0}}]
    events += [{"evaluation": row} for row in evaluations]
    events += [{"example": row} for row in examples]
    lines = b"".join(line(event, max(number - 1, 0)) for number, event in enumerate(events))
    write_sealed(study / FOLDER / f"{name}{CLOSED}", lines)


def read(
    study: Path, damaged: Callable[[Damage], None] | None = None
) -> Iterator[tuple[str, EvaluationRow | ExampleRow]]:
    """The table and the row of each line of all evaluations, the oldest evaluation first.

    `damaged` gets what is not as it should be; without one it is a ValueError.
    """
    for path in files(study):
        for each in Reading(path.parent, damaged).one(path):
            if each.kind in TABLE_OF:
                yield TABLE_OF[each.kind], each.event[each.kind.decode()]


def files(study: Path) -> list[Path]:
    """The records of evaluations, the oldest first."""
    there = (study / FOLDER).glob(f"*{CLOSED}")
    return sorted((path for path in there if not path.name.startswith(".")), key=_age)


def _age(path: Path) -> tuple[int, str]:
    return path.stat().st_mtime_ns, path.name


def damages(path: Path) -> list[Damage]:
    """What is not as it should be in the record of an evaluation."""
    found: list[Damage] = []
    for _ in Reading(path.parent, found.append).one(path):
        pass
    return found
