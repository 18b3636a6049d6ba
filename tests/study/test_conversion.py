"""A study that an earlier version wrote (`of_before`, by revision 0.1.0 of before there was a record) goes on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from arat_ray.experiment.config import load
from arat_ray.results import reader
from arat_ray.results.schema import TABLES
from arat_ray.study import folder as study_folder
from arat_ray.study.trials import StudyTrials
from tests.study.test_rebuild import call


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Six trials: three are complete, one on its second attempt, one has failed, one was stopped, one interrupted."""
    return Path(shutil.copytree(Path(__file__).parent / "of_before", tmp_path / "small"))


def rows(study: Path) -> dict[str, dict[Any, Any]]:
    found = {}
    for name, (key, _) in TABLES.items():
        found[name] = {tuple(row[each] for each in key): row for row in reader.read(study, name).to_pylist()}
    return found


def resumed(study: Path) -> tuple[list[str], dict[int, str], Any]:
    told: list[str] = []
    experiment = load(study / "study.yaml")
    with study_folder.claim(
        study, experiment, study / "study.yaml", kind="tune", resume=True, warn=told.append
    ) as record:
        trials = StudyTrials(experiment, record)
        asked = trials.ask()
        states = {trial.user_attrs["number"]: trial.state.name for trial in trials.study.get_trials(deepcopy=False)}
        assert record.flush(final=True)
    return told, states, asked


def test_it_is_read_as_it_is_and_gets_its_record_when_it_is_resumed(study: Path) -> None:
    before, files = rows(study), {path.name: path.read_bytes() for path in (study / "journal").rglob("*.*")}
    assert "front: 1 of 6 trials" in call("pareto", study)
    assert "has no record yet" in call("results", "verify", study, code=2)
    told, states, asked = resumed(study)
    assert len(told) == 1
    assert "is of an earlier version; it has got its record, and the files of before are in" in told[0]
    assert rows(study) == before
    ended = {0: "COMPLETE", 1: "COMPLETE", 2: "FAIL", 3: "COMPLETE", 4: "PRUNED"}
    assert states == ended | {5: "RUNNING"}
    assert asked.number == 5
    kept = {path.name: path.read_bytes() for path in (study / "journal" / "before-record").iterdir()}
    assert kept == files
    assert "OK" in call("results", "verify", study)
    assert len(json.loads((study / "study.json").read_text())["started_at"]) == 2
    told, states_again, asked_again = resumed(study)
    assert (told, states_again, asked_again) == ([], states, asked)


def test_what_its_log_has_and_its_damaged_tables_have_not_is_taken_from_the_log(study: Path) -> None:
    before = rows(study)
    for name in TABLES:
        part = study / name / "part-00000.parquet"
        part.write_bytes(part.read_bytes()[:-50])
    with pytest.raises(ValueError, match="results rebuild"):
        resumed(study)
    assert "record: written again" in call("results", "rebuild", study)
    assert rows(study) == before
    assert "OK" in call("results", "verify", study)


def test_without_its_log_and_optunas_journal_its_tables_are_enough(study: Path) -> None:
    before = rows(study)
    shutil.rmtree(study / "journal")
    _, states, asked = resumed(study)
    assert rows(study) == before
    assert (states[4], asked.number) == ("PRUNED", 5)
    assert "OK" in call("results", "verify", study)
