"""Warm start: which trials of an earlier study this search can learn from, and that they are no trials of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.samplers import NSGAIISampler
from optuna.trial import TrialState

from arat_ray.experiment.spec import Experiment
from arat_ray.study import folder as study_folder
from arat_ray.study import warm_start
from arat_ray.study.trials import StudyTrials
from tests.study.conftest import EXPERIMENT, PGD, TRAIN
from tests.study.driving import DrivenTrials
from tests.study.test_recorder import message, open_study

Make = Callable[..., Experiment]
WEIGHT, LAYERS = "method.invariance_weight", "method.layers"
TWO = {"last": ["bn3"], "two": ["bn2", "bn3"]}


def ran(folder: Path, experiment: Experiment, *samples: dict[str, Any], clean: float = 0.9) -> Path:
    """A study whose trials are these samples, each as clean as `clean` and less robust, the heavier its weight."""
    recorder, _, _ = open_study(folder, experiment)
    for number, sampled in enumerate(samples):
        train = experiment.resolve(sampled)
        recorder.start(number, sampled, train)
        recorder.report(number, message(train.epochs, clean=clean, robust=1 / (1 + sampled.get(WEIGHT, 1))))
        recorder.end(number)
    recorder.close("interrupted")
    return folder


def point(weight: float, layers: str = "two") -> dict[str, Any]:
    return {WEIGHT: weight, LAYERS: layers}


def searching(make: Make, search: dict[str, Any], **fields: Any) -> Experiment:
    return make(name="next", search=search, **fields)


def test_complete_trials_are_told_to_the_sampler_and_are_no_trials_of_the_study(make: Make, tmp_path: Path) -> None:
    study = ran(tmp_path / "small", make(), point(2.0), point(3.0, "last"))
    experiment = make(name="next")
    found = warm_start.read(study, experiment)
    assert [known.sampled for known in found.known] == [point(2.0), point(3.0, "last")]
    assert [known.goals for known in found.known] == [[0.9, 1 / 3], [0.9, 0.25]]
    study_trials = DrivenTrials(tmp_path / "next", experiment)
    assert study_trials.learn(found.known) == 2
    assert [trial.state for trial in study_trials.study.trials] == [TrialState.COMPLETE] * 2
    assert study_trials.ended() == set()
    assert study_trials.ask().number == 0
    assert found.lines() == [f"learning from {study}: 2 of 2 complete trials"]


def test_learning_twice_and_after_a_resume_is_learning_once(make: Make, tmp_path: Path) -> None:
    experiment = make(name="next")
    known = warm_start.read(ran(tmp_path / "small", make(), point(2.0), point(3.0)), experiment).known
    first = DrivenTrials(tmp_path / "next", experiment)
    assert first.learn(known[:1]) == 1  # ... and killed here
    resumed = DrivenTrials(tmp_path / "next", experiment)
    assert resumed.learn(known) == 1
    assert resumed.learn(known) == 0
    assert len(resumed.study.trials) == 2


def test_a_study_is_known_again_where_it_was_moved(make: Make, tmp_path: Path) -> None:
    study = ran(tmp_path / "small", make(), point(2.0))
    before = warm_start.read(study, make()).known
    study.rename(tmp_path / "moved")
    assert warm_start.read(tmp_path / "moved", make()).known == before


@pytest.mark.parametrize("name", ["curves", "tpe", "nsga2"])
def test_the_sampler_proposes_where_earlier_trials_were_good(name: str, make: Make, tmp_path: Path) -> None:
    weights = [0.1 * 1.03**i for i in range(60)]  # robustness falls with the weight, and nothing rises
    study = ran(tmp_path / "small", make(), *(point(weight) for weight in weights))
    experiment = make(name="next", sampler={"name": name, "seed": 1})
    proposed = []
    for learns in (False, True):
        study_trials = DrivenTrials(tmp_path / f"next-{learns}", experiment)
        study_trials.learn(warm_start.read(study, experiment).known if learns else [])
        asked = 1 if name == "curves" else 9  # it believes that the first ones will be good, and looks elsewhere
        proposed.append(sorted(study_trials.ask().sampled[WEIGHT] for _ in range(asked))[asked // 2])
    cold, warm = proposed
    assert warm < max(weights) < cold


def test_nsga2_counts_what_it_was_told_as_its_first_generation(make: Make, tmp_path: Path) -> None:
    study = ran(tmp_path / "small", make(), *(point(1 + i / 10) for i in range(50)))
    experiment = make(name="next", sampler={"name": "nsga2", "seed": 1})
    study_trials = DrivenTrials(tmp_path / "next", experiment)
    study_trials.learn(warm_start.read(study, experiment).known)
    study_trials.ask()
    sampler = study_trials.study.sampler
    assert isinstance(sampler, NSGAIISampler)
    assert sampler.get_trial_generation(study_trials.study, study_trials.study.trials[-1]) == 1


def test_what_the_other_study_fixed_in_train_takes_its_value_there(make: Make, tmp_path: Path) -> None:
    other = make(search={LAYERS: {"choice": TWO}}, train=TRAIN | {"batch_size": 32})
    study = ran(tmp_path / "small", other, {LAYERS: "last"})
    search = {WEIGHT: {"uniform": [0, 5]}, "batch_size": {"choice": [32, 64]}, LAYERS: {"choice": TWO}}
    (known,) = warm_start.read(study, searching(make, search)).known
    assert known.sampled == {WEIGHT: 1.0, "batch_size": 32, LAYERS: "last"}


def test_a_value_without_a_label_there_is_found_by_what_it_stands_for(make: Make, tmp_path: Path) -> None:
    study = ran(tmp_path / "small", make(search={WEIGHT: {"uniform": [0, 5]}}), {WEIGHT: 2.0})
    (known,) = warm_start.read(study, make()).known
    assert known.sampled == point(2.0, "last")


def test_a_trial_outside_of_the_domains_is_left_out_with_the_reason(make: Make, tmp_path: Path) -> None:
    study = ran(tmp_path / "small", make(), point(2.0), point(6.0), point(7.0), point(1.0, "last"))
    search = {WEIGHT: {"uniform": [0, 5]}, LAYERS: {"choice": {"two": ["bn2", "bn3"], "all": ["bn?"]}}}
    found = warm_start.read(study, searching(make, search))
    assert [known.sampled for known in found.known] == [point(2.0)]
    assert found.lines()[0].endswith("1 of 4 complete trials")
    assert found.lines()[1:] == [
        "  2 not: method.invariance_weight: 6.0 is not within [0, 5]",
        "  1 not: method.layers: 'last' is none of 'two', 'all'",
    ]


def test_a_label_that_stands_for_another_value_is_another_choice(make: Make, tmp_path: Path) -> None:
    study = ran(tmp_path / "small", make(), point(2.0, "last"), point(2.0, "two"))
    search = {LAYERS: {"choice": {"last": ["bn2"], "two": ["bn2", "bn3"]}}}
    found = warm_start.read(study, searching(make, search))
    assert [known.sampled for known in found.known] == [{LAYERS: "two"}]
    (line,) = [line for line in found.lines() if " not: " in line]
    assert "'last' stands for [\"bn3\"] there and for another value here" in line


def test_a_parameter_that_is_missing_on_both_sides_leaves_a_trial_out(make: Make, tmp_path: Path) -> None:
    methods = {"arat": TRAIN["method"], "trades": {"name": "trades", "beta": 6}}
    arat = make(train=TRAIN | {"method": methods["arat"]})
    study = ran(tmp_path / "arat", arat, point(1.0, "last"))
    search = {"method.beta": {"uniform": [1, 9]}}
    trades = searching(make, search, train=TRAIN | {"method": methods["trades"]})
    with pytest.raises(ValueError, match=r"none of its 1 .* method.beta is neither searched nor in `train` there"):
        warm_start.read(study, trades)


def test_methods_as_subtrees_are_matched_without_what_is_searched_below_them(make: Make, tmp_path: Path) -> None:
    methods = {"trades": {"name": "trades", "beta": 6}, "plain": {"name": "pgd_at"}}
    search = {
        "method": {"choice": methods},
        "method.beta": {"uniform": [1, 9], "when": {"method": "trades"}},
    }
    both = make(search=search)
    samples: list[dict[str, Any]] = [{"method": "trades", "method.beta": 2.5}, {"method": "plain"}]
    study = ran(tmp_path / "small", both, *samples)
    assert [known.sampled for known in warm_start.read(study, both).known] == samples


@pytest.mark.parametrize(
    ("validate", "message"),
    [
        ({"attack": PGD | {"steps": 3}}, "with the attack pgd-1 there and pgd-3 here"),
        ({"attack": PGD | {"norm": "l2"}}, "with the norm linf there and l2 here"),
        ({"attack": PGD | {"epsilon": 0.1}}, "with the epsilon 0.2 there and 0.1 here"),
        ({"split": "test"}, "with the split validation there and test here"),
    ],
)
def test_a_study_that_was_measured_otherwise_is_refused(
    validate: dict[str, Any], message: str, make: Make, tmp_path: Path
) -> None:
    study = ran(tmp_path / "small", make(), point(2.0))
    images = {"images": 360} if "split" in validate else {}
    with pytest.raises(ValueError, match=message):
        warm_start.read(study, make(validate=EXPERIMENT["validate"] | validate | images))


def test_other_goals_no_complete_trial_no_study_and_samplers_that_cannot_learn_are_refused(
    make: Make, tmp_path: Path
) -> None:
    study = ran(tmp_path / "small", make(), point(2.0))
    with pytest.raises(ValueError, match="it maximises clean_accuracy, robust_accuracy, this search robust_accuracy"):
        warm_start.read(study, make(maximize=["robust_accuracy"]))
    with pytest.raises(ValueError, match="the sampler random learns from no trial"):
        warm_start.read(study, make(sampler={"name": "random", "seed": 0}))
    with pytest.raises(ValueError, match="there is no folder"):
        warm_start.read(tmp_path / "smal", make())
    with pytest.raises(ValueError, match="none of its 0 complete trials can be used: it has none that is complete"):
        warm_start.read(ran(tmp_path / "empty", make()), make())


def test_goals_in_another_order_are_told_in_the_order_of_this_search(make: Make, tmp_path: Path) -> None:
    study = ran(tmp_path / "small", make(), point(3.0))
    turned = make(maximize=["robust_accuracy", "clean_accuracy"])
    assert [known.goals for known in warm_start.read(study, turned).known] == [[0.25, 0.9]]


def test_what_else_differs_in_the_runs_is_said(make: Make, tmp_path: Path) -> None:
    other = make(train=TRAIN | {"epochs": 1, "seed": 7})
    found = warm_start.read(ran(tmp_path / "small", other, point(2.0)), make())
    assert found.lines()[1:] == ["  its runs differ from these: epochs is 1 there and 2 here"]


def test_study_json_says_what_was_learned_from_and_keeps_it(make: Make, tmp_path: Path) -> None:
    source = tmp_path / "next.yaml"
    source.write_text("name: next")
    found = warm_start.read(ran(tmp_path / "small", make(), point(2.0)), make())
    for _ in range(2):
        with study_folder.claim(tmp_path / "next", make(), source, kind="tune", resume=True) as record:
            StudyTrials(make(), record).learn(found.known, source=found.as_json())
            assert record.flush(final=True)
    with study_folder.claim(tmp_path / "next", make(), source, kind="tune", resume=True):
        (there,) = json.loads((tmp_path / "next" / "study.json").read_text())["from"]
    assert there["study"] == str(tmp_path / "small")
    assert (there["of"], len(there["taken"])) == (1, 1)
