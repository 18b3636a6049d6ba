"""The study_trials: which trials exist, how they ended, and what a process killed at any moment leaves behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from arat_ray.experiment.spec import Experiment, Sampler
from arat_ray.study.samplers import make_sampler
from arat_ray.study.trials import StudyTrials
from tests.study.driving import DrivenTrials

Make = Callable[..., Experiment]
TWO = {"choice": {"last": ["bn3"], "two": ["bn2", "bn3"]}}


def states(study_trials: StudyTrials) -> list[str]:
    return [trial.state.name for trial in study_trials.study.trials]


def test_trials_are_numbered_from_zero_and_ended_ones_are_remembered(make: Make, tmp_path: Path) -> None:
    study_trials = DrivenTrials(tmp_path, make())
    first, second, third = study_trials.ask(), study_trials.ask(), study_trials.ask()
    assert [first.number, second.number, third.number] == [0, 1, 2]
    study_trials.complete(0, [0.9, 0.4])
    study_trials.fail(1, "NaN")
    assert study_trials.ended() == {0, 1}
    assert states(study_trials) == ["COMPLETE", "FAIL", "RUNNING"]
    assert study_trials.study.trials[0].values == [0.9, 0.4]
    assert study_trials.study.trials[1].user_attrs["reason"] == "NaN"


def test_a_trial_that_was_running_when_the_process_died_is_asked_for_again(make: Make, tmp_path: Path) -> None:
    died = DrivenTrials(tmp_path, make())
    asked = [died.ask() for _ in range(3)]
    died.complete(1, [0.9, 0.4])
    resumed = DrivenTrials(tmp_path, make())
    assert states(resumed) == ["RUNNING", "COMPLETE", "RUNNING"]
    assert resumed.ended() == {1}
    again = [resumed.ask(), resumed.ask()]
    assert again == [asked[0], asked[2]]
    assert resumed.ask().number == 3


def test_a_process_that_died_again_and_again_loses_and_doubles_nothing(make: Make, tmp_path: Path) -> None:
    sampled: dict[int, object] = {}
    for _ in range(4):
        study_trials = DrivenTrials(tmp_path, make())
        for _ in range(2):
            asked = study_trials.ask()
            assert sampled.setdefault(asked.number, asked.sampled) == asked.sampled
    assert sorted(sampled) == [0, 1]


GRID = {
    "search": {"method.invariance_weight": {"choice": [0.5, 5.0]}, "method.layers": TWO},
    "sampler": {"name": "grid", "seed": 0},
    "budget": {},
}
FIRST = {"first": [{"method.invariance_weight": float(n), "method.layers": "two"} for n in (1, 2, 3, 4)]}


@pytest.mark.parametrize("fields", [GRID, FIRST], ids=["grid", "first"])
def test_a_process_that_died_within_any_write_to_the_record_changes_no_trial(
    fields: dict[str, Any], make: Make, tmp_path: Path
) -> None:
    whole = DrivenTrials(tmp_path / "whole", make(**fields))
    known = {asked.number: asked.sampled for asked in (whole.ask() for _ in range(4))}
    assert whole.record.flush()
    name = "journal/record-00000.jsonl"
    content = (tmp_path / "whole" / name).read_bytes()
    ends = [i + 1 for i, byte in enumerate(content) if byte == ord("\n")]
    for count in [0, 5, *(end + cut for end in ends for cut in (-2, -1, 0, 1, 20))]:
        record = tmp_path / f"{count}" / name
        record.parent.mkdir(parents=True)
        record.write_bytes(content[:count])
        study_trials = DrivenTrials(tmp_path / f"{count}", make(**fields))
        assert {asked.number: asked.sampled for asked in (study_trials.ask() for _ in range(4))} == known, count


def test_a_point_put_before_those_that_ran_is_the_one_that_is_new(make: Make, tmp_path: Path) -> None:
    old = {"method.invariance_weight": 3.0, "method.layers": "two"}
    new = {"method.invariance_weight": 5.0}
    study_trials = DrivenTrials(tmp_path, make(first=[old]))
    assert study_trials.ask().sampled == old
    study_trials.complete(0, [0.5, 0.5])
    resumed = DrivenTrials(tmp_path, make(first=[new, old, old]))
    assert resumed.ask().sampled["method.invariance_weight"] == 5.0
    assert resumed.ask().sampled == old, "written twice, it is to run twice"
    assert resumed.ask().sampled["method.invariance_weight"] not in (3.0, 5.0)


def test_a_search_that_becomes_a_grid_runs_the_combinations_that_were_not_given(make: Make, tmp_path: Path) -> None:
    point = {"method.invariance_weight": 5.0, "method.layers": "last"}
    study_trials = DrivenTrials(
        tmp_path, make(**GRID | {"sampler": {"name": "random", "seed": 0}, "first": [point], "budget": {"trials": 1}})
    )
    assert study_trials.ask().sampled == point
    study_trials.complete(0, [0.5, 0.5])
    grid = DrivenTrials(tmp_path, make(**GRID))
    asked = [grid.ask().sampled for _ in range(3)]
    assert sorted([tuple(each.values()) for each in [*asked, point]]) == [
        (0.5, "last"),
        (0.5, "two"),
        (5.0, "last"),
        (5.0, "two"),
    ]


def test_a_trial_that_was_put_back_is_the_next_one_asked_for(make: Make, tmp_path: Path) -> None:
    study_trials = DrivenTrials(tmp_path, make())
    asked = study_trials.ask()
    study_trials.put_back(asked.number)
    assert study_trials.ended() == set()
    assert study_trials.ask() == asked


@pytest.mark.parametrize("name", ["curves", "tpe", "random", "nsga2", "gp"])
def test_a_study_that_goes_on_does_not_propose_what_it_had_before(name: str, make: Make, tmp_path: Path) -> None:
    proposed = []
    for _ in range(3):
        study_trials = DrivenTrials(tmp_path, make(sampler={"name": name, "seed": 0}))
        for _ in range(3):
            asked = study_trials.ask()
            study_trials.complete(asked.number, [0.5, 0.5])
            proposed.append(tuple(asked.sampled.items()))
    assert len(set(proposed)) == 9


def test_known_good_points_come_first_and_once(make: Make, tmp_path: Path) -> None:
    points = [{"method.invariance_weight": 3.0, "method.layers": "two"}, {"method.invariance_weight": 5.0}]
    study_trials = DrivenTrials(tmp_path, make(first=points))
    assert study_trials.ask().sampled == points[0]
    resumed = DrivenTrials(tmp_path, make(first=points))
    assert {resumed.ask().sampled["method.invariance_weight"] for _ in range(2)} == {3.0, 5.0}
    assert resumed.ask().number == 2


def test_an_interrupted_trial_comes_before_the_points_that_nobody_was_given_yet(make: Make, tmp_path: Path) -> None:
    search = {"epochs": {"choice": [1, 2, 3, 4]}}
    experiment = make(search=search, sampler={"name": "grid", "seed": 0}, budget={})
    died = DrivenTrials(tmp_path, experiment)
    died.complete(died.ask().number, [0.5, 0.5])
    interrupted = died.ask()
    resumed = DrivenTrials(tmp_path, experiment)
    asked = [resumed.ask() for _ in range(3)]
    assert asked[0] == interrupted
    assert [(each.number, each.sampled["epochs"]) for each in asked] == [(1, 2), (2, 3), (3, 4)]


def test_a_point_that_is_added_later_gets_a_number_of_its_own(make: Make, tmp_path: Path) -> None:
    DrivenTrials(tmp_path, make()).ask()
    point = {"method.invariance_weight": 3.0, "method.layers": "two"}
    extended = DrivenTrials(tmp_path, make(first=[point]))
    assert extended.ask().number == 0
    assert extended.ask() == (1, point)


def test_a_grid_is_every_combination_once(make: Make, tmp_path: Path) -> None:
    search = {
        "method.layers": {"choice": {"last": ["bn3"], "two": ["bn2", "bn3"]}},
        "epochs": {"choice": [1, 2, 3]},
        "batch_size": {"choice": [32, 64], "when": {"method.layers": "two"}},
    }
    experiment = make(search=search, sampler={"name": "grid", "seed": 0}, budget={})
    assert experiment.trials == 9
    study_trials = DrivenTrials(tmp_path, experiment)
    for _ in range(4):
        study_trials.complete(study_trials.ask().number, [0.5, 0.5])
    resumed = DrivenTrials(tmp_path, experiment)
    assert len(resumed.ended()) == 4
    for _ in range(5):
        resumed.complete(resumed.ask().number, [0.5, 0.5])
    done = [tuple(trial.params.items()) for trial in resumed.study.get_trials(states=[TrialState.COMPLETE])]
    assert len(set(done)) == 9


def test_the_view_beside_is_an_optuna_study_with_named_goals(make: Make, tmp_path: Path) -> None:
    study_trials = DrivenTrials(tmp_path, make())
    study_trials.complete(study_trials.ask().number, [0.9, 0.4])
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(tmp_path / "journal" / "optuna.log"))
    )
    study = optuna.load_study(study_name="small", storage=storage)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE]
    assert study.metric_names == ["clean_accuracy", "robust_accuracy"]
    assert [trial.values for trial in study.best_trials] == [[0.9, 0.4]]


@pytest.mark.parametrize("name", ["curves", "tpe", "random", "nsga2", "gp"])
def test_every_sampler_proposes_within_the_space_and_by_its_seed(name: str, make: Make, tmp_path: Path) -> None:
    proposed = []
    for run in range(2):
        study_trials = DrivenTrials(tmp_path / str(run), make(sampler={"name": name, "seed": 3}))
        for _ in range(12):
            asked = study_trials.ask()
            assert 0.1 <= asked.sampled["method.invariance_weight"] <= 10
            weight = asked.sampled["method.invariance_weight"]
            study_trials.complete(asked.number, [weight / 10, 1 - weight / 10])
            proposed.append(asked)
    assert proposed[:12] == proposed[12:]
    assert type(make_sampler(Sampler.model_validate({"name": name, "seed": 0}))).__name__.lower().startswith(name[:3])


def test_the_view_of_a_study_that_goes_on_holds_all_its_trials_and_is_never_read(make: Make, tmp_path: Path) -> None:
    view = tmp_path / "journal" / "optuna.log"
    first = DrivenTrials(tmp_path, make(sampler={"name": "nsga2", "seed": 0}))
    first.complete(first.ask().number, [0.9, 0.4], {"robust_accuracy.min": -0.5})
    first.fail(first.ask().number, "NaN")
    first.ask()
    assert first.record.flush()
    before = first.study.get_trials()
    for damage in (b"", b"\0" * 100, b"no journal", None):
        view.unlink() if damage is None else view.write_bytes(damage)
        resumed = DrivenTrials(tmp_path, make(sampler={"name": "nsga2", "seed": 0}))
        storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(view)))
        for study in (resumed.study, optuna.load_study(study_name="small", storage=storage)):
            for one, other in zip(before, study.get_trials(), strict=True):
                assert (one.state, one.values, one.params) == (other.state, other.values, other.params)
                assert (one.user_attrs, one.system_attrs) == (other.user_attrs, other.system_attrs)


def test_a_view_that_cannot_be_written_stops_nothing_and_is_whole_later(make: Make, tmp_path: Path) -> None:
    view = tmp_path / "journal" / "optuna.log"
    view.mkdir(parents=True)
    study_trials = DrivenTrials(tmp_path, make())
    study_trials.complete(study_trials.ask().number, [0.9, 0.4])
    view.rmdir()
    study_trials.complete(study_trials.ask().number, [0.5, 0.5])
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(view)))
    assert [trial.values for trial in optuna.load_study(study_name="small", storage=storage).trials] == [
        [0.9, 0.4],
        [0.5, 0.5],
    ]
