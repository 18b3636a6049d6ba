"""Trials stopped early: what the tables, Optuna and its sampler hear of them; a driver killed at any report."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from arat_ray.experiment.spec import Experiment
from arat_ray.frontier import decisions
from arat_ray.frontier.decisions import Made
from arat_ray.frontier.halving import Decision
from arat_ray.frontier.pareto import load_front
from arat_ray.results import reader
from arat_ray.results.reading import Reading
from arat_ray.study.recorder import Recorder
from arat_ray.study.trials import CURVE, REASON, StudyTrials
from tests.study.conftest import EXPERIMENT, TRAIN
from tests.study.driving import DrivenTrials
from tests.study.test_recorder import message, open_study

Make = Callable[..., Experiment]
EPOCHS = 5
STOPPING: dict[str, Any] = {
    "train": TRAIN | {"epochs": EPOCHS},
    "early_stopping": {"name": "pareto_asha", "min_epochs": 1, "reduction_factor": 2},
}
GRID: dict[str, Any] = {
    "search": {"method.invariance_weight": {"choice": [0.1 * i for i in range(1, 9)]}},
    "sampler": {"name": "grid", "seed": 0},
    "budget": {},
}


class KilledError(Exception):
    """In the place of SIGKILL."""


def hand_in(recorder: Recorder, number: int, sent: dict[str, Any]) -> Made | None:
    """A report as Tune passes it on: first judged, then recorded."""
    decision = recorder.decide(number, sent["row"])
    recorder.report(number, sent)
    return decision


def start(recorder: Recorder, experiment: Experiment, number: int) -> None:
    sampled = {"method.invariance_weight": 1.0, "method.layers": "two"}
    recorder.start(number, sampled, experiment.resolve(sampled))


def trials(folder: Path) -> dict[int, dict[str, Any]]:
    return {row["number"]: row for row in reader.read(folder, "trials").to_pylist()}


# ------------------------------------------------------------------------------------------------ the recorder


def test_a_stopped_trial_keeps_its_last_values_and_is_never_on_the_front(make: Make, tmp_path: Path) -> None:
    experiment = make(**STOPPING)
    recorder, witness, shown = open_study(tmp_path, experiment)
    for number, clean in enumerate([0.8, 0.7]):
        start(recorder, experiment, number)
        decision = hand_in(recorder, number, message(1, clean=clean))
        assert decision is not None
        assert decision.goes_on == (number == 0)
    assert hand_in(recorder, 0, message(3)) is None  # no rung
    recorder.end(1)
    reason = "pareto_asha: rung 1, rank 2 of 2, front 2; beaten by trial 0"
    curve = {"epoch": [1], "clean_accuracy": [0.7], "robust_accuracy": [0.5]}
    assert witness.heard == [("prune", 1, reason, curve, "pruned", 1)]
    row = trials(tmp_path)[1]
    assert (row["status"], row["stop_reason"], row["error"]) == ("pruned", reason, None)
    assert (row["clean_accuracy"], row["robust_accuracy"], row["epochs_done"]) == (0.7, 0.5, 1)
    assert not row["is_full_fidelity"]
    assert not row["on_front"]
    assert row["checkpoint"] == "checkpoints/small-00001/last.pt"
    assert f"[1/4] trial 1 pruned: {reason}" in shown.getvalue()
    for epoch in (2, 4, 5):
        hand_in(recorder, 0, message(epoch, clean=0.6))
    recorder.end(0)
    assert [each["number"] for each in load_front([tmp_path]).trials] == [0]
    partial = load_front([tmp_path], include_partial=True)
    assert [each["number"] for each in partial.trials] == [1]
    assert partial.counts == {"complete": 1, "pruned": 1}
    assert recorder.failed == 0


def test_a_decision_is_on_disk_before_anybody_hears_it(make: Make, tmp_path: Path) -> None:
    experiment = make(**STOPPING)
    recorder, _, _ = open_study(tmp_path, experiment)
    start(recorder, experiment, 0)
    decision = recorder.decide(0, message(1)["row"])
    assert decision is not None
    (line,) = (line for line in Reading(tmp_path / "journal") if line.kind == b"decision")
    assert decisions.of_rows([line.event["decision"]], experiment.maximize) == [decision]


def test_a_trial_that_comes_by_again_hears_what_was_decided_before(make: Make, tmp_path: Path) -> None:
    experiment = make(**STOPPING)
    killed, _, _ = open_study(tmp_path, experiment)
    for number, clean in enumerate([0.8, 0.7]):
        start(killed, experiment, number)
        hand_in(killed, number, message(1, clean=clean))
    recorder, witness, _ = open_study(tmp_path, experiment)
    start(recorder, experiment, 2)
    hand_in(recorder, 2, message(1, clean=0.6))
    start(recorder, experiment, 1)
    decision = hand_in(recorder, 1, message(1, replayed=True, clean=0.7))
    assert decision is not None
    assert not decision.goes_on
    assert decision.of == 2  # who came meanwhile plays no part
    recorder.end(1)
    assert witness.heard[-1][:2] == ("prune", 1)
    assert len(decisions.read(tmp_path)) == 3


@pytest.mark.parametrize("bad", [math.nan, None])
def test_a_trial_without_a_number_for_a_goal_goes_on_and_fails_at_its_end(
    make: Make, tmp_path: Path, bad: float | None
) -> None:
    experiment = make(**STOPPING)
    recorder, witness, _ = open_study(tmp_path, experiment)
    start(recorder, experiment, 0)
    hand_in(recorder, 0, message(1, clean=0.1, robust=0.1))
    start(recorder, experiment, 1)
    for epoch in range(1, EPOCHS + 1):
        sent = message(epoch)
        sent["row"]["validation_robust_accuracy"] = bad
        decision = hand_in(recorder, 1, sent)
        assert decision is None or (isinstance(decision, Decision) and decision.goes_on and decision.rank is None)
    recorder.end(1)
    assert witness.heard == [("fail", 1, f"no result: robust_accuracy is {bad} after the last epoch", "failed", 5)]
    assert trials(tmp_path)[1]["status"] == "failed"


def test_a_trial_that_reports_its_best_measurement_is_judged_by_it(make: Make, tmp_path: Path) -> None:
    experiment = make(**STOPPING, validate={**EXPERIMENT["validate"], "choose": "best"})
    recorder, _, _ = open_study(tmp_path, experiment)
    start(recorder, experiment, 0)
    hand_in(recorder, 0, message(1, clean=0.7, robust=0.6))
    decision = hand_in(recorder, 0, message(2, clean=0.9, robust=0.3))
    assert decision is not None
    assert decision.goals == (0.7, 0.6)


def test_a_retried_trial_is_judged_once(make: Make, tmp_path: Path) -> None:
    experiment = make(**STOPPING)
    recorder, _, _ = open_study(tmp_path, experiment)
    start(recorder, experiment, 0)
    first = hand_in(recorder, 0, message(1))
    recorder.retry(0, "the node died")
    assert hand_in(recorder, 0, message(1, clean=0.2)) == first
    assert recorder.record.flush()
    assert decisions.read(tmp_path) == [first]


# ------------------------------------------------------------------------------------- a driver that is killed


def reported(number: int, epoch: int) -> dict[str, Any]:
    """What trial `number` measures after `epoch`, whenever it gets there."""
    chance = random.Random(100 * number + epoch)
    return message(epoch, clean=chance.random(), robust=chance.random())


def drive(folder: Path, experiment: Experiment, reached: dict[int, int], *, kill_after: float = math.inf) -> None:
    """One trial after another, as Tune runs them with one actor, until the study ends or is killed.

    `reached` are the checkpoints: how far each trial has come. A checkpoint is written before the epoch is reported.
    """
    recorder, _, _ = open_study(folder, experiment)
    study_trials = recorder.study_trials = StudyTrials(experiment, recorder.record)
    reports = 0
    for _ in range((experiment.trials or 0) - len(study_trials.ended())):
        asked = study_trials.ask()
        recorder.start(asked.number, asked.sampled, experiment.resolve(asked.sampled))
        for epoch in range(1, EPOCHS + 1):
            replayed = epoch <= reached.get(asked.number, 0)
            reached[asked.number] = max(epoch, reached.get(asked.number, 0))
            if reports == kill_after:
                raise KilledError
            decision = hand_in(recorder, asked.number, reported(asked.number, epoch) | {"replayed": replayed})
            reports += 1
            if decision is not None and not decision.goes_on:
                break
        recorder.end(asked.number)
    recorder.close("interrupted")


def test_a_study_killed_again_and_again_decides_as_one_that_was_not(make: Make, tmp_path: Path) -> None:
    experiment = make(**STOPPING, **GRID)
    drive(tmp_path / "whole", experiment, {})
    whole = decisions.read(tmp_path / "whole")
    assert {decision.goes_on for decision in whole} == {True, False}
    reached: dict[int, int] = {}
    for kill_after in (0, 1, 2, 3, 5, 1, 4, 2):
        with pytest.raises(KilledError):
            drive(tmp_path / "killed", experiment, reached, kill_after=kill_after)
    drive(tmp_path / "killed", experiment, reached)
    assert decisions.read(tmp_path / "killed") == whole
    columns = ["number", "status", "stop_reason", "epochs_done", "clean_accuracy", "is_full_fidelity", "on_front"]
    one, other = (reader.read(tmp_path / name, "trials", columns).to_pylist() for name in ("whole", "killed"))
    assert sorted(one, key=lambda row: row["number"]) == sorted(other, key=lambda row: row["number"])
    assert {row["status"] for row in one} == {"complete", "pruned"}
    epochs = [(row["trial_id"], row["epoch"]) for row in reader.read(tmp_path / "killed", "epochs").to_pylist()]
    assert len(epochs) == len(set(epochs)) == sum(row["epochs_done"] for row in one)


# ------------------------------------------------------------------------------------------------- Optuna


def test_a_stopped_trial_is_pruned_in_the_journal_with_its_curve_and_stays_so(make: Make, tmp_path: Path) -> None:
    study_trials = DrivenTrials(tmp_path, make(**STOPPING))
    curve: dict[str, list[Any]] = {"epoch": [1, 2], "clean_accuracy": [0.5, 0.6], "robust_accuracy": [0.2, math.nan]}
    study_trials.prune(study_trials.ask().number, "pareto_asha: rung 2", curve)
    study_trials.ask()
    resumed = DrivenTrials(tmp_path, make(**STOPPING))
    assert resumed.ended() == {0}
    assert resumed.ask().number == 1
    pruned = resumed.study.trials[0]
    assert (pruned.state, pruned.values) == (TrialState.PRUNED, None)
    assert pruned.user_attrs[REASON] == "pareto_asha: rung 2"
    assert str(pruned.user_attrs[CURVE]) == str(curve)
    assert resumed.study.best_trials == []


def test_tpe_models_complete_trials_alone(make: Make, tmp_path: Path) -> None:
    """The same proposals, whether trials were stopped in between or not."""
    proposed = []
    for stops in (False, True):
        study_trials = DrivenTrials(tmp_path / str(stops), make(**STOPPING))
        for step in range(15):
            weight = 0.2 + 0.6 * step
            study_trials.study.enqueue_trial({"method.invariance_weight": weight, "method.layers": "last"})
            study_trials.complete(study_trials.ask().number, [0.1 * weight, 0.1])
            if stops:
                study_trials.study.enqueue_trial({"method.invariance_weight": 9.9, "method.layers": "last"})
                study_trials.prune(study_trials.ask().number, "", {})
        proposed.append([study_trials.ask().sampled for _ in range(6)])
    assert proposed[0] == proposed[1]


@pytest.mark.parametrize(("name", "expected"), [("tpe", ["tpe", "tpe", "random"]), ("nsga2", ["nsga2"] * 3)])
def test_every_third_proposal_of_a_model_is_random_where_trials_are_stopped_early(
    make: Make, tmp_path: Path, name: str, expected: list[str]
) -> None:
    def proposers(folder: str, **changes: Any) -> list[str]:
        study_trials = DrivenTrials(tmp_path / folder, make(**changes, sampler={"name": name, "seed": 0}))
        names = {"TpeOfResults": "tpe", "RandomSampler": "random", "NSGAIISampler": "nsga2"}
        return [names[type(study_trials.study.sampler).__name__] for _ in range(6) if study_trials.ask()]

    assert proposers("stopping", **STOPPING) == expected * 2
    assert proposers("without") == [name] * 6


def test_tpe_proposes_among_stopped_failed_and_running_trials(make: Make, tmp_path: Path) -> None:
    study_trials = DrivenTrials(tmp_path, make(**STOPPING))
    for step in range(40):
        asked = study_trials.ask()
        assert 0.1 <= asked.sampled["method.invariance_weight"] <= 10
        if step % 5 == 0:
            study_trials.complete(asked.number, [0.5, step / 40])
        elif step % 5 == 1:
            study_trials.fail(asked.number, "NaN")
        elif step % 5 < 4:
            study_trials.prune(asked.number, "", {"epoch": [1]})
    assert {trial.state for trial in study_trials.study.trials} == set(TrialState) - {TrialState.WAITING}
