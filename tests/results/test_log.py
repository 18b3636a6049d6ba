"""The log behind the tables: whole lines, once each, whatever happens while they are written."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from arat_ray.results import log
from arat_ray.results.log import RowLog
from arat_ray.results.rows import EvaluationRow


def epoch(number: int) -> dict[str, object]:
    return {"trial_id": "t", "attempt": 1, "epoch": number, "loss_clean": None}


def epochs(study: Path) -> list[int]:
    return [entry.row["epoch"] for entry in log.read(study)]


def test_rows_come_back_as_they_were_without_what_is_null(tmp_path: Path) -> None:
    began = datetime(2026, 11, 22, 10, 0, 0, 5, tzinfo=UTC)
    written = RowLog(tmp_path)
    assert written.is_empty
    written.take("epochs", {**epoch(1), "gradient_cosine_by_layer": {"conv1": -0.5}, "epoch_s": np.float32(0.5)})
    written.take(
        "decisions", {"trial_id": "t", "rung": 1, "decided_at": began, "goals": {"clean_accuracy": float("nan")}}
    )
    assert list(log.read(tmp_path)) == []  # only a flush puts them on disk
    written.flush()
    first, second = log.read(tmp_path)
    layers = {"gradient_cosine_by_layer": {"conv1": -0.5}, "epoch_s": 0.5}
    assert first[:3] == ("epochs", "row", {"trial_id": "t", "attempt": 1, "epoch": 1, **layers})
    assert datetime.fromisoformat(second.row["decided_at"]) == began
    assert np.isnan(second.row["goals"]["clean_accuracy"])
    assert not RowLog(tmp_path).is_empty


def test_of_a_trial_that_goes_on_only_what_changed_is_logged(tmp_path: Path) -> None:
    written, row = RowLog(tmp_path), {"trial_id": "t", "attempt": 1, "config": "{}", "status": "running", "error": "e"}
    written.take_trial(row)
    written.take_trial(row)
    written.take_trial(row | {"epochs_done": 1, "error": None})
    written.take_trial(row | {"epochs_done": 1, "error": None, "status": "complete"})
    written.take_trial(row)  # it ended, and begins anew
    written.flush()
    assert [(entry.kind, entry.row) for entry in log.read(tmp_path)] == [
        ("row", row),
        ("change", {"trial_id": "t", "attempt": 1, "epochs_done": 1, "error": None}),
        ("change", {"trial_id": "t", "attempt": 1, "status": "complete"}),
        ("row", row),
    ]


def test_full_files_are_compressed_and_read_in_order_also_after_a_restart(tmp_path: Path) -> None:
    for first in (0, 10):
        written = RowLog(tmp_path, segment_bytes=200)
        for number in range(first, first + 10):
            written.take("epochs", epoch(number))
            written.flush()
    names = sorted(path.name for path in (tmp_path / "journal").iterdir())
    assert len(names) > 3
    assert names[0] == "rows-00000.jsonl.gz"
    assert epochs(tmp_path) == list(range(20))
    again = gzip.decompress((tmp_path / "journal" / names[0]).read_bytes())
    (tmp_path / "journal/rows-00000.jsonl").write_bytes(again)  # killed before the plain file was removed
    assert epochs(tmp_path) == list(range(20))


def test_half_lines_are_skipped_and_what_follows_them_is_not(tmp_path: Path) -> None:
    written = RowLog(tmp_path)
    for number in range(3):
        written.take("epochs", epoch(number))
    written.flush()
    path = tmp_path / "journal/rows-00000.jsonl"
    path.write_bytes(path.read_bytes()[:-5])  # the machine went down
    resumed = RowLog(tmp_path)
    resumed.take("epochs", epoch(3))
    resumed.flush()
    assert epochs(tmp_path) == [0, 1, 3]


def test_of_a_damaged_compressed_file_what_comes_before_the_damage_is_read(tmp_path: Path) -> None:
    written = RowLog(tmp_path, segment_bytes=100_000)
    for number in range(2000):
        written.take("epochs", epoch(number) | {"loss_clean": np.sin(number)})
    written.flush()
    path = tmp_path / "journal/rows-00000.jsonl.gz"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    found = epochs(tmp_path)
    assert found == list(range(len(found)))
    assert 500 < len(found) < 2000


FULL_DISK = """
import json, pathlib, resource, sys
from arat_ray.results.log import RowLog
written = RowLog(pathlib.Path(sys.argv[1]))
def flush(number):
    written.take("epochs", {"trial_id": "t", "attempt": 1, "epoch": number})
    try:
        written.flush()
    except OSError:
        return False
    return True
done = [flush(0)]
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))  # within the second line
done += [flush(1), flush(2)]
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(json.dumps([*done, flush(3)]))
"""


def test_a_full_disk_leaves_no_half_line_and_loses_none(tmp_path: Path) -> None:
    output = subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path)], check=True, capture_output=True)
    assert json.loads(output.stdout) == [True, False, False, True]
    assert epochs(tmp_path) == [0, 1, 2, 3]


def test_evaluations_are_kept_each_in_a_file_of_its_own(tmp_path: Path) -> None:
    for name in ("b", "a"):
        rows: list[EvaluationRow] = [{"evaluation_id": f"{name}-none"}, {"evaluation_id": f"{name}-pgd-20"}]
        log.log_evaluation(tmp_path, rows, [{"evaluation_id": f"{name}-pgd-20", "index": 3}])
    (tmp_path / log.EVALUATIONS / "b-pgd-20.json.gz").write_bytes(b"half a file")
    found = [(entry.table, entry.row["evaluation_id"]) for entry in log.read_evaluations(tmp_path)]
    assert found == [("evaluations", "a-none"), ("evaluations", "a-pgd-20"), ("examples", "a-pgd-20")]


@pytest.mark.parametrize("folder", ["", "journal"])
def test_a_study_without_a_log_has_no_lines(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir(exist_ok=True)
    assert list(log.read(tmp_path)) == list(log.read_evaluations(tmp_path)) == []
