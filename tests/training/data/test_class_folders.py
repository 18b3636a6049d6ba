"""Folders that are classes, and what only looks like one: refused by name, with the fix."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from arat_ray.training.data.image_files import ImageFolder
from tests.training.data.pictures import folder_of, image, refusal


def train(path: Path, **fields: Any) -> ImageFolder:
    return ImageFolder(train=path, size=4, **fields)


def macos(root: Path) -> None:
    (root / "__MACOSX" / "cat").mkdir(parents=True)
    (root / "__MACOSX" / "cat" / "._0.png").write_bytes(b"\0")


def python(root: Path) -> None:
    (root / "__pycache__").mkdir()
    (root / "__pycache__" / "split.pyc").write_bytes(b"\0")


def other_files(root: Path) -> None:
    (root / "notes").mkdir()
    (root / "notes" / "a.heic").write_text("not read")


@pytest.mark.parametrize(
    ("add", "name"),
    [
        (macos, "__MACOSX"),
        (python, "__pycache__"),
        (other_files, "notes"),
        (lambda root: (root / "emu").mkdir(), "emu"),
    ],
    ids=["macos", "python", "other files", "empty"],
)
def test_a_folder_without_an_image_is_no_class(add: Callable[[Path], Any], name: str, tmp_path: Path) -> None:
    folder_of(tmp_path, cat=2, dog=2)
    add(tmp_path)
    told = refusal(train(tmp_path))
    assert told.startswith(f"dataset.train: {tmp_path / name} would be a class without an image (.bmp, ")
    assert told.endswith("put its images there, or move the folder away")
    with pytest.raises(ValueError, match="would be a class without an image"):
        _ = train(tmp_path).num_classes  # so that `validate` says it too


def test_hidden_folders_and_files_are_passed_over(tmp_path: Path) -> None:
    folder_of(tmp_path, cat=2, dog=2)
    (tmp_path / ".ipynb_checkpoints").mkdir()
    (tmp_path / "cat" / ".ipynb_checkpoints").mkdir()
    image().save(tmp_path / "cat" / ".ipynb_checkpoints" / "0-checkpoint.png")
    (tmp_path / "cat" / "._0.png").write_bytes(b"\0")
    assert len(train(tmp_path).read("train").labels) == 4


def test_a_parent_of_splits_is_refused_and_the_right_folder_named(tmp_path: Path) -> None:
    for split in ("train", "test"):
        folder_of(tmp_path / split, cat=1, dog=1)
    assert refusal(train(tmp_path)) == (
        f"dataset.train: {tmp_path} holds test, train, which are splits and no classes; name {tmp_path}/train"
    )
    folder_of(tmp_path / "extra", cat=1)
    assert "which are splits and no classes" in refusal(train(tmp_path))
    assert train(tmp_path / "train").num_classes == 2


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    folder_of(tmp_path, train=2, bus=2)
    assert train(tmp_path).read("train").classes == ("bus", "train")


def test_one_folder_is_no_classification(tmp_path: Path) -> None:
    folder_of(tmp_path, cat=3)
    assert refusal(train(tmp_path)) == (
        f"dataset.train: {tmp_path}: all images are of one class, 'cat'; a classifier needs two or more"
    )


def test_linked_folders_are_read(tmp_path: Path) -> None:
    folder_of(tmp_path / "elsewhere", cat=2, dog=3)
    (tmp_path / "set" / "dog").mkdir(parents=True)
    (tmp_path / "set" / "cat").symlink_to(tmp_path / "elsewhere" / "cat")
    (tmp_path / "set" / "dog" / "more").symlink_to(tmp_path / "elsewhere" / "dog")
    found = train(tmp_path / "set").read("train")
    assert (found.classes, found.labels.bincount().tolist()) == (("cat", "dog"), [2, 3])


@pytest.mark.parametrize(
    ("link", "to", "same"),
    [("cat/all", "..", "."), ("cat/self", ".", "cat"), ("cat/dogs", "../dog", "dog"), ("emu", "cat", "cat")],
)
def test_a_folder_that_is_reached_twice_is_refused(link: str, to: str, same: str, tmp_path: Path) -> None:
    folder_of(tmp_path, cat=2, dog=2)
    (tmp_path / link).symlink_to(to)
    told = refusal(train(tmp_path))
    assert "are the same folder; remove the link, so that no image counts twice" in told
    named = {str(tmp_path / link), str(tmp_path / same)}
    assert sum(name in told for name in named) == 2


def test_a_link_to_nothing_is_no_class_that_silently_goes(tmp_path: Path) -> None:
    folder_of(tmp_path, cat=2, dog=2)
    (tmp_path / "emu").symlink_to("gone")
    assert refusal(train(tmp_path)) == f"dataset.train: {tmp_path}/emu is a link to nothing; mend or remove it"


def test_what_is_called_an_image_and_is_none_is_named_and_does_not_hang(tmp_path: Path) -> None:
    folder_of(tmp_path, cat=2, dog=2)
    os.mkfifo(tmp_path / "cat" / "pipe.png")
    assert refusal(train(tmp_path)) == (
        f"{tmp_path}/cat/pipe.png: unreadable image (it is no regular file); repair or remove it"
    )
    (tmp_path / "cat" / "pipe.png").unlink()
    (tmp_path / "cat" / "lost.png").symlink_to("gone.png")
    assert refusal(train(tmp_path)).startswith(f"{tmp_path}/cat/lost.png: unreadable image (")


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    image().save(tmp_path / "a.png")
    assert "a.png is a file; name the folder that holds one folder for each class" in refusal(train(tmp_path / "a.png"))


def test_a_test_folder_may_lack_a_class_and_not_have_one_more(tmp_path: Path) -> None:
    folder_of(tmp_path / "train", cat=2, dog=2, emu=2)
    folder_of(tmp_path / "test", dog=2)
    dataset = train(tmp_path / "train", test=tmp_path / "test")
    assert dataset.read("test").labels.tolist() == [1, 1]
    folder_of(tmp_path / "test", cow=1)
    assert "is of no training class" in refusal(dataset, "test")
