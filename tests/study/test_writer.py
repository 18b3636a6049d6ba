from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from arat_ray.frontier.dominance import non_dominated
from arat_ray.results import reader
from arat_ray.results.schema import Metadata
from arat_ray.study.writer import StudyWriter

METADATA = Metadata(
    study="layers", goals=("clean_accuracy", "robust_accuracy"), reference_point=(0.0, 0.0), revision="4f2a"
)


def rows(folder: Path) -> list[dict[str, Any]]:
    table = pa.concat_tables([pq.ParquetFile(part).read() for part in reader.part_files(folder)])
    return list(table.to_pylist())


# ---------------------------------------------------------------------------------------------- one table

FULL_DISK = """
import json, pathlib, resource, sys
from arat_ray.results.schema import Metadata
from arat_ray.study.writer import StudyWriter
metadata = Metadata(study="s", goals=("clean_accuracy",), reference_point=(0.0,), revision="r")
warnings = []
writer = StudyWriter(pathlib.Path(sys.argv[1]), params={}, metadata=metadata, warn=warnings.append,
                     flush_s=0, retry_s=(0.0, 0.0))
def epochs(start):
    for epoch in range(start, start + 10):
        writer.epoch({"trial_id": "t", "attempt": 0, "epoch": epoch, "loss_clean": epoch})
epochs(0)
before = writer.flush()
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))  # smaller than any part
epochs(10)
writer.trial({"trial_id": "t", "attempt": 0, "status": "complete"})
full = [writer.flush(), writer.flush(final=True)]
writer.tick()
pending, left = writer.pending, [path.name for path in (writer.study / "epochs").iterdir()]
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
epochs(20)
after = writer.flush()
print(json.dumps([before, full, pending, left, after, writer.pending, warnings]))
"""


def test_a_full_disk_is_survived_and_told_once(tmp_path: Path) -> None:
    output = subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path)], check=True, capture_output=True)
    before, full, pending, left, after, pending_after, warnings = json.loads(output.stdout)
    assert (before, full, after) == (True, [False, False], True)
    assert (pending, pending_after) == (11, 0)
    assert left == ["part-00000.parquet"]
    assert len(warnings) == 2
    assert "File too large" in warnings[0]
    assert "again" in warnings[1]
    assert [row["epoch"] for row in rows(tmp_path / "epochs")] == list(range(30))


# ---------------------------------------------------------------------------------------------- a study


def study_writer(folder: Path, **options: Any) -> StudyWriter:
    return StudyWriter(folder, params={}, metadata=METADATA, **({"warn": pytest.fail} | options))


def trial(name: str, clean: float | None, robust: float | None, **changes: Any) -> dict[str, Any]:
    row = {"trial_id": name, "attempt": 0, "status": "complete", "is_full_fidelity": True}
    return row | {"clean_accuracy": clean, "robust_accuracy": robust} | changes


def on_front(study: Path) -> set[tuple[str, int]]:
    return {(row["trial_id"], row["attempt"]) for row in rows(study / "trials") if row["on_front"]}


def test_a_folder_that_vanishes_and_comes_back_loses_nothing(tmp_path: Path) -> None:
    warnings: list[str] = []
    writer = study_writer(tmp_path / "s", warn=warnings.append, retry_s=(30.0, 60.0))
    writer.trial(trial("a", 0.8, 0.5))
    assert writer.flush()
    os.rename(tmp_path / "s", tmp_path / "away")
    writer.trial(trial("b", 0.9, 0.6))
    writer.epoch({"trial_id": "b", "attempt": 0, "epoch": 0})
    assert not writer.flush()
    assert writer.pending == 3  # a has left the front
    os.rename(tmp_path / "away", tmp_path / "s")
    assert not writer.flush()  # 30 s have not passed
    assert len(rows(tmp_path / "s/trials")) == 1
    assert writer.flush(final=True)
    assert on_front(tmp_path / "s") == {("b", 0)}
    assert len(warnings) == 2


def test_waiting_doubles_until_its_longest(tmp_path: Path) -> None:
    warnings: list[str] = []
    writer = study_writer(tmp_path / "s", warn=warnings.append, retry_s=(0.05, 0.2), flush_s=0.0)
    os.rename(tmp_path / "s", tmp_path / "away")
    writer.epoch({"trial_id": "b", "attempt": 0, "epoch": 0})
    retries: list[float] = []
    while len(retries) < 5:
        writer.tick()
        if writer.disk._retry_at not in retries:
            assert writer.disk._retry_at is not None
            retries.append(writer.disk._retry_at)
    for (before, after), least in zip(pairwise(retries), [0.1, 0.2, 0.2, 0.2], strict=True):
        assert least <= after - before < least + 5
    assert len(warnings) == 1


def test_epochs_are_on_disk_before_the_trial_that_speaks_of_them(tmp_path: Path) -> None:
    warnings: list[str] = []
    writer = study_writer(tmp_path, warn=warnings.append)
    os.rename(tmp_path / "epochs", tmp_path / "away")
    writer.epoch({"trial_id": "a", "attempt": 0, "epoch": 0})
    writer.trial(trial("a", 0.8, 0.5))
    assert not writer.flush()
    assert rows(tmp_path / "trials") == []


def test_tick_writes_only_when_its_time_has_come(tmp_path: Path) -> None:
    writer = study_writer(tmp_path, flush_s=0.1)
    writer.epoch({"trial_id": "a", "attempt": 0, "epoch": 0})
    writer.tick()
    assert writer.pending == 1
    time.sleep(0.11)
    writer.tick()
    assert writer.pending == 0


def test_the_front_is_marked_as_trials_complete(tmp_path: Path) -> None:
    writer = study_writer(tmp_path)
    steps = [
        (trial("a", 0.80, 0.50), {"a"}),
        (trial("b", 0.70, 0.40), {"a"}),
        (trial("c", 0.90, 0.45), {"a", "c"}),
        (trial("d", 0.99, 0.99, is_full_fidelity=False), {"a", "c"}),
        (trial("e", 0.99, 0.99, status="running"), {"a", "c"}),
        (trial("f", 0.99, None), {"a", "c"}),
        (trial("g", 0.80, 0.50), {"a", "c", "g"}),
        (trial("h", 0.85, 0.51), {"c", "h"}),
        (trial("h", 0.70, 0.41), {"a", "c", "g"}),  # corrected: the others come back
        (trial("c", None, None, attempt=1, status="running"), {"a", "g"}),  # tried again
    ]
    for row, expected in steps:
        writer.trial(row)
        assert writer.flush()
        assert {name for name, _ in on_front(tmp_path)} == expected
    assert len(rows(tmp_path / "trials")) == 9
    assert all(row["on_front"] is not None for row in rows(tmp_path / "trials"))


def test_the_marks_are_those_of_the_whole_study_over_parts_and_restarts(tmp_path: Path) -> None:
    draw = random.Random(3)
    points: dict[str, tuple[float, float]] = {}
    writer = study_writer(tmp_path, part_rows=7)
    for number in range(120):
        name = f"t{draw.randrange(80)}"
        points[name] = (draw.randrange(12) / 12, draw.randrange(12) / 12)
        writer.trial(trial(name, *points[name]))
        if number % 10 == 9:
            assert writer.flush()
            mask = non_dominated(list(points.values()))
            expected = {(name, 0) for name, keep in zip(points, mask, strict=True) if keep}
            assert on_front(tmp_path) == expected
        if number % 40 == 39:
            writer = study_writer(tmp_path, part_rows=7)
            assert writer.pending == 0


def test_a_goal_that_is_no_column_is_refused(tmp_path: Path) -> None:
    metadata = Metadata(study="s", goals=("robust_acuracy",), reference_point=(0.0,), revision="r")
    with pytest.raises(ValueError, match="did you mean 'robust_accuracy'"):
        StudyWriter(tmp_path, params={}, metadata=metadata, warn=pytest.fail)


def test_a_study_with_other_goals_is_refused(tmp_path: Path) -> None:
    study_writer(tmp_path)
    metadata = Metadata(study="s", goals=("robust_accuracy",), reference_point=(0.0,), revision="r")
    with pytest.raises(ValueError, match="has results for the goals"):
        StudyWriter(tmp_path, params={}, metadata=metadata, warn=pytest.fail)
