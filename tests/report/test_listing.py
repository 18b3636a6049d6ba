"""`results trials`: one line a trial."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from click.testing import CliRunner

from arat_ray.cli import main
from arat_ray.results.schema import Metadata
from arat_ray.study.tables import StudyTables

METADATA = Metadata(
    study="small", goals=("clean_accuracy", "robust_accuracy"), reference_point=(0.0, 0.0), revision="4f2a"
)
MEASURED = {"attack": "pgd-20", "norm": "linf", "epsilon": 8 / 255, "split": "validation", "images": 5000}
TRIALS: list[dict[str, Any]] = [
    {"number": 2, "clean_accuracy": 0.9, "robust_accuracy": 0.4, "param_method.beta": 6.0, "status": "complete"},
    {"number": 0, "clean_accuracy": 0.8, "robust_accuracy": 0.5, "param_method.beta": 1.0, "status": "complete"},
    {"number": 1, "status": "failed", "attempt": 1, "error": "node lost"},
    {"number": 1, "status": "failed", "attempt": 2, "error": "the loss became nan in epoch 3; " + 60 * "x"},
    {"number": 3, "status": "running", "clean_accuracy": 0.7, "robust_accuracy": float("nan")},
]


@pytest.fixture
def study(tmp_path: Path) -> Path:
    params = {"method.beta": pa.float64(), "batch_size": pa.int64()}
    writer = StudyTables(tmp_path / "small", params=params, metadata=METADATA)
    for row in TRIALS:
        fixed = {"trial_id": f"small-{row['number']:05d}", "attempt": 1, "is_full_fidelity": True, "config": "{}"}
        writer.trial({**fixed, **MEASURED, **row})
    writer.flush()
    return tmp_path / "small"


def trials(study: Path, *options: str, code: int = 0) -> str:
    result = CliRunner().invoke(main, ["results", "trials", str(study), *options])
    assert result.exit_code == code, result.output
    return result.output


def numbers(study: Path, *options: str) -> list[int]:
    return [row["number"] for row in json.loads(trials(study, "--json", *options))]


def test_a_line_a_trial_with_the_conditions_above_and_no_empty_column(study: Path) -> None:
    lines = trials(study).splitlines()
    head = " ".join(" ".join(lines[:-5]).split())
    assert "pgd-20 linf" in head
    assert "batch_size" not in head
    assert [line.split()[:2] for line in lines[-5:-1]] == [
        ["0", "complete"],
        ["1", "failed"],
        ["2", "complete"],
        ["3", "running"],
    ]
    assert lines[-5].split()[2:] == ["80.0", "50.0", "*", "1"]
    assert lines[-4].rstrip().endswith("the loss became nan in epoch 3; xxxxxxxxxxxxxxxxxxxxxxxxx...")
    assert lines[-1] == "4 trials"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], [0, 1, 2, 3]),
        (["--attempts"], [0, 1, 1, 2, 3]),
        (["--status", "complete", "--status", "running"], [0, 2, 3]),
        (["--sort", "robust_accuracy"], [0, 2, 1, 3]),  # without a number last
        (["--sort", "clean_accuracy", "--reverse"], [3, 0, 2, 1]),
        (["--sort", "beta"], [0, 2, 1, 3]),
        (["--sort", "method.beta", "--reverse", "--limit", "1"], [2]),
    ],
)
def test_rows_are_chosen_and_sorted(study: Path, options: list[str], expected: list[int]) -> None:
    assert numbers(study, *options) == expected


def test_csv_and_json_have_every_column_but_the_config_and_agree(study: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(trials(study, "--csv"))))
    objects = json.loads(trials(study, "--json"))
    assert list(rows[0]) == list(objects[0])
    assert "config" not in rows[0]
    assert {"feasible", "param_batch_size", "started_at"} < set(rows[0])
    assert [float(row["epsilon"]) for row in rows] == [row["epsilon"] for row in objects]
    assert objects[3]["robust_accuracy"] is None  # JSON has no NaN


def test_chosen_columns_stand_in_their_order_with_all_their_text(study: Path) -> None:
    assert trials(study, "--csv", "--columns", "beta, number", "--limit", "1") == "param_method.beta,number\n1.0,0\n"
    shown = trials(study, "--columns", "error", "--status", "failed")
    assert 60 * "x" in "".join(shown.split())
    assert shown.splitlines()[-1] == "1 trials"


def test_an_unknown_column_is_named_with_the_likely_one(study: Path) -> None:
    assert "has no column 'robust_acc'; did you mean 'robust_accuracy'?" in trials(
        study, "--sort", "robust_acc", code=2
    )
    assert "did you mean 'method.beta'?" in trials(study, "--columns", "number,method.beat", code=2)


def test_what_was_expected_of_a_proposed_trial_is_shown_by_goal(study: Path) -> None:
    writer = StudyTables(study, params={"method.beta": pa.float64(), "batch_size": pa.int64()}, metadata=METADATA)
    expected = {"clean_accuracy": 0.91, "robust_accuracy": 0.4}
    row: dict[str, Any] = {"trial_id": "small-00004", "attempt": 1, "number": 4, "status": "running", "config": "{}"}
    writer.trial({**row, "proposed_by": "gain", "proposed_expected": expected})
    writer.flush()
    column = ("--columns", "proposed_expected")
    assert "clean_accuracy 0.91, robust_accuracy 0.4" in " ".join(trials(study, *column).split())
    assert json.loads(trials(study, "--json"))[-1]["proposed_expected"] == expected
    assert json.loads(list(csv.DictReader(io.StringIO(trials(study, "--csv"))))[-1]["proposed_expected"]) == expected
