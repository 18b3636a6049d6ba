"""The recorder: every measurement becomes a row, once, and is on disk before anybody hears of it."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from arat_ray.experiment.spec import Experiment
from arat_ray.results import reader
from arat_ray.study.progress import Progress
from arat_ray.study.recorder import Recorder
from tests.study.conftest import EXPERIMENT
from tests.study.driving import opened

Make = Callable[..., Experiment]
SAMPLED = {"method.invariance_weight": 2.0, "method.layers": "two"}


class Witness:
    """Hears how trials ended and looks at the disk at that moment."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.heard = folder, list[tuple[Any, ...]]()

    def _look(self, number: int) -> tuple[str, int]:
        name = f"small-{number:05d}"
        status = [row["status"] for row in reader.read(self.folder, "trials").to_pylist() if row["trial_id"] == name]
        epochs = [row for row in reader.read(self.folder, "epochs").to_pylist() if row["trial_id"] == name]
        return status[-1], len(epochs)

    def complete(self, number: int, goals: list[float], violations: Mapping[str, float]) -> None:
        self.violations = violations
        self.heard.append(("complete", number, goals, *self._look(number)))

    def prune(self, number: int, reason: str, curve: dict[str, list[Any]]) -> None:
        self.heard.append(("prune", number, reason, curve, *self._look(number)))

    def fail(self, number: int, reason: str) -> None:
        self.heard.append(("fail", number, reason, *self._look(number)))

    def put_back(self, number: int) -> None:
        self.heard.append(("put_back", number, *self._look(number)))


def open_study(folder: Path, experiment: Experiment) -> tuple[Recorder, Witness, io.StringIO]:
    shown = io.StringIO()
    console = Console(file=shown, width=200)
    progress = Progress(console, goals=experiment.maximize, total=experiment.trials, ended=0, epochs=2)
    witness = Witness(folder)
    return Recorder(experiment, opened(folder, experiment, warn=pytest.fail), witness, progress), witness, shown


def message(
    epoch: int, *, replayed: bool = False, measured: bool = True, clean: float = 0.9, robust: float = 0.5
) -> dict[str, Any]:
    row: dict[str, Any] = {"epoch": epoch, "loss_clean": 1.0 / epoch, "learning_rate": 0.1, "epoch_s": 1.0}
    if measured:
        row |= {"validation_clean_accuracy": clean, "validation_robust_accuracy": robust, "validation_images": 1000}
    return {"row": row, "replayed": replayed, "device": "cpu", "peak_memory_gib": 0.1}


def test_rows_are_on_disk_before_anybody_hears_of_the_end(make: Make, tmp_path: Path) -> None:
    experiment = make()
    recorder, witness, shown = open_study(tmp_path, experiment)
    recorder.start(0, SAMPLED, experiment.resolve(SAMPLED))
    recorder.report(0, message(1))
    recorder.report(0, message(2, clean=0.8))
    recorder.end(0)
    assert witness.heard == [("complete", 0, [0.8, 0.5], "complete", 2)]
    (row,) = reader.read(tmp_path, "trials").to_pylist()
    assert row["param_method.invariance_weight"] == 2.0
    assert row["param_method.layers"] == "two"
    assert (row["attack"], row["norm"], row["epsilon"], row["split"]) == ("pgd-1", "linf", 0.2, "validation")
    assert (row["images"], row["epochs_done"], row["is_full_fidelity"], row["on_front"]) == (1000, 2, True, True)
    assert row["checkpoint"] == "checkpoints/small-00000/last.pt"
    assert row["ended_at"] >= row["started_at"]
    assert "trial 0 complete: clean accuracy 80.0 %, robust accuracy 50.0 %" in shown.getvalue()


def test_a_trial_that_gave_up_is_failed_with_its_reason(make: Make, tmp_path: Path) -> None:
    experiment = make()
    recorder, witness, shown = open_study(tmp_path, experiment)
    recorder.start(0, SAMPLED, experiment.resolve(SAMPLED))
    recorder.report(0, {"failed": "the loss became nan"})
    recorder.end(0)
    assert witness.heard == [("fail", 0, "the loss became nan", "failed", 0)]
    (row,) = reader.read(tmp_path, "trials").to_pylist()
    assert row["error"] == "the loss became nan"
    assert not row["on_front"]
    assert recorder.failed == 1
    assert "trial 0 failed: the loss became nan" in shown.getvalue()


def test_a_trial_stopped_before_its_last_epoch_is_put_back(make: Make, tmp_path: Path) -> None:
    experiment = make()
    recorder, witness, _ = open_study(tmp_path, experiment)
    recorder.start(0, SAMPLED, experiment.resolve(SAMPLED))
    recorder.report(0, message(1))
    assert recorder.close("budget of 1 hours is over")
    assert witness.heard == [("put_back", 0, "stopped", 1)]
    (row,) = reader.read(tmp_path, "trials").to_pylist()
    assert row["stop_reason"] == "budget of 1 hours is over"
    assert not row["is_full_fidelity"]


def test_a_resumed_trial_keeps_its_attempt_and_its_rows_once(make: Make, tmp_path: Path) -> None:
    experiment = make()
    killed, _, _ = open_study(tmp_path, experiment)
    killed.start(0, SAMPLED, experiment.resolve(SAMPLED))
    killed.report(0, message(1))
    killed.record.flush()
    (before,) = reader.read(tmp_path, "trials").to_pylist()
    resumed, witness, _ = open_study(tmp_path, experiment)
    resumed.start(0, SAMPLED, experiment.resolve(SAMPLED))
    resumed.report(0, message(1, replayed=True))
    resumed.report(0, message(2))
    resumed.end(0)
    assert witness.heard == [("complete", 0, [0.9, 0.5], "complete", 2)]
    rows = reader.read(tmp_path, "epochs").to_pylist()
    assert [(row["attempt"], row["epoch"]) for row in rows] == [(1, 1), (1, 2)]
    (trial,) = reader.read(tmp_path, "trials").to_pylist()
    assert trial["started_at"] == before["started_at"]
    assert trial["train_s"] >= before["train_s"]


def test_a_replayed_row_that_never_reached_the_disk_is_written_now(make: Make, tmp_path: Path) -> None:
    experiment = make()
    recorder, _, _ = open_study(tmp_path, experiment)
    recorder.start(0, SAMPLED, experiment.resolve(SAMPLED))
    recorder.report(0, message(1, replayed=True))
    recorder.report(0, message(2, replayed=True))
    recorder.end(0)
    assert [row["epoch"] for row in reader.read(tmp_path, "epochs").to_pylist()] == [1, 2]


def test_a_lost_worker_is_another_attempt(make: Make, tmp_path: Path) -> None:
    experiment = make()
    recorder, witness, _ = open_study(tmp_path, experiment)
    recorder.start(0, SAMPLED, experiment.resolve(SAMPLED))
    recorder.report(0, message(1))
    recorder.retry(0, "the node died")
    recorder.start(0, SAMPLED, experiment.resolve(SAMPLED))
    recorder.report(0, message(1, replayed=True))
    recorder.report(0, message(2))
    recorder.end(0)
    assert [heard[0] for heard in witness.heard] == ["complete"]
    trials = reader.read(tmp_path, "trials").to_pylist()
    assert [(row["attempt"], row["status"], row["error"]) for row in trials] == [
        (1, "failed", "the node died"),
        (2, "complete", None),
    ]
    assert trials[1]["started_at"] >= trials[0]["ended_at"] > trials[0]["started_at"]
    epochs = reader.read(tmp_path, "epochs").to_pylist()
    assert [(row["attempt"], row["epoch"]) for row in epochs] == [(1, 1), (2, 2)]


@pytest.mark.parametrize(
    ("choose", "goals", "kept"), [("last", [0.9, 0.3], "last.pt"), ("best", [0.7, 0.6], "best.pt")]
)
def test_a_trial_reports_its_last_or_its_most_robust_measurement(
    make: Make, tmp_path: Path, choose: str, goals: list[float], kept: str
) -> None:
    experiment = make(validate={**EXPERIMENT["validate"], "choose": choose})
    recorder, witness, _ = open_study(tmp_path, experiment)
    recorder.start(0, SAMPLED, experiment.resolve(SAMPLED))
    recorder.report(0, message(1, clean=0.7, robust=0.6))
    recorder.report(0, message(2, clean=0.9, robust=0.3))
    recorder.end(0)
    assert witness.heard[-1][:3] == ("complete", 0, goals)
    (row,) = reader.read(tmp_path, "trials").to_pylist()
    assert (row["checkpoint"], row["epochs_done"]) == (f"checkpoints/small-00000/{kept}", 2)
    assert row["is_full_fidelity"]


def test_diagnostics_land_in_the_epochs_table_with_each_layer(make: Make, tmp_path: Path) -> None:
    experiment = make()
    recorder, _, _ = open_study(tmp_path, experiment)
    recorder.start(0, SAMPLED, experiment.resolve(SAMPLED))
    measured = message(1)
    measured["row"] |= {"gradient_cosine": -0.2, "gradient_cosine_by_layer": {"conv1": -0.5, "conv2": 0.1}}
    recorder.report(0, measured)
    recorder.report(0, message(2))
    recorder.end(0)
    first, second = reader.read(tmp_path, "epochs").to_pylist()
    assert first["gradient_cosine"] == -0.2
    assert dict(first["gradient_cosine_by_layer"]) == {"conv1": -0.5, "conv2": 0.1}
    assert second["gradient_cosine"] is None
    assert second["gradient_cosine_by_layer"] is None


def test_what_is_spent_is_counted_once_a_second(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment, now = make(), [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    recorder, _, _ = open_study(tmp_path, experiment)
    recorder.start(0, SAMPLED, experiment.resolve(SAMPLED))
    counted = []
    for moment in (100.5, 100.9, 101.5, 102.0):
        now[0] = moment
        recorder.tick()
        counted.append(recorder.watch.device_s)
    assert counted == [0.0, 0.0, 1.5, 1.5]


def test_an_interruption_is_on_disk_before_any_of_it_is_shown(make: Make, tmp_path: Path) -> None:
    experiment = make()
    recorder, witness, shown = open_study(tmp_path, experiment)
    for number in range(3):
        recorder.start(number, SAMPLED, experiment.resolve(SAMPLED))
    statuses: list[list[str]] = []

    def write(text: str) -> int:
        statuses.append([row["status"] for row in reader.read(tmp_path, "trials").to_pylist()])
        return len(text)

    shown.write = write  # type: ignore[method-assign]
    assert recorder.close("interrupted")
    assert statuses[0] == ["stopped"] * 3
    assert [heard[:3] for heard in witness.heard] == [("put_back", number, "stopped") for number in range(3)]
