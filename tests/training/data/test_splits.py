"""The menu of data sets, the digits, and how a training set is split."""

from __future__ import annotations

import hashlib
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from arat_ray.training.data import digits
from arat_ray.training.data.image_files import ImageFolder
from arat_ray.training.data.splits import DATASETS, Dataset, Digits, hold_out, indices_sha256, load, read

# the menu


def test_every_data_set_of_the_menu_is_reached_by_its_name_and_can_be_a_cache_key() -> None:
    needed: dict[str, dict[str, Any]] = {
        "parquet": {"train": "x.parquet"},
        "image_folder": {"train": "x", "size": 8},
    }
    for name, kind in DATASETS.items():
        spec = {"name": name, **needed.get(name, {})}
        first, second = (TypeAdapter(Dataset).validate_python(spec) for _ in range(2))
        assert type(first) is kind
        assert first.name == name
        assert len({first, second}) == 1
        assert first.images is None


def test_the_augmentation_of_each_data_set_is_the_fields_standard() -> None:
    chosen = {
        name: (kind.model_fields["crop_padding"].default, kind.model_fields["flip"].default)
        for name, kind in DATASETS.items()
    }
    assert chosen == {
        "digits": (0, False),
        "cifar10": (4, True),
        "cifar100": (4, True),
        "svhn": (4, False),
        "fashion_mnist": (4, True),
        "parquet": (4, True),
        "image_folder": (4, True),
    }


def test_impossible_values_are_refused_by_field() -> None:
    with pytest.raises(ValidationError, match=r"images\n.*greater than 0"):
        Digits(images=0)
    with pytest.raises(ValidationError, match=r"crop_padding\n.*greater than or equal to 0"):
        Digits(crop_padding=-1)
    with pytest.raises(ValidationError, match="did you mean 'crop_padding'"):
        TypeAdapter(Dataset).validate_python({"name": "digits", "crop_pading": 2})


def test_importing_the_menu_loads_no_library_that_it_does_not_need() -> None:
    code = "import sys, arat_ray.training.data.splits\nprint(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"ray", "optuna", "sklearn", "torchvision", "pyarrow", "pandas", "PIL"} & set(loaded.split())


# digits


def test_the_digits_are_split_for_good_into_stratified_train_and_test_images() -> None:
    train, test = Digits().read("train"), Digits().read("test")
    assert train.images.shape == (1437, *Digits.shape)
    assert test.images.shape == (360, *Digits.shape)
    for part in (train, test):
        assert part.images.dtype == torch.uint8
        assert part.labels.dtype == torch.int64
        assert (int(part.images.min()), int(part.images.max())) == (0, 255)
        assert part.classes == tuple("0123456789")
    both = torch.cat([train.labels, test.labels]).bincount()
    assert (test.labels.bincount() - both * 360 / 1797).abs().max() < 1
    assert indices_sha256(test.labels) == "4493b2052e7b4258621d51f10f17a672594c5e3f2beaa1cf97c818dc583aafe7"


def test_the_digits_are_those_of_scikit_learn_in_the_order_of_its_own_split() -> None:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    values, labels = digits.table()
    known = load_digits()
    assert (values == known.data).all()
    assert (labels == known.target).all()
    split = train_test_split(np.arange(1797), test_size=360, stratify=known.target, random_state=0)
    for ours, theirs in zip(digits.split_of(labels), split, strict=True):
        assert ours.tolist() == theirs.tolist()


def test_reading_the_digits_loads_no_library_beside() -> None:
    code = "import sys\nfrom arat_ray import Digits\nDigits().read('train')\nprint(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"sklearn", "scipy"} & set(loaded.split())


def test_only_the_first_training_images_are_used_and_all_test_images() -> None:
    few, every = Digits(images=100, subset="first"), Digits()
    assert len(every.read("train").labels) == Digits.train_images
    assert torch.equal(few.read("train").images, every.read("train").images[:100])
    assert len(few.read("test").images) == 360
    assert set(few.read("train").labels.tolist()) == set(range(10))


@pytest.mark.parametrize(("name", "known"), [(name, kind.train_images) for name, kind in DATASETS.items()])
def test_more_images_than_a_set_of_known_size_has_are_refused_before_it_is_read(name: str, known: int | None) -> None:
    if known is None:
        assert name in ("parquet", "image_folder")  # refused once their files are counted
        return
    adapter: TypeAdapter[Any] = TypeAdapter(Dataset)
    assert adapter.validate_python({"name": name, "images": known}).images == known
    with pytest.raises(ValidationError, match=rf"images\n.*{known + 1} is more than the {known} training images there"):
        adapter.validate_python({"name": name, "images": known + 1})


# splits


@pytest.mark.parametrize("images", [1, 10, 37, 99])
def test_each_class_is_held_out_by_its_share(images: int) -> None:
    labels = torch.tensor([0] * 50 + [1] * 30 + [3] * 20)[torch.randperm(100, generator=torch.manual_seed(0))]
    kept, held = hold_out(labels, images=images, seed=3)
    assert len(held) == images
    assert torch.equal(torch.cat([kept, held]).sort().values, torch.arange(100))
    for part in (kept, held):
        assert torch.equal(part, part.sort().values)
    share = torch.tensor([50, 30, 0, 20]) * images / 100
    assert (labels[held].bincount(minlength=4) - share).abs().max() < 1


def test_the_split_follows_the_seed_and_nothing_else() -> None:
    labels = Digits().read("train").labels
    torch.manual_seed(1)
    _, first = hold_out(labels, images=200, seed=0)
    torch.manual_seed(2)
    _, again = hold_out(labels, images=200, seed=0)
    _, other = hold_out(labels, images=200, seed=1)
    assert indices_sha256(first) == indices_sha256(again) != indices_sha256(other)


def test_the_fingerprint_is_the_hash_of_little_endian_int64() -> None:
    assert indices_sha256(torch.tensor([1, 256])) == hashlib.sha256(struct.pack("<qq", 1, 256)).hexdigest()


@pytest.mark.parametrize("images", [-1, 100, 101])
def test_a_validation_set_that_leaves_nothing_to_train_on_is_refused(images: int) -> None:
    with pytest.raises(ValueError, match=rf"^{images} validation images of 100 training images; choose 0 to 99$"):
        hold_out(torch.zeros(100, dtype=torch.int64), images=images, seed=0)


def test_loading_splits_the_training_set_and_never_opens_the_test_set(tmp_path: Path) -> None:
    for i in range(10):
        folder = tmp_path / f"train/{'cat' if i % 2 else 'dog'}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (i, 2 * i, 3 * i)).save(folder / f"{i}.png")
    dataset = ImageFolder(train=tmp_path / "train", test=tmp_path / "absent", size=4)
    splits = load(dataset, validate_on="validation", images=2, seed=0)
    whole = read(dataset, "train")
    kept, held = hold_out(whole.labels, images=2, seed=0)
    assert torch.equal(splits.train.images, whole.images[kept])
    assert torch.equal(splits.train.labels, whole.labels[kept])
    assert torch.equal(splits.validation.images, whole.images[held])
    assert sorted(splits.validation.labels.tolist()) == [0, 1]
    assert splits.validation_sha256 == indices_sha256(held)
    assert splits.train.classes == ("cat", "dog")
    assert len(load(dataset, validate_on="validation", images=0, seed=0).validation.images) == 0


def test_measuring_on_the_test_split_holds_no_training_image_out() -> None:
    splits = load(Digits(), validate_on="test", images=100, seed=0, subset="first")
    train, test = read(Digits(), "train"), read(Digits(), "test")
    assert torch.equal(splits.train.images, train.images)
    assert torch.equal(splits.validation.images, test.images[:100])
    assert torch.equal(splits.validation.labels, test.labels[:100])
    with pytest.raises(ValueError, match=r"^361 images of a test set of 360; lower validate\.images$"):
        load(Digits(), validate_on="test", images=361, seed=0)


def test_a_data_set_is_read_once_a_process() -> None:
    assert read(Digits(images=50), "train") is read(Digits(images=50), "train")
    assert read(Digits(images=50), "train") is not read(Digits(images=51), "train")
