"""What small studies of the open questions are, and what is said of them."""

from __future__ import annotations

from pathlib import Path

import open_questions
import pytest
import yaml
from open_questions import QUESTIONS, SPACES, answer, experiment, small

from arat_ray.experiment.checks import problems
from tests.report.test_importance import study_of
from tests.training.data.pictures import image, png, write


@pytest.fixture
def _data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As CIFAR-10, but for what is on the pictures, and how many."""
    for split in ("train", "test"):
        pictures = [png(image(value, size=(32, 32))) for value in range(60)]
        write(tmp_path / "cifar10" / f"{split}.parquet", pictures, [value % 10 for value in range(60)])
    monkeypatch.setenv("ARAT_DATA", str(tmp_path))
    monkeypatch.setattr(open_questions, "IMAGES", 60)
    monkeypatch.setattr(open_questions, "HELD_OUT", 20)


@pytest.mark.parametrize("name", QUESTIONS)
def test_what_varies_what_is_known_and_the_method_are_those_of_the_shipped_search_space(name: str) -> None:
    shipped, asked = yaml.safe_load((SPACES / f"{name}.yaml").read_text()), small(name, 40)
    assert asked["search"].keys() == shipped["search"].keys()
    assert {path for path in shipped["search"] if shipped["search"][path] != asked["search"][path]} <= {"method.layers"}
    for kept in ("first", "maximize", "sampler"):
        assert asked[kept] == shipped[kept]
    assert asked["train"]["method"] == shipped["train"]["method"] | {"layers": asked["train"]["method"]["layers"]}
    for kept in ("optimizer", "batch_size", "seed"):
        assert asked["train"][kept] == shipped["train"][kept]
    smaller = {"epsilon": "2/255", "step_size": "1.25/255", "steps": 4} if name == "transformer" else {}
    assert asked["train"]["attack"] == shipped["train"]["attack"] | smaller


@pytest.mark.usefixtures("_data")
@pytest.mark.parametrize("name", QUESTIONS)
def test_a_small_study_can_be_run(name: str, tmp_path: Path) -> None:
    spec = experiment(name, tmp_path, 30)
    assert problems(spec) == []
    assert spec.budget.trials == 30
    for known in spec.first:
        assert spec.resolve(dict(known)).epochs == open_questions.EPOCHS


def test_an_answer_says_what_is_told_from_none_in_points_and_what_each_layer_did(tmp_path: Path) -> None:
    lines = list(answer("layers", study_of(tmp_path / "study", 30)))
    assert lines[0] == "## Which layers should be regularised, how strongly, and with how wide a predictor?"
    assert lines[2] == "`layers.yaml`: 30 trials, 20 of them whole."
    cells = {line.split(" | ")[0]: line.split(" | ")[1:] for line in lines if line.startswith("| ")}
    layers = cells["| method.layers"]
    assert layers[0].startswith("two over one: **+")
    assert abs(float(layers[0].split("**")[1].split(" ")[0]) - 10) < 3
    clean, robust, _ = cells["| method.invariance_weight"]
    assert "**" not in clean
    assert robust.startswith("10 over 0.1: **+")
    assert cells["| bn2"][0].startswith("**+")


def test_too_few_trials_are_no_answer(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs 8 trials"):
        list(answer("layers", study_of(tmp_path / "study", 5)))
