"""Constraints of a study: infeasible trials are told as such to sampler and tables, and never on the front."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from arat_ray.experiment.spec import Experiment
from arat_ray.frontier.pareto import load_front
from arat_ray.report import infeasible, printing
from arat_ray.results import reader
from arat_ray.study import warm_start
from arat_ray.study.warm_start import Known
from tests.study.driving import DrivenTrials
from tests.study.test_recorder import SAMPLED, Witness, message, open_study
from tests.test_cli import call

Make = Callable[..., Experiment]
BOUNDS = {"robust_accuracy": {"min": 0.4}, "epoch_s": {"max": 60}}
MEASURED = [(0.9, 0.5, 10.0), (0.95, 0.3, 10.0), (0.99, 0.6, 90.0)]
"""Clean and robust accuracy and seconds of the last epoch: feasible, not robust enough, too slow."""


def ran(folder: Path, experiment: Experiment, measured: list[tuple[float, float, float]] = MEASURED) -> Witness:
    recorder, witness, _ = open_study(folder, experiment)
    for number, (clean, robust, epoch_s) in enumerate(measured):
        recorder.start(number, SAMPLED, experiment.resolve(SAMPLED))
        for epoch in (1, 2):
            sent = message(epoch, clean=clean, robust=robust)
            sent["row"]["epoch_s"] = epoch_s if epoch == 2 else 1000.0
            recorder.report(number, sent)
        recorder.end(number)
    return witness


def test_the_tables_say_which_trials_are_feasible_and_what_others_broke(make: Make, tmp_path: Path) -> None:
    witness = ran(tmp_path, make(constraints=BOUNDS))
    rows = reader.read(tmp_path, "trials").to_pylist()
    assert [row["feasible"] for row in rows] == [True, False, False]
    assert [row["broken_constraints"] for row in rows] == [
        None,
        "robust_accuracy 0.3 is below 0.4",
        "epoch_s 90 is above 60",
    ]
    assert [row["on_front"] for row in rows] == [True, False, False]
    assert [row["status"] for row in rows] == ["complete"] * 3
    assert witness.violations == pytest.approx({"robust_accuracy.min": -0.5, "epoch_s.max": 0.5})


def test_without_constraints_feasibility_is_not_known(make: Make, tmp_path: Path) -> None:
    witness = ran(tmp_path, make())
    assert [row["feasible"] for row in reader.read(tmp_path, "trials").to_pylist()] == [None] * 3
    assert witness.violations == {}


def test_the_front_leaves_infeasible_trials_out_and_says_how_many(make: Make, tmp_path: Path) -> None:
    ran(tmp_path, make(constraints=BOUNDS))
    front = load_front([tmp_path])
    assert [trial["number"] for trial in front.trials] == [0]
    assert front.infeasible == 2
    assert front.hypervolume == pytest.approx(0.45)
    assert printing.as_json(front)["infeasible"] == 2
    assert load_front([tmp_path], include_partial=True).trials == front.trials
    shown = call("pareto", tmp_path).output
    assert "2 infeasible (--infeasible shows them)" in shown


@pytest.mark.parametrize("form", ["", "--csv", "--json"])
def test_pareto_shows_infeasible_trials_with_what_they_broke(form: str, make: Make, tmp_path: Path) -> None:
    ran(tmp_path, make(constraints=BOUNDS))
    shown = call("pareto", tmp_path, "--infeasible", *filter(None, [form])).output
    assert "small-00001" in shown
    assert "epoch_s 90 is above 60" in shown
    assert "small-00000" not in shown
    if form == "--json":
        assert json.loads(shown) == infeasible.load([tmp_path])
    assert call("pareto", tmp_path, "--infeasible", "--plot", "a.png").exit_code == 2


def test_a_front_without_any_feasible_trial_is_refused_with_what_shows_them(make: Make, tmp_path: Path) -> None:
    ran(tmp_path, make(constraints=BOUNDS), MEASURED[1:])
    done = call("pareto", tmp_path)
    assert done.exit_code == 2
    assert (
        f"every trial that could compete, 2, broke a constraint: arat-ray pareto {tmp_path} --infeasible" in done.output
    )


def test_infeasible_trials_let_a_study_stall(make: Make, tmp_path: Path) -> None:
    experiment = make(constraints=BOUNDS, budget={"stall": 2})
    ran(tmp_path, experiment)
    for _ in range(2):
        recorder, _, _ = open_study(tmp_path, experiment)
        over = recorder.watch.over()
        assert over is not None
        assert over.budget == "stall"


@pytest.mark.parametrize("name", ["curves", "tpe", "nsga2", "gp"])
def test_samplers_avoid_what_was_infeasible(name: str, make: Make, tmp_path: Path) -> None:
    """Trials are the more robust and the less clean, the heavier their weight: without a bound all are on the front."""
    search = {
        "method.invariance_weight": {"uniform": [0, 10]},
        "optimizer.learning_rate": {"uniform": [0.01, 0.1]},
        "epochs": {"choice": [1, 2, 3]},
    }
    told = []
    for i in range(100 if name == "nsga2" else 15 if name == "gp" else 24):  # nsga2 breeds from the best 50
        weight = (i * 0.618) % 1 * 10
        sampled = {"method.invariance_weight": weight, "optimizer.learning_rate": 0.05, "epochs": 1 + i % 3}
        told.append(Known(str(i), sampled, [1 - weight / 20, weight / 20], {"weight.max": (weight - 3) / 3}))
    infeasible_ones: list[float] = []
    for known in ([each._replace(violations={}) for each in told], told):
        experiment = make(search=search, sampler={"name": name, "seed": 0})
        study_trials = DrivenTrials(tmp_path / str(len(infeasible_ones)), experiment)
        study_trials.learn(known)
        asked = [study_trials.ask() for _ in range(2 if name == "gp" else 15 if name == "gp" else 24)]
        infeasible_ones.append(sum(each.sampled["method.invariance_weight"] > 3 for each in asked) / len(asked))
    free, constrained = infeasible_ones
    assert constrained <= free - 0.2


def test_gp_learns_from_an_earlier_study_under_the_constraints_of_this_one(make: Make, tmp_path: Path) -> None:
    ran(tmp_path / "small", make(), MEASURED * 4)
    experiment = make(name="next", constraints=BOUNDS, sampler={"name": "gp", "seed": 0})
    found = warm_start.read(tmp_path / "small", experiment)
    assert [max(known.violations.values()) > 0 for known in found.known[:3]] == [False, True, True]
    study_trials = DrivenTrials(tmp_path / "next", experiment)
    study_trials.learn(found.known)
    assert study_trials.ask().number == 0  # modelled from the 12, with as many constraints each


def test_an_earlier_trial_without_the_constrained_number_is_left_out(make: Make, tmp_path: Path) -> None:
    ran(tmp_path / "small", make())
    experiment = make(name="next", constraints={"cost_usd": {"max": 3}})
    with pytest.raises(ValueError, match=r"constraints.cost_usd was not measured there"):
        warm_start.read(tmp_path / "small", experiment)


def test_a_trial_that_did_not_complete_is_neither(make: Make, tmp_path: Path) -> None:
    experiment = make(constraints=BOUNDS)
    recorder, _, _ = open_study(tmp_path, experiment)
    recorder.start(0, SAMPLED, experiment.resolve(SAMPLED))
    recorder.report(0, {"failed": "NaN"})
    recorder.end(0)
    rows: list[dict[str, Any]] = reader.read(tmp_path, "trials").to_pylist()
    assert [row["feasible"] for row in rows] == [None]
