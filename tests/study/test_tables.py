from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from arat_ray.frontier.dominance import non_dominated
from arat_ray.results import reader
from arat_ray.results.schema import Metadata
from arat_ray.study.tables import StudyTables

METADATA = Metadata(
    study="layers", goals=("clean_accuracy", "robust_accuracy"), reference_point=(0.0, 0.0), revision="4f2a"
)


def rows(folder: Path) -> list[dict[str, Any]]:
    table = pa.concat_tables([pq.ParquetFile(part).read() for part in reader.part_files(folder)])
    return list(table.to_pylist())


def tables(folder: Path, **options: Any) -> StudyTables:
    return StudyTables(folder, params={}, metadata=METADATA, **options)


def trial(name: str, clean: float | None, robust: float | None, **changes: Any) -> dict[str, Any]:
    row = {"trial_id": name, "attempt": 0, "status": "complete", "is_full_fidelity": True}
    return row | {"clean_accuracy": clean, "robust_accuracy": robust} | changes


def on_front(study: Path) -> set[tuple[str, int]]:
    return {(row["trial_id"], row["attempt"]) for row in rows(study / "trials") if row["on_front"]}


def test_epochs_are_on_disk_before_the_trial_that_speaks_of_them(tmp_path: Path) -> None:
    writer = tables(tmp_path)
    os.rename(tmp_path / "epochs", tmp_path / "away")
    writer.epoch({"trial_id": "a", "attempt": 0, "epoch": 0})
    writer.trial(trial("a", 0.8, 0.5))
    with pytest.raises(OSError, match="No such file"):
        writer.flush()
    assert rows(tmp_path / "trials") == []


def test_the_front_is_marked_as_trials_complete(tmp_path: Path) -> None:
    writer = tables(tmp_path)
    steps = [
        (trial("a", 0.80, 0.50), {"a"}),
        (trial("b", 0.70, 0.40), {"a"}),
        (trial("c", 0.90, 0.45), {"a", "c"}),
        (trial("d", 0.99, 0.99, is_full_fidelity=False), {"a", "c"}),
        (trial("e", 0.99, 0.99, status="running"), {"a", "c"}),
        (trial("f", 0.99, None), {"a", "c"}),
        (trial("g", 0.80, 0.50), {"a", "c", "g"}),
        (trial("h", 0.85, 0.51), {"c", "h"}),
    ]
    for row, expected in steps:
        writer.trial(row)
        writer.flush()
        assert {name for name, _ in on_front(tmp_path)} == expected
    assert len(rows(tmp_path / "trials")) == 8
    assert all(row["on_front"] is not None for row in rows(tmp_path / "trials"))


def test_the_marks_are_those_of_the_whole_study_over_parts_and_restarts(tmp_path: Path) -> None:
    draw = random.Random(3)
    points: dict[str, tuple[float, float]] = {}
    writer = tables(tmp_path, part_rows=7)
    for number in range(120):
        name = f"t{number}"
        points[name] = (draw.randrange(12) / 12, draw.randrange(12) / 12)
        writer.trial(trial(name, *points[name]))
        if number % 10 == 9:
            writer.flush()
            mask = non_dominated(list(points.values()))
            expected = {(name, 0) for name, keep in zip(points, mask, strict=True) if keep}
            assert on_front(tmp_path) == expected
        if number % 40 == 39:
            writer = tables(tmp_path, part_rows=7)
            assert writer.pending == 0


def test_a_goal_that_is_no_column_is_refused(tmp_path: Path) -> None:
    metadata = Metadata(study="s", goals=("robust_acuracy",), reference_point=(0.0,), revision="r")
    with pytest.raises(ValueError, match="did you mean 'robust_accuracy'"):
        StudyTables(tmp_path, params={}, metadata=metadata)


def test_a_study_with_other_goals_is_refused(tmp_path: Path) -> None:
    tables(tmp_path)
    metadata = Metadata(study="s", goals=("robust_accuracy",), reference_point=(0.0,), revision="r")
    with pytest.raises(ValueError, match="has results for the goals"):
        StudyTables(tmp_path, params={}, metadata=metadata)
