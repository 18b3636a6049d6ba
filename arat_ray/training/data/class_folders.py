"""Folders that are classes: which there are, which images they hold, and what cannot be a class."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

SPLITS = {"train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval"}


def images(split: str, folder: Path, suffixes: Sequence[str]) -> dict[str, list[Path]]:
    """The images in and below each folder in `folder`, by its name, sorted; hidden ones are passed over.

    Links are followed. ValueError where there is no folder, where one cannot be read, and where two names lead to one
    folder: so does every circle of links.
    """
    if not folder.is_dir():
        raise ValueError(f"dataset.{split}: {folder} is a file; name the folder that holds one folder for each class")
    inside = _visible(split, folder)
    for entry in inside:
        if entry.is_symlink() and not os.path.exists(entry):
            raise ValueError(f"dataset.{split}: {folder / entry.name} is a link to nothing; mend or remove it")
    names = [entry.name for entry in inside if entry.is_dir()]
    if not names:
        raise ValueError(f"dataset.{split}: {folder} holds no folders; make one for each class")
    reached = {_place(folder): folder}
    return {name: sorted(_below(split, folder / name, suffixes, reached)) for name in names}


def _below(split: str, folder: Path, suffixes: Sequence[str], reached: dict[tuple[int, int], Path]) -> Iterator[Path]:
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        place = _place(here)
        if place in reached:
            raise ValueError(
                f"dataset.{split}: {here} and {reached[place]} are the same folder; remove the link, so that no image "
                "counts twice"
            )
        reached[place] = here
        for entry in _visible(split, here):
            path = here / entry.name
            if entry.is_dir():
                waiting.append(path)
            elif path.suffix.lower() in suffixes:
                yield path


def _visible(split: str, folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder, by name, but for what is hidden."""
    try:
        with os.scandir(folder) as entries:
            return sorted((each for each in entries if not each.name.startswith(".")), key=lambda each: each.name)
    except OSError as error:
        raise ValueError(f"dataset.{split}: {folder} cannot be read ({error.strerror})") from error


def _place(folder: Path) -> tuple[int, int]:
    found = folder.stat()
    return found.st_dev, found.st_ino


def refuse_impossible(folder: Path, found: Mapping[str, Sequence[Path]], suffixes: Sequence[str]) -> None:
    """ValueError where the training folder holds splits and no classes, or classes without images."""
    splits = [name for name in found if name.lower() in SPLITS]
    if splits and (len(splits) == len(found) or any(_holds_classes(folder / name, found[name]) for name in splits)):
        train = next((name for name in splits if name.lower().startswith("train")), "train")
        raise ValueError(
            f"dataset.train: {folder} holds {', '.join(splits)}, which are splits and no classes; name {folder / train}"
        )
    if not any(found.values()):
        raise ValueError(f"dataset.train: no {', '.join(suffixes)} in the folders of {folder}")
    empty = [name for name, files in found.items() if not files]
    if empty:
        more = f" and {len(empty) - 1} more" if len(empty) > 1 else ""
        raise ValueError(
            f"dataset.train: {folder / empty[0]}{more} would be a class without an image ({', '.join(suffixes)}); "
            "put its images there, or move the folder away"
        )


def _holds_classes(folder: Path, files: Sequence[Path]) -> bool:
    return bool(files) and all(file.parent != folder for file in files)


def shuffled(folder: Path, found: Mapping[str, Sequence[Path]]) -> list[tuple[str, Path]]:
    """Class and path of every image, in the order of a hash of their names."""
    every = [(name, file) for name, files in found.items() for file in files]
    return sorted(every, key=lambda each: hashlib.sha256(_name(each[1], folder)).digest())


def _name(file: Path, folder: Path) -> bytes:
    return file.relative_to(folder).as_posix().encode(errors="surrogateescape")
