"""The experiment that confirms a front: which seeds, which members, and when it is another one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from arat_ray.experiment.config import load
from arat_ray.experiment.spec import Experiment
from arat_ray.results import reader
from arat_ray.study import confirmation, rerun_config
from tests.study.studies import study_of

Make = Callable[..., Experiment]
SAMPLES = [
    {"method.invariance_weight": 1 / 3, "method.layers": "two"},
    {"method.invariance_weight": 2.0, "method.layers": "last"},
    {"method.invariance_weight": 9.0, "method.layers": "last"},
]
MEMBERS = ["small-00000", "small-00002"]


@pytest.fixture
def study(make: Make, tmp_path: Path) -> Path:
    return study_of(make(), tmp_path, *SAMPLES)


def plan(study: Path, *, seeds: int = 3, epochs: int | None = None, members: list[str] = MEMBERS) -> Experiment:
    """The experiment of a confirmation, which is begun: its folder holds study.yaml and study.json."""
    folder = rerun_config.confirmation_of(study, None)
    with confirmation.planned(study, folder, members, seeds=seeds, epochs=epochs) as (experiment, source):
        folder.mkdir(exist_ok=True)
        (folder / "study.yaml").write_bytes(source.read_bytes())
        description = {"experiment": experiment.model_dump(mode="json", by_alias=True)}
        (folder / "study.json").write_text(json.dumps(description))
    return experiment


def test_every_member_is_its_own_run_with_new_seeds_one_seed_after_the_other(study: Path, make: Make) -> None:
    experiment, original = plan(study), make()
    points = list(experiment.grid())[: experiment.trials]
    assert [(point["seed"], point["member"]) for point in points] == [(1, 0), (1, 2), (2, 0), (2, 2), (3, 0), (3, 2)]
    for point in points:
        run = original.resolve(SAMPLES[point["member"]])
        assert experiment.resolve(point) == run.model_copy(update={"seed": point["seed"]})
    assert experiment.validation == original.validation
    assert experiment.resources == original.resources
    assert experiment.early_stopping is None


def test_the_file_is_an_experiment_of_its_own_and_says_where_it_comes_from(study: Path) -> None:
    experiment = plan(study)
    path = study.parent / "small-confirm" / "study.yaml"
    assert load(path) == experiment
    assert path.read_text().startswith(
        f"# The front of {study} with new seeds, as `arat-ray confirm` wrote it: its tri"
    )


def test_more_seeds_are_the_same_experiment_with_a_larger_budget(study: Path) -> None:
    few, many = plan(study, seeds=3), plan(study, seeds=50)
    assert few.identity() == many.identity()
    assert (few.trials, many.trials) == (6, 100)
    assert list(many.grid())[:6] == list(few.grid())[:6]


def test_seeds_are_the_smallest_numbers_that_no_trial_had(make: Make, tmp_path: Path) -> None:
    experiment = make(search={"seed": {"choice": [0, 1, 3]}})
    study = study_of(experiment, tmp_path, *({"seed": seed} for seed in (0, 3, 1)))
    listed = plan(study, members=["small-00001"]).search["seed"].labels
    assert listed is not None
    assert (listed[:3], len(listed)) == ([2, 4, 5], 50)


def test_a_confirmation_keeps_its_seeds_when_the_study_goes_on(make: Make, tmp_path: Path) -> None:
    experiment = make(search={"seed": {"choice": [0, 1]}})
    study = study_of(experiment, tmp_path, {"seed": 0})
    before = plan(study, members=["small-00000"])
    study_of(experiment, tmp_path, {"seed": 0}, {"seed": 1})
    assert reader.read(study, "trials", ["seed"])["seed"].to_pylist() == [0, 1]
    assert plan(study, members=["small-00000"]).identity() == before.identity()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"members": ["small-00000", "small-00001"]}, "confirms the trials 0, 2 of "),
        ({"members": ["small-00000", "small-00001"]}, "whose front now is 0, 1; move that folder away, or choose"),
        ({"epochs": 5}, "trains for 2 epochs, not 5; give the same --epochs, move that folder away"),
    ],
)
def test_other_members_or_epochs_are_refused(changes: dict[str, Any], message: str, study: Path) -> None:
    plan(study)
    with pytest.raises(ValueError, match=re.escape(message)):
        plan(study, **changes)


def test_epochs_can_be_fewer_and_what_cannot_be_trained_is_named(make: Make, tmp_path: Path) -> None:
    study = study_of(make(), tmp_path, *SAMPLES)
    experiment = plan(study, epochs=1)
    assert {experiment.resolve(point).epochs for point in experiment.grid()} == {1}
    arrest = make().train | {"name": "arrest", "method": {"name": "arrest", "standard_epochs": 1}}
    arrest.pop("name")
    study = study_of(make(name="slow", train=arrest, search={}), tmp_path, {})
    message = "slow cannot be confirmed: train: method.standard_epochs 1 leaves none of 1 epochs to finetune"
    with pytest.raises(ValueError, match=re.escape(message)):
        plan(study, epochs=1, members=["slow-00000"])


def test_a_folder_of_another_study_is_refused(study: Path) -> None:
    folder = rerun_config.confirmation_of(study, None)
    folder.mkdir()
    (folder / "study.json").write_text(json.dumps({"experiment": {"search": {}}}))
    with pytest.raises(ValueError, match="holds another study; choose another place with --results"):
        plan(study)


def test_the_folder_stands_beside_the_study_and_its_name_can_be_one(tmp_path: Path) -> None:
    assert rerun_config.confirmation_of(tmp_path / "small", None) == tmp_path / "small-confirm"
    other = tmp_path / "other"
    assert rerun_config.confirmation_of(tmp_path / "my study", other) == other / "my-study-confirm"
    assert len(rerun_config.confirmation_of(tmp_path / ("x" * 100), None).name) == 100
    assert (
        len(rerun_config.confirmation_of(tmp_path / ("\N{CJK UNIFIED IDEOGRAPH-6F22}" * 83), None).name.encode()) <= 249
    )
