"""A front confirmed on Ray: killed, gone on with, extended; what is printed is what the tables say."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
from click.testing import CliRunner

from arat_ray.cli import main
from arat_ray.experiment.config import load
from arat_ray.experiment.spec import Experiment
from arat_ray.results import reader
from tests.cluster.studies import COMMAND, EXPERIMENT, WRITING_AT_ONCE, wait_until
from tests.study.studies import study_of

pytestmark = pytest.mark.ray
GOALS = ("clean_accuracy", "robust_accuracy")
SEARCH = {"attack.epsilon": {"uniform": [0.01, 0.4]}}
EPSILONS = (0.02, 0.3, 0.2)
POINTS = ((0.95, 0.30), (0.80, 0.60), (0.79, 0.5))
"""Both accuracies of the trials; the last one is not on the front."""


def study_in(folder: Path) -> Path:
    train = EXPERIMENT["train"] | {"epochs": 2}
    one = {"cpus_per_worker": 1, "concurrent_trials": 1}
    fields = {"train": train, "search": SEARCH, "budget": {"trials": 3}, "resources": one}
    experiment = Experiment.model_validate(EXPERIMENT | fields)
    return study_of(experiment, folder, *({"attack.epsilon": epsilon} for epsilon in EPSILONS), points=POINTS)


def confirm(study: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, "confirm", str(study), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def trials(folder: Path) -> list[dict[str, Any]]:
    has_begun = bool(reader.part_files(folder / "trials"))
    rows: list[dict[str, Any]] = reader.read(folder, "trials").to_pylist() if has_begun else []
    return rows


def test_a_front_is_trained_again_with_new_seeds_through_a_kill_and_an_extension(tmp_path: Path) -> None:
    study, folder = study_in(tmp_path), tmp_path / "small-confirm"
    killed = subprocess.Popen(
        [sys.executable, "-c", WRITING_AT_ONCE, "confirm", str(study), "--seeds", "1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: any(row["epochs_done"] for row in trials(folder)), 120, "an epoch")
    killed.send_signal(signal.SIGKILL)
    killed.wait()

    done = confirm(study, "--seeds", "2", "--json")  # goes on, and by one seed farther
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    rows = trials(folder)
    assert [(row["param_seed"], row["param_member"]) for row in sorted(rows, key=lambda row: int(row["number"]))] == [
        *((1, 0), (1, 1), (2, 0), (2, 1))
    ]
    assert {row["status"] for row in rows} == {"complete"}
    for row in rows:
        config = json.loads(row["config"])
        assert (config["seed"], row["seed"]) == (row["param_seed"], row["param_seed"])
        assert config["attack"]["epsilon"] == EPSILONS[row["param_member"]]
        assert (config["epochs"], row["epochs_done"]) == (2, 2)
    epochs = reader.read(folder, "epochs").to_pylist()
    assert set(Counter((row["trial_id"], row["epoch"]) for row in epochs).values()) == {1}
    assert len(epochs) == 8

    found = json.loads(done.stdout)
    assert (found["seeds"], found["unfinished"], found["epochs"]) == ([1, 2], 0, 2)
    assert [member["number"] for member in found["members"]] == [0, 1]
    for member in found["members"]:
        for i, goal in enumerate(GOALS):
            own = [row[goal] for row in rows if row["param_member"] == member["number"]]
            assert member["mean"][goal] == pytest.approx(fmean(own))
            assert member["std"][goal] == pytest.approx(stdev(own))
            assert member["optimism"][goal] == pytest.approx(POINTS[member["number"]][i] - fmean(own))
    assert (folder / "confirm.png").read_bytes().startswith(b"\x89PNG")

    experiment = load(folder / "study.yaml")
    assert (experiment.name, experiment.trials) == ("small-confirm", 4)
    begun = json.loads((folder / "study.json").read_text())["identity"]
    assert json.loads(json.dumps(experiment.identity())) == begun  # so `tune` on that file goes on as well
    again = CliRunner().invoke(main, ["confirm", str(study), "--seeds", "2"])  # all is there: without Ray
    assert again.exit_code == 0, again.output
    assert "optimism: what was selected lies " in again.output

    dial = ["confirm", str(study), "--seeds", "2", "--dial", "--at", "0,0.5"]
    curves = CliRunner().invoke(main, [*dial, "--json"])  # every run at two settings more, without Ray
    assert curves.exit_code == 0, curves.output
    measured = [row for row in reader.read(folder, "evaluations").to_pylist() if row["attack"] != "none"]
    assert Counter(row["dial"] for row in measured) == {0.0: 4, 0.5: 4}
    for curve in json.loads(curves.stdout)["dials"]:
        own = [row["trial_id"] for row in rows if row["param_member"] == curve["number"]]
        at_half = [row["accuracy"] for row in measured if row["trial_id"] in own and row["dial"] == 0.5]
        assert curve["settings"][1]["robust"]["value"] == pytest.approx(fmean(at_half))
    assert CliRunner().invoke(main, dial).exit_code == 0  # from the finished batches
    assert len(reader.read(folder, "evaluations")) == 16
    assert "ray" not in sys.modules or not sys.modules["ray"].is_initialized()
