"""What the data makes impossible is told by its count, before anything is read or downloaded."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from arat_ray.experiment import at_hand, plan
from arat_ray.experiment.config import load
from arat_ray.experiment.errors import ExperimentError
from arat_ray.training.data.image_files import ImageFolder, ParquetImages
from arat_ray.training.data.splits import DATASETS, Digits, read
from arat_ray.training.data.torchvision_sets import Cifar10

FILE = """
name: small
train:
  dataset: DATASET
  model: {name: tiny, width: 2}
  epochs: 2
  batch_size: 64
  seed: 0
  method: {name: standard}
search:
  batch_size: {choice: [32, 64]}
validate: {every: 1, images: 100, attack: {name: pgd, norm: linf, epsilon: 0.1, step_size: 0.1, steps: 1}}
sampler: {name: random}
budget: {trials: 2}
"""
DIGITS = "{name: digits, images: 300}"
VARIES = "batch_size: {choice: [32, 64]}"
ONLY_SEEDS = (VARIES, "seed: {int: [0, 9]}")
"""For the test split, on which nothing else may be chosen."""


def problems(folder: Path, dataset: str, *changes: tuple[str, str]) -> list[str]:
    text = FILE.replace("DATASET", dataset)
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = folder / "small.yaml"
    path.write_text(text)
    experiment = load(path)
    with suppress(ExperimentError):
        at_hand.check(path, experiment)
        return []
    with pytest.raises(ExperimentError) as raised:
        at_hand.check(path, experiment)
    assert str(raised.value).startswith(f"{path}: ")
    return raised.value.problems


@pytest.mark.parametrize(
    ("dataset", "changes", "expected"),
    [
        (DIGITS, [], []),
        (DIGITS, [("images: 100,", "images: 236,")], []),
        (
            DIGITS,
            [("images: 100,", "images: 100000,")],
            ["validate.images: 100000 cannot be held out of 300 training images; use at most 236"],
        ),
        (
            DIGITS,
            [("images: 100,", "images: 300,")],
            ["validate.images: 300 cannot be held out of 300 training images; use at most 236"],
        ),
        (
            DIGITS,
            [("batch_size: 64", "batch_size: 100000")],
            [
                "train.batch_size: 100000 is larger than the 200 images to train on, 300 less the 100 that "
                "validate.images holds out; lower it"
            ],
        ),
        (
            DIGITS,
            [("[32, 64]", "[32, 64, 201]")],
            [
                "search.batch_size: with batch_size: 201: train.batch_size: 201 is larger than the 200 images to train "
                "on, 300 less the 100 that validate.images holds out; lower it"
            ],
        ),
        (
            DIGITS,
            [("batch_size: {choice: [32, 64]}", "dataset.images: {int: [150, 300]}")],
            [
                "search.dataset.images: with dataset.images: 150: train.batch_size: 64 is larger than the 50 images to "
                "train on, 150 less the 100 that validate.images holds out; lower it"
            ],
        ),
        (
            "{name: digits}",
            [("images: 100,", "images: 361, split: test,"), ONLY_SEEDS],
            ["validate.images: 361 of a test set of 360; use at most 360"],
        ),
        (
            "{name: cifar10}",
            [("batch_size: 64", "batch_size: 50000")],
            [
                "train.batch_size: 50000 is larger than the 49900 images to train on, 50000 less the 100 that "
                "validate.images holds out; lower it"
            ],
        ),
    ],
)
def test_more_images_than_there_are_is_told_with_both_numbers(
    dataset: str, changes: list[tuple[str, str]], expected: list[str], tmp_path: Path
) -> None:
    assert problems(tmp_path, dataset, *changes) == expected


def test_rows_of_parquet_are_counted_without_reading_images(tmp_path: Path) -> None:
    picture = tmp_path / "one.png"
    Image.new("L", (8, 8)).save(picture)
    broken = [{"bytes": b"no image", "path": None}] * 149
    rows: dict[str, list[Any]] = {
        "image": [{"bytes": picture.read_bytes(), "path": None}, *broken],
        "label": [n % 10 for n in range(150)],
    }
    for split, count in (("train", 150), ("test", 20)):
        table = pa.table({name: values[:count] for name, values in rows.items()})
        pq.write_table(table, tmp_path / f"{split}.parquet")
    dataset = f"{{name: parquet, train: {tmp_path}, test: {tmp_path}}}"
    assert ParquetImages(train=tmp_path, test=tmp_path).available("test") == 20
    assert problems(tmp_path, dataset, ("images: 100,", "images: 86,")) == []
    assert problems(tmp_path, dataset) == [
        "train.batch_size: 64 is larger than the 50 images to train on, 150 less the 100 that validate.images holds "
        "out; lower it"
    ]
    assert problems(tmp_path, dataset, ("images: 100,", "images: 21, split: test,"), ONLY_SEEDS) == [
        "validate.images: 21 of a test set of 20; use at most 20"
    ]
    with pytest.raises(ExperimentError, match=r"dataset\.images: 151 is more than the 150 training images there are"):
        problems(tmp_path, dataset.replace("{", "{images: 151, "))


def test_files_of_a_folder_are_counted_without_opening_them(tmp_path: Path) -> None:
    for number in range(90):
        file = tmp_path / "images" / f"class{number % 3}" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    folder = ImageFolder(train=tmp_path / "images", size=8)
    assert folder.available("train") == 90
    dataset = f"{{name: image_folder, train: {tmp_path / 'images'}, size: 8}}"
    assert problems(tmp_path, dataset, ("images: 100,", "images: 26,")) == []
    assert problems(tmp_path, dataset, ("images: 100,", "images: 27,")) == [
        "train.batch_size: 64 is larger than the 63 images to train on, 90 less the 27 that validate.images holds out; "
        "lower it"
    ]
    assert problems(tmp_path, dataset, ("images: 100,", "images: 26, split: test,"), ONLY_SEEDS)[0].startswith(
        "train.dataset.test: not given"
    )


def test_nothing_is_downloaded_to_count(tmp_path: Path) -> None:
    assert Cifar10(root=tmp_path).available("train") == 50_000
    assert Cifar10(root=tmp_path, images=500).available("train") == 500
    assert Cifar10(root=tmp_path, images=500).available("test") == 10_000
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("split", ["train", "test"])
def test_what_is_known_beforehand_is_what_is_there(split: str) -> None:
    assert Digits().available(split) == len(read(Digits(), split).labels)  # type: ignore[arg-type]
    for dataset in DATASETS.values():
        assert (dataset.train_images is None) == (dataset.test_images is None)


def test_the_plan_counts_what_is_left_to_train_on(tmp_path: Path) -> None:
    assert problems(tmp_path, DIGITS) == []
    lines = list(plan.estimate(load(tmp_path / "small.yaml"), image_s=1e-3, at_once=1))
    assert lines[0].startswith("  a trial: 200 training images, ")
