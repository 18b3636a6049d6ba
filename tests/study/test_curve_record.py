"""Curves and expected gain in a study: what they are told, and that a killed study goes on as one that was not."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from arat_ray.experiment.spec import Experiment
from arat_ray.frontier import decisions
from arat_ray.frontier.gain_decision import GainDecision
from arat_ray.results import reader
from arat_ray.study import curve_record, prospect
from arat_ray.study.budget import Over
from arat_ray.study.curve_sampler import CurveSampler
from arat_ray.study.progress import Progress
from arat_ray.study.record import StudyRecord
from arat_ray.study.recorder import Recorder
from arat_ray.study.trials import StudyTrials
from arat_ray.study.warm_start import Known
from tests.study.conftest import EXPERIMENT, TRAIN
from tests.study.driving import DrivenTrials, opened
from tests.study.test_early_stopping import EPOCHS, KilledError, hand_in
from tests.study.test_recorder import message

Make = Callable[..., Experiment]
WEIGHT = "method.invariance_weight"
GAIN: dict[str, Any] = {
    "train": TRAIN | {"epochs": EPOCHS},
    "sampler": {"name": "curves", "seed": 0},
    "early_stopping": {"name": "expected_gain", "min_epochs": 1, "rung_factor": 2},
    "budget": {"trials": 22},
}
GRID: dict[str, Any] = {
    "search": EXPERIMENT["search"] | {WEIGHT: {"choice": [0.1 * 1.4**i for i in range(11)]}},
    "sampler": {"name": "grid", "seed": 0},
    "budget": {},
}


def measured(sampled: dict[str, Any], number: int, epoch: int) -> dict[str, Any]:
    """A heavier weight is more robust and less clean; the deeper layers are better; a trial has its own luck."""
    along = (math.log10(sampled[WEIGHT]) + 1) / 2
    lost = (0.0 if sampled["method.layers"] == "two" else 0.05) + 0.02 * ((number * 0.618) % 1)
    clean, robust = 0.9 - 0.4 * along**2 - lost, 0.2 + 0.3 * along - lost
    return message(epoch, clean=clean * (1 - 0.4 / epoch), robust=robust * (1 - 0.5 / epoch))


def opened_with_curves(folder: Path, experiment: Experiment) -> tuple[Recorder, StudyTrials]:
    """Recorder and trials of one record, as a driver has them."""
    record = opened(folder, experiment, warn=pytest.fail)
    study_trials = StudyTrials(experiment, record)
    progress = Progress(Console(file=io.StringIO()), goals=experiment.maximize, total=None, ended=0, epochs=EPOCHS)
    return Recorder(experiment, record, study_trials, progress, study_trials.curves), study_trials


def drive(
    folder: Path, experiment: Experiment, reached: dict[int, int], *, kill_after: float = math.inf
) -> Over | None:
    """Trials one after another until the study ends or is killed; `reached` are their checkpoints. What ended it."""
    recorder, study_trials = opened_with_curves(folder, experiment)
    reports = 0
    for _ in range((experiment.trials or 0) - len(study_trials.ended())):
        if not prospect.wants(study_trials, recorder.watch):
            break
        number, sampled = study_trials.ask()
        recorder.start(number, sampled, experiment.resolve(sampled))
        for epoch in range(1, EPOCHS + 1):
            replayed = epoch <= reached.get(number, 0)
            reached[number] = max(epoch, reached.get(number, 0))
            if reports == kill_after:
                raise KilledError
            decision = hand_in(recorder, number, measured(sampled, number, epoch) | {"replayed": replayed})
            reports += 1
            if decision is not None and not decision.goes_on:
                break
        recorder.end(number)
    recorder.close("interrupted")
    return recorder.watch.over()


def tried(folder: Path) -> list[tuple[Any, ...]]:
    columns = ["number", f"param_{WEIGHT}", "param_method.layers", "status", "stop_reason", "epochs_done"]
    return sorted(tuple(row.values()) for row in reader.read(folder, "trials", columns).to_pylist())


@pytest.mark.parametrize("search", [{}, GRID], ids=["curves", "grid"])
def test_a_study_killed_again_and_again_proposes_and_decides_as_one_that_was_not(
    search: dict[str, Any], make: Make, tmp_path: Path
) -> None:
    experiment = make(**GAIN | search)
    drive(tmp_path / "whole", experiment, {})
    whole = decisions.read(tmp_path / "whole")
    assert {decision.goes_on for decision in whole} == {True, False}
    assert any(isinstance(each, GainDecision) and each.gain is not None for each in whole)
    reached: dict[int, int] = {}
    for kill_after in (1, 9, 17, 2, 12, 5):
        with pytest.raises(KilledError):
            drive(tmp_path / "killed", experiment, reached, kill_after=kill_after)
    drive(tmp_path / "killed", experiment, reached)
    assert decisions.read(tmp_path / "killed") == whole
    assert tried(tmp_path / "killed") == tried(tmp_path / "whole")
    assert {status for _, _, _, status, _, _ in tried(tmp_path / "whole")} == {"complete", "pruned"}


def test_a_start_reads_each_segment_of_the_record_once(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = make(**GAIN | GRID | {"budget": {"trials": 6}})
    drive(tmp_path, experiment, {})
    record = StudyRecord(tmp_path, experiment, warn=pytest.fail, segment_bytes=2000)
    for number in range(99, 119):  # until there are sealed ones
        record.take({"asked": {"number": number, "sampled": {WEIGHT: 0.1, "method.layers": "two"}}})
        record.flush(final=True)
    read, real = list[str](), Path.read_bytes

    def counted(path: Path) -> bytes:
        read.append(path.name)
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", counted)
    again = StudyTrials(experiment, StudyRecord(tmp_path, experiment, warn=pytest.fail))
    sealed = [name for name in read if name.endswith(".zst")]
    assert len(sealed) == len(set(sealed)) > 0
    assert record.curves is not None
    assert again.curves is not None
    assert repr(again.curves.values) == repr(record.curves.values)


def test_whole_trials_without_early_stopping_teach_by_all_their_epochs(make: Make, tmp_path: Path) -> None:
    experiment = make(**GAIN | {"early_stopping": None, "budget": {"trials": 3}})
    drive(tmp_path, experiment, {})
    study_trials = DrivenTrials(tmp_path, experiment)
    assert study_trials.curves is not None
    assert {n: sorted(values) for n, values in study_trials.curves.values.items()} == {
        n: [1, 2, 3, 4, 5] for n in range(3)
    }
    assert study_trials.curves.keep == {1, 3, 5}
    assert study_trials.curves.complete == {0, 1, 2}


def test_a_trial_whose_best_epoch_counts_is_told_by_it_before_and_after_a_resume(make: Make, tmp_path: Path) -> None:
    experiment = make(**GAIN, validate={**EXPERIMENT["validate"], "choose": "best"})
    recorder, study_trials = opened_with_curves(tmp_path, experiment)
    number, sampled = study_trials.ask()
    recorder.start(number, sampled, experiment.resolve(sampled))
    for epoch, robust in ((1, 0.6), (2, 0.3)):
        hand_in(recorder, number, message(epoch, clean=0.5 + 0.1 * epoch, robust=robust))
    recorder.record.flush()
    resumed = DrivenTrials(tmp_path, experiment).curves
    for curves in (study_trials.curves, resumed):
        assert curves is not None
        np.testing.assert_allclose(curves.values[number][2], [0.6, 0.6])
        assert curves.running == {number}


def test_a_failed_trial_runs_no_more_and_an_interrupted_one_does(make: Make, tmp_path: Path) -> None:
    experiment = make(**GAIN)
    study_trials = DrivenTrials(tmp_path, experiment)
    failed, interrupted = study_trials.ask(), study_trials.ask()
    study_trials.fail(failed.number, "NaN")
    study_trials.put_back(interrupted.number)
    for curves in (study_trials.curves, DrivenTrials(tmp_path, experiment).curves):
        assert curves is not None
        assert curves.running == {interrupted.number}
        assert set(curves.samples) == {0, 1}


def test_the_known_default_comes_first_and_points_of_the_file_before_it(make: Make, tmp_path: Path) -> None:
    assert DrivenTrials(tmp_path / "one", make(**GAIN)).ask().sampled == {WEIGHT: 1.0, "method.layers": "last"}
    point = {WEIGHT: 3.0, "method.layers": "two"}
    study_trials = DrivenTrials(tmp_path / "two", make(**GAIN, first=[point]))
    assert study_trials.ask().sampled == point
    assert study_trials.ask().sampled != {WEIGHT: 1.0, "method.layers": "last"}


def test_the_known_default_comes_first_also_where_a_few_earlier_trials_taught(make: Make, tmp_path: Path) -> None:
    default = {WEIGHT: 1.0, "method.layers": "last"}
    other = [Known(str(i), {WEIGHT: 0.3 + i, "method.layers": "two"}, [0.9, 0.1], {}) for i in range(3)]
    study_trials = DrivenTrials(tmp_path / "few", make(**GAIN))
    study_trials.learn(other)
    assert study_trials.ask().sampled == default
    study_trials = DrivenTrials(tmp_path / "known", make(**GAIN))
    study_trials.learn([*other, Known("default", default, [0.9, 0.1], {})])
    assert study_trials.ask().sampled != default, "its goals are known"


def test_a_trial_that_is_longer_than_train_says_is_known_by_its_end(make: Make, tmp_path: Path) -> None:
    search = EXPERIMENT["search"] | {"epochs": {"choice": [3, 9]}}
    experiment = make(train=TRAIN | {"epochs": 3}, sampler={"name": "curves"}, search=search)
    recorder, study_trials = opened_with_curves(tmp_path, experiment)
    asked: dict[int, Any] = {}
    while {9, 3} - set(asked):
        number, sampled = study_trials.ask()
        recorder.start(number, sampled, experiment.resolve(sampled))
        asked.setdefault(sampled["epochs"], number)
        for epoch in range(1, sampled["epochs"] + 1):
            hand_in(recorder, number, message(epoch, clean=0.1 * epoch, robust=0.05 * epoch))
        recorder.end(number)
    for curves in (study_trials.curves, DrivenTrials(tmp_path, experiment).curves):
        assert curves is not None
        np.testing.assert_allclose(curves.values[asked[9]][curves.last], [0.9, 0.45])
        np.testing.assert_allclose(curves.values[asked[3]][curves.last], [0.3, 0.15])
        assert max(curves.values[asked[9]]) == curves.last == 3
        assert curves.complete >= set(asked.values())


@pytest.mark.parametrize("choose", ["best", "last"])
def test_a_trial_is_known_by_its_end_though_its_worker_was_lost(choose: str, make: Make, tmp_path: Path) -> None:
    experiment = make(**GAIN | {"early_stopping": None}, validate={**EXPERIMENT["validate"], "choose": choose})
    recorder, study_trials = opened_with_curves(tmp_path, experiment)
    number, sampled = study_trials.ask()
    recorder.start(number, sampled, experiment.resolve(sampled))
    for epoch in range(1, EPOCHS + 1):
        if epoch == 3:
            recorder.retry(number, "its worker was lost")
        hand_in(recorder, number, message(epoch, clean=0.6, robust=0.5 if epoch > 1 else 0.55))
    recorder.end(number)
    for curves in (study_trials.curves, DrivenTrials(tmp_path, experiment).curves):
        assert curves is not None
        assert curves.complete == {number}
        np.testing.assert_allclose(curves.values[number][EPOCHS], [0.6, 0.55 if choose == "best" else 0.5])


@pytest.mark.parametrize(
    ("budget", "start"),
    [({"trials": 64, "hours": 48}, 16), ({"hours": 2}, 8), ({"device_hours": 9}, 8), ({"gain": 0.001}, 16)],
)
def test_a_search_that_only_time_ends_begins_with_fewer_quasi_random_trials(
    budget: dict[str, Any], start: int, make: Make
) -> None:
    experiment = make(**GAIN | {"budget": budget})
    assert curve_record.start_of(experiment) == start
    hearing = curve_record.hearing_of(experiment)
    assert hearing is not None
    sampler = curve_record.open_sampler(experiment, hearing.curves)
    assert sampler is not None
    assert sampler.startup == start


def test_a_default_outside_of_the_search_is_none(make: Make) -> None:
    search = {WEIGHT: {"loguniform": [2, 10]}}
    assert curve_record.default_of(make(**GAIN | {"search": search})) is None


def test_earlier_trials_teach_are_no_rivals_and_are_known_after_a_resume(make: Make, tmp_path: Path) -> None:
    experiment = make(**GAIN)
    known = [Known(str(i), {WEIGHT: 0.2 * 1.3**i, "method.layers": "last"}, [0.9, 0.01 * i], {}) for i in range(12)]
    study_trials = DrivenTrials(tmp_path, experiment)
    assert study_trials.learn(known) == 12
    for curves in (study_trials.curves, DrivenTrials(tmp_path, experiment).curves):
        assert curves is not None
        assert len(curves) == 12
        assert (curves.known, curves.complete, curves.running) == (set(range(-12, 0)), set(), set())
        lower, upper = curves.outlook().above
        np.testing.assert_array_equal(lower, [[0, 0]])
        assert np.isinf(upper).all()


def test_a_study_without_either_has_no_curves(make: Make, tmp_path: Path) -> None:
    assert DrivenTrials(tmp_path, make()).curves is None
    gain_alone = DrivenTrials(tmp_path / "gain", make(**GAIN | {"sampler": {"name": "tpe", "seed": 0}}))
    assert gain_alone.curves is not None
    assert not isinstance(gain_alone.study.sampler, CurveSampler)


def test_a_trial_stopped_by_expected_gain_says_why_in_the_table(make: Make, tmp_path: Path) -> None:
    drive(tmp_path, make(**GAIN | {"budget": {"trials": 12}}), {})
    reasons = [reason for _, _, _, status, reason, _ in tried(tmp_path) if status == "pruned"]
    assert reasons
    assert all(reason.startswith("expected_gain: epoch ") and " a new trial " in reason for reason in reasons)


def test_the_tables_say_why_each_trial_was_proposed_also_after_kills(make: Make, tmp_path: Path) -> None:
    experiment = make(**GAIN)
    columns = ["number", "proposed_by", "proposed_expected", "proposed_deviation", "proposed_gain"]
    reached: dict[int, int] = {}
    for kill_after in (3, 30):
        with pytest.raises(KilledError):
            drive(tmp_path, experiment, reached, kill_after=kill_after)
    drive(tmp_path, experiment, reached)
    rows = sorted(reader.read(tmp_path, "trials", columns).to_pylist(), key=lambda row: row["number"])
    assert [row["proposed_by"] for row in rows[:6]] == ["default", *["start"] * 4, "gain"], "a quarter of 22"
    assert all(row["proposed_gain"] is None for row in rows[:5])
    for row in rows[5:]:
        if row["proposed_by"] == "gain":
            assert row["proposed_gain"] > 0
            assert all(0 < dict(row["proposed_expected"])[goal] < 1 for goal in experiment.maximize)
            assert all(0 < dict(row["proposed_deviation"])[goal] < 1 for goal in experiment.maximize)


def test_trials_of_other_samplers_say_who_proposed_them(make: Make, tmp_path: Path) -> None:
    point = {WEIGHT: 1.0, "method.layers": "two"}
    asha = {"name": "pareto_asha", "min_epochs": 1, "reduction_factor": 2}
    tpe = make(**GAIN | {"sampler": {"name": "tpe"}, "early_stopping": asha, "first": [point], "budget": {"trials": 4}})
    drive(tmp_path / "tpe", tpe, {})
    by = [row["proposed_by"] for row in reader.read(tmp_path / "tpe", "trials", ["proposed_by"]).to_pylist()]
    assert by == ["first", "tpe", "random", "tpe"]
    drive(tmp_path / "grid", make(**GAIN | GRID | {"budget": {"trials": 2}}), {})
    by = [row["proposed_by"] for row in reader.read(tmp_path / "grid", "trials", ["proposed_by"]).to_pylist()]
    assert by == ["grid", "grid"]
