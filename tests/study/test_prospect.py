"""A search that ends when another trial is not expected to add enough, and what it says of further ones."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from arat_ray.cli import main
from arat_ray.experiment.checks import problems
from arat_ray.experiment.spec import Budget, Experiment
from arat_ray.study import prospect
from tests.study.conftest import EXPERIMENT
from tests.study.test_curve_record import GAIN, drive, measured, opened_with_curves, tried
from tests.study.test_early_stopping import EPOCHS, KilledError, hand_in

Make = Callable[..., Experiment]


def gaining(make: Make, gain: Any, **changes: Any) -> Experiment:
    return make(**GAIN | {"budget": {"trials": 60, "gain": gain}} | changes)


def test_a_search_ends_when_another_trial_adds_too_little_and_a_killed_one_ends_there_too(
    make: Make, tmp_path: Path
) -> None:
    experiment = gaining(make, "0.5%")
    over = drive(tmp_path / "whole", experiment, {})
    assert over is not None
    assert over.budget == "gain"
    assert over.reason.startswith("another trial is expected to add ")
    assert over.reason.endswith(" % of it, less than 0.5 %")
    assert 16 <= len(tried(tmp_path / "whole")) < 60
    reached: dict[int, int] = {}
    for kill_after in (9, 30, 20):
        with pytest.raises(KilledError):
            drive(tmp_path / "killed", experiment, reached, kill_after=kill_after)
    assert drive(tmp_path / "killed", experiment, reached) == over
    assert tried(tmp_path / "killed") == tried(tmp_path / "whole")
    assert drive(tmp_path / "killed", experiment, reached) == over, "it ends at once where nothing has changed"
    more = tried(tmp_path / "killed")
    drive(tmp_path / "killed", gaining(make, "0.01%", budget={"trials": len(more) + 2, "gain": 1e-4}), reached)
    assert len(tried(tmp_path / "killed")) > len(more)


def test_what_still_runs_may_change_it_and_is_waited_for(make: Make, tmp_path: Path) -> None:
    experiment = gaining(make, 0.9)
    recorder, study_trials = opened_with_curves(tmp_path, experiment)
    for _ in range(16):
        assert prospect.wants(study_trials, recorder.watch), "of the quasi-random trials none is left out"
        number, sampled = study_trials.ask()
        recorder.start(number, sampled, experiment.resolve(sampled))
        if number == 15:
            break
        for epoch in range(1, EPOCHS + 1):
            decision = hand_in(recorder, number, measured(sampled, number, epoch))
            if decision is not None and not decision.goes_on:
                break
        recorder.end(number)
        if number == 14:
            recorder.watch.budget = Budget()  # one begins nevertheless
    recorder.watch.budget = experiment.budget
    assert not prospect.wants(study_trials, recorder.watch)
    assert recorder.watch.over() is None
    recorder.end(15, "NaN")
    assert not prospect.wants(study_trials, recorder.watch)
    over = recorder.watch.over()
    assert over is not None
    assert over.budget == "gain"


def test_it_is_said_in_one_line_what_another_trial_and_ten_would_add_and_cost(make: Make, tmp_path: Path) -> None:
    experiment = make(**GAIN, resources={"price": {"usd_per_device_hour": 36.0}})
    recorder, study_trials = opened_with_curves(tmp_path / "new", experiment)
    assert prospect.line(study_trials, recorder.watch) is None
    drive(tmp_path / "done", experiment, {})
    recorder, study_trials = opened_with_curves(tmp_path / "done", experiment)
    recorder.watch.attempt("small-00000", 1, 22000.0)
    text = prospect.line(study_trials, recorder.watch)
    assert text is not None
    assert text.startswith("expected: another trial adds ")
    assert f"hypervolume of {study_trials.record.state.front.hypervolume:.4f}; 10 more, about 2 h 46 min of " in text
    assert re.search(r" of a device and 100\.\d\d usd, add [\d.]+ %$", text)
    assert study_trials.curves is not None
    gains = study_trials.curves.promises(4)
    assert gains[0] == prospect.promise(study_trials), "and looking ahead has changed nothing"
    assert sum(gains) > gains[0] > 0


def test_it_is_also_said_where_time_ended_the_search_and_trials_wait(make: Make, tmp_path: Path) -> None:
    experiment = make(**GAIN)
    drive(tmp_path, experiment, {})
    recorder, study_trials = opened_with_curves(tmp_path, experiment)
    study_trials.put_back(study_trials.ask().number)
    assert study_trials.has_more
    text = prospect.line(study_trials, recorder.watch)
    assert text is not None
    assert text.startswith("expected: another trial adds ")


def test_a_search_in_which_no_trial_meets_the_constraints_ends_too(make: Make, tmp_path: Path) -> None:
    never = {"clean_accuracy": {"min": 0.999}}
    experiment = gaining(make, "5%", constraints=never, budget={"trials": 200, "gain": "5%"}, early_stopping=None)
    over = drive(tmp_path, experiment, {})
    assert over is not None
    assert over.budget == "gain"
    assert over.reason.endswith("% of that of the trials that broke a constraint: none met them, less than 5 %")
    assert 16 <= len(tried(tmp_path)) < 60


@pytest.mark.parametrize("written", ["0.1%", "0.1 %", 0.001])
def test_a_share_is_written_as_a_percentage_or_a_number(written: Any) -> None:
    assert Budget.model_validate({"gain": written}).gain == pytest.approx(0.001)


@pytest.mark.parametrize("written", ["x%", "100%", 0, "some"])
def test_no_other_share_is_taken(written: Any) -> None:
    with pytest.raises(ValueError, match="gain"):
        Budget.model_validate({"gain": written})


def test_without_curves_nobody_knows_what_a_trial_would_add(make: Make, tmp_path: Path) -> None:
    wrong = make(sampler={"name": "tpe"}, budget={"trials": 9, "gain": "0.1%"})
    fix = "needs a sampler that knows what a trial would add; write `sampler: {name: curves}`"
    assert f"budget.gain: 0.1% {fix}" in list(problems(wrong))
    with pytest.raises(ValueError, match="--gain 2% needs a sampler"):
        make(sampler={"name": "tpe"}).with_budget(gain="2%")
    assert make(sampler={"name": "curves"}).with_budget(gain="2%").budget.gain == 0.02
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(EXPERIMENT | {"sampler": {"name": "curves"}}))
    result = CliRunner().invoke(main, ["tune", str(file), "--gain", "2%", "--dry-run"])
    assert "a trial that promises under 2 % of the hypervolume" in result.output
