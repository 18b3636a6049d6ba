"""`results importance`: any study's tables, whatever proposed its trials."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from arat_ray.cli import main
from arat_ray.experiment.spec import Experiment
from arat_ray.study.description import metadata, param_types
from arat_ray.study.tables import StudyTables
from tests.study.conftest import EXPERIMENT, TRAIN

WEIGHT, LAYERS, RATE = "method.invariance_weight", "method.layers", "optimizer.learning_rate"
SEARCH: dict[str, Any] = {
    WEIGHT: {"loguniform": [0.1, 10]},
    LAYERS: {"choice": {"one": ["bn3"], "two": ["bn2", "bn3"]}},
    RATE: {"choice": [0.01, 0.1], "when": {LAYERS: "two"}},
}


def study_of(
    folder: Path, trials: int, labels: tuple[Any, Any] = ("one", "two"), until: int = 4, **fields: Any
) -> Path:
    """Random trials of 4 epochs, every third stopped after 2: a heavier weight is more robust by up to 20 points, and
    bn2 adds 10 to both goals. All run yet where they have come `until` an earlier epoch."""
    choice = dict(zip(labels, SEARCH[LAYERS]["choice"].values(), strict=True))
    search = SEARCH | {LAYERS: {"choice": choice}, RATE: SEARCH[RATE] | {"when": {LAYERS: labels[1]}}}
    experiment = Experiment.model_validate(EXPERIMENT | {"train": TRAIN | {"epochs": 4}, "search": search} | fields)
    writer = StudyTables(folder, params=param_types(experiment), metadata=metadata(experiment))
    draw = np.random.default_rng(0)
    for number in range(trials):
        weight, both = float(10 ** draw.uniform(-1, 1)), bool(draw.integers(2))
        sampled: dict[str, Any] = {WEIGHT: weight, LAYERS: labels[both]}
        if both:
            sampled[RATE] = float(draw.choice([0.01, 0.1]))
        has = 0.1 * both
        clean, robust = 0.7 + has, 0.3 + has + 0.1 * np.log10(sampled[WEIGHT])
        row: dict[str, Any] = {"trial_id": f"small-{number:05d}", "attempt": 1, "number": number}
        last = min(2 if number % 3 == 2 else 4, until)
        status = "running" if until < 4 else "complete" if last == 4 else "pruned"
        row |= {"status": status, "is_full_fidelity": last == 4, "epochs_done": last}
        for epoch in range(1, last + 1):
            learned = 1 - 0.4 / epoch**2
            values = {"clean_accuracy": clean * learned, "robust_accuracy": robust * learned}
            of_epoch = {f"validation_{goal}": value for goal, value in values.items()}
            writer.epoch({**row_of(row, epoch), **of_epoch, "validation_images": 5000})
            row |= values
        writer.trial(row | {f"param_{path}": value for path, value in sampled.items()})
    writer.flush()
    given = {"experiment": experiment.model_dump(mode="json", by_alias=True)}
    (folder / "study.json").write_text(json.dumps(given))
    return folder


def row_of(row: dict[str, Any], epoch: int) -> Any:
    return {"trial_id": row["trial_id"], "attempt": 1, "epoch": epoch}


def ask(study: Path, *options: str, code: int = 0) -> str:
    result = CliRunner().invoke(main, ["results", "importance", str(study), *options])
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return study_of(tmp_path_factory.mktemp("importance") / "small", 30)


def test_each_knob_says_what_it_moves_from_tables_alone(study: Path) -> None:
    found = {each["knob"]: each for each in json.loads(ask(study, "--json"))}
    weight = found[WEIGHT]
    assert weight["robust_accuracy"]["effect"] == pytest.approx(0.2, abs=0.03)
    assert weight["robust_accuracy"]["best"] == pytest.approx(10)
    assert weight["clean_accuracy"]["effect"] < 0.02
    assert weight["front"]["low"] > 0
    assert found[RATE]["robust_accuracy"]["effect"] < 0.02
    layers = found[LAYERS]
    assert (layers["clean_accuracy"]["best"], layers["clean_accuracy"]["worst"]) == ("two", "one")
    assert list(layers["members"]) == ["bn2"], "bn3 is in all of them"
    assert layers["members"]["bn2"]["clean_accuracy"]["effect"] == pytest.approx(0.1, abs=0.02)


def test_labels_that_are_integers_are_known_by_them(tmp_path: Path) -> None:
    found = {each["knob"]: each for each in json.loads(ask(study_of(tmp_path / "small", 30, labels=(1, 2)), "--json"))}
    assert found.keys() == {WEIGHT, LAYERS, RATE}
    layers = found[LAYERS]
    assert (layers["clean_accuracy"]["best"], layers["clean_accuracy"]["worst"]) == (2, 1)
    assert layers["clean_accuracy"]["effect"] == pytest.approx(0.1, abs=0.02)
    assert layers["members"]["bn2"]["clean_accuracy"]["effect"] == pytest.approx(0.1, abs=0.02)


def test_trials_that_all_run_yet_say_what_they_have_measured_at_their_first_epoch(tmp_path: Path) -> None:
    study = study_of(tmp_path / "small", 30, until=1)
    weight = next(each for each in json.loads(ask(study, "--json")) if each["knob"] == WEIGHT)
    assert weight["robust_accuracy"]["effect"] == pytest.approx(0.6 * 0.2, abs=0.03)


def test_people_read_points_and_doubts(study: Path) -> None:
    text = ask(study)
    assert "by a model of 30 trials" in text.splitlines()[0]
    assert text.index(WEIGHT) < text.index(RATE), "what moves the front most comes first"
    (line,) = [line for line in text.split(WEIGHT)[1].splitlines()[:4] if "robust accuracy" in line]
    assert " points [" in line
    assert line.endswith("10 over 0.1")
    assert "not told from none" in text.split(RATE)[1]
    assert f"{LAYERS}: settings with a member over those without\n  bn2\n" in text


def test_too_few_trials_and_a_study_in_which_nothing_varies_are_a_message(tmp_path: Path) -> None:
    few = ask(study_of(tmp_path / "few", 5), code=2)
    assert "5 trials have measured something; a model of its knobs needs 8" in few
    nothing = study_of(tmp_path / "single", 9)
    given = json.loads((nothing / "study.json").read_text())
    given["experiment"]["search"] = {}
    (nothing / "study.json").write_text(json.dumps(given))
    assert "nothing varies in it" in ask(nothing, code=2)
    assert "there is no folder" in ask(tmp_path / "nowhere", code=2)


def test_a_search_for_one_goal_has_a_front_of_one_point(tmp_path: Path) -> None:
    one = study_of(tmp_path / "one", 20, maximize=["robust_accuracy"])
    (first, *_) = json.loads(ask(one, "--json"))
    assert list(first) == ["knob", "robust_accuracy", "front", "members"]
