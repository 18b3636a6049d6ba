"""Experiment files made from trials: what a study's tables and study.json say comes back as the same run."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from arat_ray.experiment.config import load
from arat_ray.experiment.probes import probes
from arat_ray.experiment.spec import Experiment
from arat_ray.study import rerun_config
from arat_ray.training.presets import PRESETS
from arat_ray.training.run import Train
from tests.study.studies import study_of

FILES = sorted((Path(__file__).parent.parent.parent / "search_spaces").glob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_runs_of_every_search_space_come_back_as_they_were(file: Path, tmp_path: Path) -> None:
    experiment = load(file)
    samples = [sampled for _, sampled in probes(experiment)] or [{}]
    samples = samples[:: max(1, len(samples) // 4)]
    study = study_of(experiment, tmp_path, *samples)
    for number, sampled in enumerate(samples):
        trial_id = f"{experiment.name}-{number:05d}"
        path = tmp_path / f"{number}.yaml"
        assert rerun_config.write(rerun_config.run_of(study, trial_id), path) == []
        again = load(path)
        assert again.name == trial_id
        assert again.base == experiment.resolve(sampled)
        assert again.validation == experiment.validation
        assert again.maximize == experiment.maximize
        assert again.resources == experiment.resources.model_copy(update={"concurrent_trials": None})


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_s_run_is_the_same_after_it_was_written_out(name: str) -> None:
    run = Train.model_validate({"preset": name, "dataset": {"name": "cifar10"}, "seed": 0})
    text = rerun_config.as_yaml({"train": run.model_dump(mode="json")}, [])
    assert Train.model_validate(yaml.safe_load(text)["train"]) == run


def test_the_file_says_where_it_comes_from_and_its_hash_is_the_trial_s(
    make: Callable[..., Experiment], tmp_path: Path
) -> None:
    study = study_of(make(), tmp_path, {"method.invariance_weight": 1 / 3, "method.layers": "two"})
    path = tmp_path / "one.yaml"
    rerun_config.write(rerun_config.run_of(study, "small-00000", comments=["chosen by hand"]), path)
    text = path.read_text()
    config = json.dumps(load(path).base.model_dump(mode="json"), sort_keys=True)
    assert text.startswith("# chosen by hand\n# config_hash " + hashlib.sha256(config.encode()).hexdigest()[:16])
    assert load(path).base.method.model_dump()["invariance_weight"] == 1 / 3


def test_a_run_of_an_older_version_is_written_with_what_this_one_adds(
    make: Callable[..., Experiment], tmp_path: Path
) -> None:
    study = study_of(make(), tmp_path, {})
    text = rerun_config.run_of(study, "small-00000").replace("  label_smoothing: 0.0\n", "")
    assert rerun_config.write(text, tmp_path / "old.yaml") == ["label_smoothing"]
    with pytest.raises(ValueError, match="cannot train that run any more: train: unknown key 'smooth'"):
        rerun_config.write(text.replace("train:\n", "train:\n  smooth: 1\n"), tmp_path / "new.yaml")


def test_a_study_that_does_not_say_enough_is_named(make: Callable[..., Experiment], tmp_path: Path) -> None:
    study = study_of(make(), tmp_path, {})
    with pytest.raises(ValueError, match="has no trial small-00007"):
        rerun_config.run_of(study, "small-00007")
    (study / "study.json").write_text("{")
    with pytest.raises(
        ValueError, match=re.escape("study.json is cut off at line 1; make it again with: arat-ray results rebuild")
    ):
        rerun_config.run_of(study, "small-00000")
    (study / "study.json").unlink()
    with pytest.raises(ValueError, match=re.escape("study.json cannot be read (No such file or directory): it says")):
        rerun_config.run_of(study, "small-00000")
