"""Part of a data set: of each class its share, or the first, by name; and what was meant before there was a choice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from arat_ray import earlier
from arat_ray.experiment.config import load as load_experiment
from arat_ray.experiment.plan import describe
from arat_ray.training import checkpoint
from arat_ray.training.data import splits
from arat_ray.training.data.image_files import ParquetImages
from arat_ray.training.data.splits import Digits, load
from arat_ray.training.data.subset import choose, stratified
from arat_ray.training.run import Train, Validate
from tests.training.data.pictures import image, png, write
from tests.training.runs import PGD, make, run, validate

SORTED = torch.tensor([0] * 50 + [1] * 30 + [2] * 20)


@pytest.mark.parametrize("images", [1, 3, 10, 37, 100])
def test_each_class_is_drawn_by_its_share_and_always_the_same(images: int) -> None:
    chosen = choose(SORTED, images, subset="stratified")
    assert len(chosen) == images
    assert torch.equal(chosen, chosen.unique())
    assert (SORTED[chosen].bincount(minlength=3) - torch.tensor([50, 30, 20]) * images / 100).abs().max() < 1
    torch.manual_seed(1)
    assert torch.equal(choose(SORTED, images, subset="stratified"), chosen)
    assert torch.equal(choose(SORTED, images, subset="first"), torch.arange(images))


def test_another_seed_draws_others() -> None:
    assert not torch.equal(stratified(SORTED, 20, seed=0)[1], stratified(SORTED, 20, seed=1)[1])


def sorted_set(folder: Path) -> ParquetImages:
    path = write(folder / "a.parquet", [png(image(i)) for i in range(30)], sorted(list(range(3)) * 10))
    return ParquetImages(train=path, test=path)


def test_a_part_of_a_sorted_set_has_all_classes_unless_the_first_are_asked_for(tmp_path: Path) -> None:
    dataset = sorted_set(tmp_path)
    drawn = dataset.model_copy(update={"images": 6})
    assert drawn.read("train").labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert list(drawn.notes()) == ["6 of its training images, drawn by class with a fixed seed"]
    first = drawn.model_copy(update={"subset": "first"})
    assert first.read("train").labels.tolist() == [0] * 6
    assert list(first.notes()) == ["6 of its training images, the first"]
    assert len(drawn.read("test").labels) == 30


def test_measuring_on_some_test_images_sees_all_classes_unless_the_first_are_asked_for(tmp_path: Path) -> None:
    dataset = sorted_set(tmp_path)
    drawn = load(dataset, validate_on="test", images=6, seed=0)
    assert drawn.validation.labels.tolist() == [0, 0, 1, 1, 2, 2]
    first = load(dataset, validate_on="test", images=6, seed=0, subset="first")
    assert first.validation.labels.tolist() == [0] * 6
    assert drawn.validation_sha256 != first.validation_sha256


def test_which_images_is_no_question_without_how_many() -> None:
    with pytest.raises(ValidationError, match=r"subset: first needs `images:`"):
        Digits(subset="first")
    with pytest.raises(ValidationError, match="subset: first is for split: test"):
        Validate.model_validate({"every": 1, "images": 5, "subset": "first", "attack": PGD})


def test_the_plan_says_which_images(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(
        "name: a\n"
        "train:\n"
        "  dataset: {name: digits, images: 200}\n"
        "  model: {name: tiny, width: 2}\n"
        "  method: {name: standard}\n"
        "  epochs: 1\n"
        "  batch_size: 20\n"
        "  seed: 0\n"
        "validate: {every: 1, images: 50, split: test, subset: first, attack: "
        "{name: pgd, norm: linf, epsilon: 0.1, step_size: 0.1, steps: 1}}\n"
    )
    lines = list(describe(load_experiment(path)))
    assert "  data: 200 of its training images, drawn by class with a fixed seed" in lines
    assert any("on the first 50 test images" in line for line in lines)


# runs from before there was a choice


def test_a_run_of_the_whole_set_is_written_out_as_ever() -> None:
    assert set(Digits().model_dump()) == {"name", "images", "crop_padding", "flip"}
    assert "size" not in ParquetImages(train=Path("a")).model_dump()
    assert "subset" not in validate(5).model_dump()
    for spec in (make(), make(dataset={"name": "digits", "images": 50})):
        written = spec.model_dump(mode="json")
        assert Train.model_validate(written) == spec
        assert earlier.train(written) == written
    for measured in (validate(5), validate(5, split="test"), validate(5, split="test", subset="first")):
        written = measured.model_dump(mode="json")
        assert Validate.model_validate(written) == measured
        assert earlier.validate(written) == written


def without_subset(written: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in written.items() if key != "subset"}


def test_an_earlier_checkpoint_keeps_its_first_images_and_goes_on_with_them(tmp_path: Path) -> None:
    few = {"name": "digits", "images": 100, "subset": "first"}
    spec, measured = make(dataset=few), validate(20, split="test", subset="first")
    run(spec, measured, tmp_path, stop_after=1)
    path = tmp_path / checkpoint.LAST
    state = torch.load(path, weights_only=True)
    state["train"]["dataset"] = without_subset(state["train"]["dataset"])
    state["validate"] = without_subset(state["validate"])
    torch.save(state, path)

    restored = checkpoint.load(path)
    assert restored.train_spec.dataset == Digits(images=100, subset="first")
    assert restored.validate_spec == measured
    drawn = make(dataset=without_subset(few))
    with pytest.raises(ValueError, match="checkpoint of another run"):
        run(drawn, measured, tmp_path)
    assert [row["epoch"] for row in run(spec, measured, tmp_path)] == [1, 2]


def test_an_earlier_study_is_another_experiment_than_one_of_drawn_images() -> None:
    before = without_subset(make(dataset={"name": "digits", "images": 100}).model_dump(mode="json")["dataset"])
    assert earlier.train({"dataset": before, "epochs": 1}) == {"dataset": before | {"subset": "first"}, "epochs": 1}
    assert earlier.train({"dataset": {"name": "digits", "images": None}}) == {
        "dataset": {"name": "digits", "images": None}
    }
    assert earlier.validate({"split": "test", "images": 5}) == {"split": "test", "images": 5, "subset": "first"}
    assert earlier.validate({"split": "validation", "images": 5}) == {"split": "validation", "images": 5}


def test_held_out_images_are_the_same_as_ever() -> None:
    labels = splits.read(Digits(), "train").labels
    held = splits.hold_out(labels, images=400, seed=0)[1]
    assert splits.indices_sha256(held) == "acc9743b63856bd8ff56130cc94d98d152305cc7a2bd042518659b3a1a3b7873"
