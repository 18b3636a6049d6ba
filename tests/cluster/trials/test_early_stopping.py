"""Early stopping on Ray: a trial in the Tune actor, a trial of two workers, and a driver that is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from arat_ray.frontier import decisions
from arat_ray.frontier.decisions import Made
from arat_ray.frontier.halving import Decision, Halving
from arat_ray.report.why import lines, why
from arat_ray.results import reader
from arat_ray.study.trials import CURVE, NUMBER, REASON
from tests.cluster import nodes
from tests.cluster.studies import EXPERIMENT, tune, tune_command, tune_without_ray, wait_until

pytestmark = pytest.mark.ray
EPOCHS = 5
GRID = {"method.invariance_weight": {"choice": [5.0, 0.2, 1.0, 20.0]}}
FIELDS: dict[str, Any] = {
    "train": EXPERIMENT["train"] | {"epochs": EPOCHS},
    "search": GRID,
    "sampler": {"name": "grid", "seed": 0},
    "budget": {},
    "early_stopping": {"name": "pareto_asha", "min_epochs": 1, "reduction_factor": 2},
    "resources": {"cpus_per_worker": 1, "concurrent_trials": 1},
}
STATES = {"complete": "COMPLETE", "pruned": "PRUNED"}


def folder_of(file: Path) -> Path:
    return file.parent / "results" / "small"


def rows(file: Path, table: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = reader.read(folder_of(file), table).to_pylist()
    return found


def has_decided(file: Path, enough: int) -> bool:
    return len(decisions.read(folder_of(file))) >= enough


def journal(file: Path) -> optuna.Study:
    storage = JournalStorage(JournalFileBackend(str(folder_of(file) / "journal" / "optuna.log")))
    return optuna.load_study(study_name="small", storage=storage)


def assert_all_agree(file: Path, trials: int) -> None:
    """Trials, epochs, decisions, Optuna's journal and `results why` tell one story."""
    found = {row["number"]: row for row in rows(file, "trials")}
    assert sorted(found) == list(range(trials))
    assert {row["status"] for row in found.values()} == {"complete", "pruned"}
    made = decisions.read(folder_of(file))
    assert again(made) == made
    told = {trial.user_attrs[NUMBER]: trial for trial in journal(file).trials}
    epochs = rows(file, "epochs")
    for number, row in found.items():
        own = [decision for decision in made if decision.number == number]
        measured = [each for each in epochs if each["trial_id"] == row["trial_id"]]
        stop = next((decision for decision in own if not decision.goes_on), None)
        assert row["status"] == ("pruned" if stop else "complete")
        assert row["epochs_done"] == len(measured) == (stop.rung if stop else EPOCHS)
        assert row["is_full_fidelity"] == (stop is None)
        last = max(measured, key=lambda each: int(each["epoch"]))
        goals = [row["clean_accuracy"], row["robust_accuracy"]]
        assert goals == [last["validation_clean_accuracy"], last["validation_robust_accuracy"]]
        assert told[number].state.name == STATES[row["status"]]
        text = list(lines(why(folder_of(file), str(number))))
        if stop:
            assert not row["on_front"]
            assert row["stop_reason"] == told[number].user_attrs[REASON] == f"pareto_asha: {stop.why}"
            assert told[number].user_attrs[CURVE]["epoch"] == list(range(1, stop.rung + 1))
            assert told[number].user_attrs[CURVE]["robust_accuracy"][-1] == goals[1]
            assert f"  {row['stop_reason']}" in text
            assert list(stop.goals) == goals
        else:
            assert told[number].values == goals
        outcome = [line.split()[2].rstrip(",") for line in text if line.startswith("epoch ")]
        assert outcome == ["went" if decision.goes_on else "stopped" for decision in own]


def again(made: list[Made]) -> list[Decision]:
    """The same reports in the same order, decided anew."""
    halving = Halving([1, 2, 4], reduction_factor=2)
    return [halving.decide(decision.number, decision.rung, decision.goals) for decision in made]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of four trials, one at a time, that nobody interrupted."""
    file = tmp_path_factory.mktemp("whole") / "small.yaml"
    file.write_text(yaml.safe_dump(EXPERIMENT | FIELDS))
    done = tune(file)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert " pruned: pareto_asha: rung " in done.stdout
    return file


def test_trials_are_stopped_and_tables_journal_and_reasons_agree(whole: Path) -> None:
    assert_all_agree(whole, trials=4)
    refused = tune_without_ray(whole)
    assert "all 4 trials" in refused.stdout  # stopped ones stay stopped


def test_a_killed_driver_that_is_resumed_decides_as_one_that_was_not(whole: Path, write: Callable[..., Path]) -> None:
    file = write(**FIELDS)
    made = 0
    for enough in (2, 5):
        driver = subprocess.Popen(tune_command(file, "--resume"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(partial(has_decided, file, enough), 240, "enough decisions")
        assert driver.poll() is None
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        assert has_decided(file, max(made, enough))
        made = len(decisions.read(folder_of(file)))
    done = tune(file, "--resume")
    assert done.returncode == 0, done.stderr
    keys = [(row["trial_id"], row["epoch"]) for row in rows(file, "epochs")]
    assert len(keys) == len(set(keys))
    assert not journal(file).get_trials(states=[TrialState.RUNNING, TrialState.WAITING])
    assert decisions.read(folder_of(file)) == decisions.read(folder_of(whole))
    columns = ["number", "status", "stop_reason", "epochs_done", "clean_accuracy", "robust_accuracy", "on_front"]
    one, other = (sorted([row[key] for key in columns] for row in rows(each, "trials")) for each in (whole, file))
    assert one == other


def test_two_workers_stop_together_and_leave_their_resources_to_the_next_trial(write: Callable[..., Path]) -> None:
    resources = {"workers": 2, "cpus_per_worker": 1}
    train = FIELDS["train"] | {"sync_batch_norm": True}
    search = {"method.invariance_weight": {"choice": [1.0, 20.0]}, "optimizer.learning_rate": {"choice": [0.1, 1e-5]}}
    file = write(**FIELDS | {"resources": resources, "train": train, "search": search, "budget": {"trials": 3}})
    done = tune(file, timeout=550)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_all_agree(file, trials=3)
    assert {row["workers"] for row in rows(file, "trials")} == {2}


BOARDS = """
import sys
import ray
from arat_ray.cluster.trials import early_stopping
ray.init(sys.argv[1], log_to_driver=False)
nodes = []
for number in range(6):
    early_stopping.BOARD = f"board-{number}"
    try:
        early_stopping.ask(0, 1)
    except RuntimeError as error:
        assert "nobody says whether it stops" in str(error)
    board = early_stopping.open_board()
    ray.get(board.put.remote(0, 1, True))
    assert early_stopping.ask(0, 1)
    nodes.append(ray._private.state.actors(board._actor_id.hex())["Address"]["NodeID"])
print(set(nodes) == {ray.get_runtime_context().get_node_id()})
"""


def test_decisions_stay_on_the_drivers_node_and_their_loss_is_no_fault_of_a_trial() -> None:
    with nodes.started(1, 1, 1) as cluster:
        command = [sys.executable, "-c", BOARDS, cluster.address]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ran.stdout.split() == ["True"], ran.stderr


def test_a_search_by_curves_and_expected_gain_that_is_killed_tries_and_stops_the_same_trials(
    tmp_path: Path,
) -> None:
    fields = FIELDS | {
        "search": {
            "method.invariance_weight": {"loguniform": [0.1, 30]},
            "optimizer.learning_rate": {"uniform": [1e-5, 0.3]},
        },
        "sampler": {"name": "curves", "seed": 0},
        "budget": {"trials": 7},
        "early_stopping": {"name": "expected_gain", "min_epochs": 1, "rung_factor": 2, "slack": 1.0},
    }
    tried = []
    for kills in ((), (2, 9)):
        file = tmp_path / ("killed" if kills else "whole") / "small.yaml"
        file.parent.mkdir()
        file.write_text(yaml.safe_dump(EXPERIMENT | fields))
        for enough in kills:
            driver = subprocess.Popen(
                tune_command(file, "--resume"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            wait_until(partial(has_decided, file, enough), 240, "enough decisions")
            driver.send_signal(signal.SIGKILL)
            driver.wait()
        done = tune(file, "--resume")
        assert done.returncode == 0, done.stderr
        columns = ["number", "param_optimizer.learning_rate", "status", "stop_reason", "epochs_done", "robust_accuracy"]
        tried.append(sorted([row[key] for key in columns] for row in rows(file, "trials")))
    assert tried[0] == tried[1]
    reasons = [row[3] for row in tried[0] if row[2] == "pruned"]
    assert reasons
    assert all(reason.startswith("expected_gain: epoch ") for reason in reasons)
