"""`results show`: a study at a glance."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from arat_ray.cli import main
from arat_ray.experiment.spec import Budget
from arat_ray.report.overview import FAILURES
from arat_ray.results.schema import Metadata
from arat_ray.study.tables import StudyTables
from tests.frontier.tables import evaluated

METADATA = Metadata(
    study="small", goals=("clean_accuracy", "robust_accuracy"), reference_point=(0.0, 0.0), revision="4f2a"
)
COMPLETE = {"status": "complete", "is_full_fidelity": True, "device_s": 1800.0, "cost_usd": 1.0}
MEASURED = {"attack": "pgd-20", "norm": "linf", "epsilon": 8 / 255, "split": "validation", "images": 5000}


def write(folder: Path, *rows: dict[str, Any], budget: int = 5, kind: str = "tune", **limits: float) -> Path:
    study = folder / "small"
    writer = StudyTables(study, params={}, metadata=METADATA)
    for number, row in enumerate(rows):
        writer.trial({"trial_id": f"small-{number:05d}", "attempt": 1, "number": number, **MEASURED, **row})
        writer.epoch({"trial_id": f"small-{number:05d}", "attempt": 1, "epoch": 1})
    writer.flush()
    started = ["2026-11-22T10:00:00+00:00", "2026-11-22T12:00:00+00:00"]
    described: dict[str, Any] = {"name": "small", "kind": kind, "started_at": started}
    described["experiment"] = {"budget": {"trials": budget, "max_failures": 5, "hours": None} | limits}
    (study / "study.json").write_text(json.dumps(described))
    return study


def show(study: Path, *options: str) -> str:
    result = CliRunner().invoke(main, ["results", "show", str(study), *options])
    assert result.exit_code == 0, result.output
    return result.output


def test_all_that_a_finished_study_holds_is_shown(tmp_path: Path) -> None:
    study = write(
        tmp_path,
        {**COMPLETE, "clean_accuracy": 0.9, "robust_accuracy": 0.4},
        {**COMPLETE, "clean_accuracy": 0.8, "robust_accuracy": 0.5},
        {**COMPLETE, "clean_accuracy": 0.7, "robust_accuracy": 0.3},
        {"status": "failed", "error": "the loss became nan in epoch 12", "device_s": 0.0},
        {"status": "failed", "error": "the loss became nan in epoch 3", "device_s": 0.0},
    )
    evaluated(study, "small-00000", clean=900, robust=350)
    assert show(study).splitlines() == [
        f"{study}: complete; started 2026-11-22 10:00:00 UTC, last 2026-11-22 12:00:00 UTC (2 times)",
        "trials: 5 of 5: 3 complete, 2 failed",
        "best: clean accuracy 90.0 % (trial 0), robust accuracy 50.0 % (trial 1)",
        "front: 2 trials, hypervolume 0.4400; pgd-20 linf 8/255, validation, 5,000 images",
        "cost: 1.5 device-hours, 3.00 usd",
        "failed: 2, as trial 3: the loss became nan in epoch 12",
        "evaluated: 1 checkpoint(s) under autoattack linf 8/255, test, 1,000 images",
        "rows: trials 5, epochs 5, evaluations 2",
        f"next: arat-ray results trials {study} --status failed",
        f"next: arat-ray pareto {study} --plot front.png",
        f"next: arat-ray confirm {study} --seeds 3",
    ]
    found = json.loads(show(study, "--json"))
    assert found["hypervolume"] == pytest.approx(0.44)
    assert found["best"]["robust_accuracy"] == {"value": 0.5, "number": 1}
    assert found["trials"] == {"complete": 3, "failed": 2}


def test_what_goes_on_keeps_the_limits_that_the_search_was_given(tmp_path: Path) -> None:
    study = write(tmp_path, {"status": "stopped"}, usd=50.0, gain=0.001, max_failures=50)
    assert Budget().max_failures == FAILURES, "which goes without saying"
    limits = "--trials 5 --budget-usd 50.0 --gain 0.001 --max-failures 50"
    go_on = f"{study}/study.yaml --results {tmp_path} {limits} --resume"
    assert f"next: arat-ray tune {go_on}" in show(study).splitlines()


def test_the_state_is_told_by_the_lock_the_trials_and_the_budget(tmp_path: Path) -> None:
    study = write(tmp_path, {**COMPLETE, "clean_accuracy": 0.9, "robust_accuracy": 0.4}, {"status": "stopped"})
    assert show(study).splitlines()[0].startswith(f"{study}: interrupted;")
    go_on = f"next: arat-ray tune {study}/study.yaml --results {tmp_path} --trials 5 --resume"
    assert go_on in show(study).splitlines()
    with (study / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert json.loads(show(study, "--json"))["state"] == "running"
        assert "--resume" not in show(study)
    assert json.loads(show(study, "--json"))["state"] == "interrupted"
    few = write(tmp_path / "few", {**COMPLETE, "clean_accuracy": 0.9, "robust_accuracy": 0.4}, budget=2)
    assert json.loads(show(few, "--json"))["state"] == "interrupted"
    single = write(tmp_path / "one", {**COMPLETE, "clean_accuracy": 0.9, "robust_accuracy": 0.4}, kind="train")
    assert json.loads(show(single, "--json"))["state"] == "complete"
    assert "next: arat-ray evaluate" in show(single)


def test_a_study_in_which_nothing_has_ended_yet_is_shown(tmp_path: Path) -> None:
    study = write(tmp_path, {"status": "running"})
    (study / "study.json").unlink()
    assert show(study).splitlines()[1:] == [
        "trials: 1: 1 running",
        "best: nothing complete yet",
        "cost: 0 device-hours",
        "rows: trials 1, epochs 1",
    ]
