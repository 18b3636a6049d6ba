"""The record of a study in step with its tables: on a full disk, in a folder that vanishes, over restarts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from arat_ray.experiment.spec import Experiment
from arat_ray.results import reader
from arat_ray.results.reading import Reading
from arat_ray.results.table_folder import mark_of
from arat_ray.study.folder import claim
from arat_ray.study.record import StudyRecord
from arat_ray.study.state import trial_id
from tests.disks import fill, small_disk
from tests.study.driving import DrivenTrials, opened

Make = Callable[..., Experiment]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB."""
    yield from small_disk(tmp_path / "disk", mib=1)


def begin(record: StudyRecord, number: int = 0) -> None:
    record.take({"asked": {"number": number, "sampled": {}}})
    key = {"trial_id": trial_id("small", number), "attempt": 1}
    record.take({"started": {**key, "number": number, "status": "running"}})


def report(record: StudyRecord, epochs: range, number: int = 0) -> None:
    for epoch in epochs:
        row = {"trial_id": trial_id("small", number), "attempt": 1, "epoch": epoch, "loss_clean": float(epoch)}
        record.take({"epoch": row})


def end(record: StudyRecord, goals: tuple[float, float], number: int = 0) -> None:
    key = {"trial_id": trial_id("small", number), "attempt": 1, "status": "complete", "is_full_fidelity": True}
    record.take({"ended": {**key, "clean_accuracy": goals[0], "robust_accuracy": goals[1]}})


def epochs_of(study: Path) -> list[int]:
    return [int(row["epoch"]) for row in reader.read(study, "epochs").to_pylist()]


FULL_DISK = """
import json, pathlib, resource, sys
from arat_ray.experiment.spec import Experiment
from tests.study.conftest import EXPERIMENT
from tests.study.test_record import begin, opened, report
told = []
study = pathlib.Path(sys.argv[1])
record = opened(study, Experiment.model_validate(EXPERIMENT), warn=told.append, flush_s=0, retry_s=(0.0, 0.0))
begin(record)
report(record, range(10))
before = record.flush()
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))  # smaller than any part
report(record, range(10, 20))
full = [record.flush(), record.flush(final=True)]
record.tick()
pending, left = record.pending, sorted(path.name for path in (study / "epochs").iterdir())
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
report(record, range(20, 30))
after = record.flush()
print(json.dumps([before, full, pending, left, after, record.pending, told]))
"""


def test_a_full_disk_is_survived_and_told_once(tmp_path: Path) -> None:
    output = subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path)], check=True, capture_output=True)
    before, full, pending, left, after, pending_after, told = json.loads(output.stdout)
    assert (before, full, after) == (True, [False, False], True)
    assert (pending, pending_after) == (20, 0), "ten lines and ten rows"
    assert left == ["part-00000.parquet"]
    assert len(told) == 2
    assert "File too large" in told[0]
    assert "again" in told[1]
    assert epochs_of(tmp_path) == list(range(30))


def test_a_folder_that_vanishes_and_comes_back_loses_nothing(make: Make, tmp_path: Path) -> None:
    told: list[str] = []
    record = opened(tmp_path / "s", make(), warn=told.append, retry_s=(30.0, 60.0))
    begin(record)
    end(record, (0.8, 0.5))
    assert record.flush()
    os.rename(tmp_path / "s", tmp_path / "away")
    begin(record, 1)
    report(record, range(1), 1)
    end(record, (0.9, 0.6), 1)
    assert not record.flush()
    assert not record.save()
    os.rename(tmp_path / "away", tmp_path / "s")
    assert not record.flush(), "30 s have not passed"
    assert reader.read(tmp_path / "s", "trials").num_rows == 1
    assert record.flush(final=True)
    marks = {row["number"]: row["on_front"] for row in reader.read(tmp_path / "s", "trials").to_pylist()}
    assert marks == {0: False, 1: True}
    assert len(told) == 2


def test_waiting_doubles_until_its_longest(make: Make, tmp_path: Path) -> None:
    told: list[str] = []
    record = opened(tmp_path / "s", make(), warn=told.append, retry_s=(0.05, 0.2), flush_s=0.0)
    begin(record)
    os.rename(tmp_path / "s", tmp_path / "away")
    retries: list[float] = []
    while len(retries) < 5:
        record.tick()
        if record.disk._retry_at is not None and record.disk._retry_at not in retries:
            retries.append(record.disk._retry_at)
    for (before, after), least in zip(pairwise(retries), [0.1, 0.2, 0.2, 0.2], strict=True):
        assert least <= after - before < least + 5
    assert len(told) == 1


def test_each_part_says_whose_it_is_also_where_the_first_rows_fill_more_than_one(make: Make, tmp_path: Path) -> None:
    record = opened(tmp_path, make(), part_rows=2, flush_s=60.0)
    begin(record)
    report(record, range(5))
    assert record.flush()
    parts = reader.part_files(tmp_path / "epochs")
    assert len(parts) == 3
    assert {mark_of(reader.part_schema(part)).partition(":")[0] for part in parts} == {record.segments.record}


def test_tick_writes_only_when_its_time_has_come(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    record = opened(tmp_path, make(), flush_s=0.5)
    begin(record)
    for passed, is_written in ((0.4, False), (0.2, True)):
        now[0] += passed
        record.tick()
        assert (record.pending == 0) == is_written


def test_the_record_is_on_disk_before_the_tables_and_these_catch_up(make: Make, tmp_path: Path) -> None:
    killed = opened(tmp_path, make())
    begin(killed)
    report(killed, range(3))
    assert killed.save()
    assert (epochs_of(tmp_path), reader.read(tmp_path, "trials").num_rows) == ([], 0)
    resumed = opened(tmp_path, make(), warn=pytest.fail)
    assert resumed.state.trials[0].epochs == {0: 1, 1: 1, 2: 1}
    assert resumed.flush()
    assert (epochs_of(tmp_path), reader.read(tmp_path, "trials").num_rows) == ([0, 1, 2], 1)


def test_a_start_brings_the_tables_to_where_the_record_is_though_nothing_follows(make: Make, tmp_path: Path) -> None:
    killed = opened(tmp_path, make())
    begin(killed)
    report(killed, range(2))
    assert killed.flush()
    report(killed, range(2, 3))
    end(killed, (0.9, 0.5))
    assert killed.save()
    (row,) = reader.read(tmp_path, "trials").to_pylist()
    assert (epochs_of(tmp_path), row["status"]) == ([0, 1], "running")
    with claim(tmp_path, make(), tmp_path / "study.yaml", kind="tune", resume=True) as resumed:
        assert resumed.pending == 0
    (row,) = reader.read(tmp_path, "trials").to_pylist()
    assert (epochs_of(tmp_path), row["status"], row["on_front"]) == ([0, 1, 2], "complete", True)


@pytest.mark.parametrize("saved", [0, 1, 5, 13, 29])
def test_a_study_killed_anywhere_goes_on_over_small_parts_and_segments(make: Make, tmp_path: Path, saved: int) -> None:
    options: dict[str, Any] = {"part_rows": 4, "segment_bytes": 1200}
    record = opened(tmp_path, make(), **options)
    for number in range(4):
        begin(record, number)
        for epoch in range(8):
            report(record, range(epoch, epoch + 1), number)
            if number * 8 + epoch == saved:
                assert record.flush()
        end(record, (0.5 + number / 10, 0.9 - number / 10), number)
    assert record.save()
    expected = record.state
    resumed = opened(tmp_path, make(), warn=pytest.fail, **options)
    assert resumed.state.trials == expected.trials
    assert resumed.state.front.points == expected.front.points
    assert resumed.state.spent == expected.spent
    assert resumed.flush()
    assert epochs_of(tmp_path) == [*range(8)] * 4
    rows = reader.read(tmp_path, "trials").to_pylist()
    assert [(row["number"], row["status"], row["on_front"]) for row in rows] == [
        (number, "complete", True) for number in range(4)
    ]
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.parquet")}
    assert opened(tmp_path, make(), warn=pytest.fail, **options).flush()
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.parquet")} == before


def test_trials_go_on_over_a_full_disk_and_nothing_of_them_is_lost(make: Make, disk: Path) -> None:
    told: list[str] = []
    trials = DrivenTrials(disk, make(), warn=told.append)
    trials.complete(trials.ask().number, [0.9, 0.4])
    fill(disk)
    for number in range(1, 20):
        assert trials.ask().number == number
        trials.complete(number, [0.5, 0.5])
    assert trials.ended() == set(range(20))
    assert trials.record.pending
    assert not trials.record.flush(final=True)
    assert len(told) == 1
    assert "No space left on device" in told[0]
    assert list(Reading(disk / "journal")), "a whole beginning: it can be read"
    (disk / "ballast").unlink()
    assert trials.record.flush(final=True)
    assert "had waited" in told[1]
    assert DrivenTrials(disk, make()).ended() == set(range(20))


def test_a_process_killed_while_the_disk_was_full_leaves_a_study_that_goes_on(make: Make, disk: Path) -> None:
    died = DrivenTrials(disk, make(), warn=lambda text: None)
    died.complete(died.ask().number, [0.9, 0.4])
    running = died.ask()
    fill(disk)
    for _ in range(20):
        died.ask()
    del died
    (disk / "ballast").unlink()
    resumed = DrivenTrials(disk, make())
    assert resumed.ended() == {0}
    assert resumed.ask() == running


def test_an_event_that_cannot_follow_or_that_no_table_holds_is_refused(make: Make, tmp_path: Path) -> None:
    record = opened(tmp_path, make())
    with pytest.raises(ValueError, match="never asked for"):
        report(record, range(1))
    begin(record)
    with pytest.raises(ValueError, match="no column 'los'"):
        record.take({"epoch": {"trial_id": "small-00000", "attempt": 1, "epoch": 1, "los": 1.0}})
    assert record.flush()
    assert [line.kind for line in Reading(tmp_path / "journal")] == [b"study", b"asked", b"started"]
