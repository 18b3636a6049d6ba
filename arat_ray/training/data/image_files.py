"""Your own images: encoded in Parquet files, or in a folder for each class."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from pydantic import PositiveInt
from torch import Tensor

from arat_ray.storage.datasets import cached
from arat_ray.text import did_you_mean
from arat_ray.training.data import class_folders, classes, labels, parquet_files
from arat_ray.training.data.decoding import pixels
from arat_ray.training.data.images import Images, ImageSet, Shape, Split
from arat_ray.training.data.locations import DataPlace
from arat_ray.training.data.parquet_columns import Columns, columns
from arat_ray.training.data.parquet_files import Part


class ParquetImages(Images):
    """Images in Parquet as on the Hugging Face hub: struct<bytes, path> or binary, beside a label.

    A path is a file or a folder of parts: `train*.parquet` or `test*.parquet`, or all if none are named so; where it
    holds none, `data/` or `train/` in it, or folders `label=cat/`. Classes are those that the schema's `huggingface`
    metadata names, else the numbers 0..K-1 or 1..K, or each text that occurs, sorted.
    """

    name: Literal["parquet"] = "parquet"
    places: ClassVar[tuple[str, ...]] = ("train", "test")
    train: DataPlace
    """Where the training images are: a folder, or the address of a bucket; for Parquet also one file."""
    test: DataPlace | None = None
    """Likewise the test images; without them the test split cannot be measured on."""
    image_column: str | None = None
    """By default `img` or `image`, else the only one that can be meant."""
    label_column: str = "label"
    """Where there is none of that name, the only one that can be meant."""
    size: PositiveInt | None = None
    """The shorter side is resized to it, then the centre is cropped; by default all images have one size."""
    channels: Literal[1, 3] | None = None
    """Convert to grey or RGB; by default all are as the first."""
    later: ClassVar[tuple[str, ...]] = ("size",)

    @property
    def shape(self) -> Shape:
        return _parquet_facts(self.located()).shape

    @property
    def num_classes(self) -> int:
        return len(_parquet_facts(self.located()).classes)

    def notes(self) -> Iterator[str]:
        yield from super().notes()
        yield from _parquet_facts(self.located()).notes

    def read(self, split: Split) -> ImageSet:
        facts, parts = _parquet_facts(self.located()), self._parts(split)
        n = self._count(parquet_files.rows_in(parts, split), split)
        _refuse_what_does_not_fit(split, n, facts.shape)
        found = self._labels(parts, facts.classes if facts.are_declared else ())
        whole = found.numbered(facts.classes)
        classes.refuse_impossible(f"dataset.{split}: {getattr(self, split)}", split, whole, facts.classes)
        chosen = self._indices(whole, split)
        return _gather(self._pictures(parts, chosen), facts.shape, whole[chosen], facts.classes)

    def _counted(self, split: Split) -> int:
        return parquet_files.rows_in(self._parts(split), split)

    def _parts(self, split: Split) -> list[Part]:
        return parquet_files.parts(split, _existing(split, getattr(self.located(), split)))

    def _columns(self, part: Part, file: Any) -> Columns:
        keys = dict(part.keys)
        return columns(part.path, file.schema_arrow, keys, image=self.image_column, label=self.label_column)

    def _labels(self, parts: list[Part], names: tuple[str, ...]) -> labels.Found:
        """Those of all rows; `names` are the classes' where a part does not say them itself."""
        found = labels.Found()
        for part in parts:
            with parquet_files.opened(part.path) as file:
                here = self._columns(part, file)
                if here.constant is not None:
                    found.add_constant(here.constant, file.metadata.num_rows, part.path)
                    continue
                for row, cells in parquet_files.batches(part, file, here.label):
                    found.add(cells, part.path, row, names=here.names or names)
        return found

    def _pictures(self, parts: list[Part], chosen: Tensor) -> Iterator[tuple[str, Any]]:
        """Where each of the chosen rows (sorted) stands, and its image uint8 [C, H, W]; others are not decoded."""
        first = 0
        for part in parts:
            with parquet_files.opened(part.path) as file:
                begin, first = first, first + file.metadata.num_rows
                wanted = (chosen[(chosen >= begin) & (chosen < first)] - begin).numpy()
                column = self._columns(part, file).image
                for row, cells in parquet_files.batches(part, file, column, wanted=wanted):
                    here = wanted[np.searchsorted(wanted, row) : np.searchsorted(wanted, row + len(cells))]
                    for i in here.tolist():
                        where = f"{part.path}, row {i} (from 0)"
                        encoded = parquet_files.encoded(cells, i - row, where, column)
                        yield where, pixels(encoded, where, channels=self.channels, size=self.size)


class _Facts(NamedTuple):
    """What the training files say of the whole set."""

    shape: Shape
    classes: tuple[str, ...]
    are_declared: bool
    """By the Hub's metadata."""
    notes: tuple[str, ...]


@lru_cache
def _parquet_facts(dataset: ParquetImages) -> _Facts:
    """The shape of the first training image, and the classes; ValueError for labels that cannot be told apart."""
    parts = dataset._parts("train")
    rows = parquet_files.rows_in(parts, "train")
    if not rows:
        raise ValueError(f"dataset.train: {dataset.train} has no rows")
    dataset._count(rows, "train")
    with parquet_files.opened(parts[0].path) as file:
        declared = dataset._columns(parts[0], file).names
    found = dataset._labels(parts, declared)
    names = declared or classes.that_occur(found.places)
    with torch.device("cpu"):  # who asks may be building a network on the meta device
        whole = found.numbered(names)
        classes.refuse_impossible(f"dataset.train: {dataset.train}", "train", whole, names)
        _, first = next(dataset._pictures(parts, torch.tensor([0])))
        notes = tuple(classes.notes(whole, names, is_declared=bool(declared)))
    return _Facts(first.shape, names, bool(declared), notes)


class ImageFolder(Images):
    """A folder of images for each class; their shorter side is resized to `size`, then the centre is cropped.

    Files are read in the order of a hash of their names: shuffled, and the same on every machine.
    """

    name: Literal["image_folder"] = "image_folder"
    places: ClassVar[tuple[str, ...]] = ("train", "test")
    train: DataPlace
    """Where the training images are: a folder, or the address of a bucket; for Parquet also one file."""
    test: DataPlace | None = None
    """Likewise the test images; without them the test split cannot be measured on."""
    size: PositiveInt
    """Height and width of the images."""
    channels: Literal[1, 3] = 3
    """Grey or RGB."""
    suffixes: ClassVar[tuple[str, ...]] = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")

    @property
    def shape(self) -> Shape:
        return self.channels, self.size, self.size

    @property
    def num_classes(self) -> int:
        return len(_folder_classes(self))

    def _counted(self, split: Split) -> int:
        return sum(map(len, self._files(split).values()))

    def _files(self, split: Split) -> dict[str, list[Path]]:
        """The images of each class; ValueError for a class without any."""
        found = class_folders.images(split, _existing(split, getattr(self.located(), split)), self.suffixes)
        if split == "train":
            class_folders.refuse_impossible(_existing(split, self.located().train), found, self.suffixes)
        return found

    def read(self, split: Split) -> ImageSet:
        by_class = self._files(split)
        names = tuple(by_class) if split == "train" else _folder_classes(self)
        label = {name: index for index, name in enumerate(names)}
        files = class_folders.shuffled(_existing(split, getattr(self.located(), split)), by_class)
        if not files:
            raise ValueError(f"dataset.{split}: no {', '.join(self.suffixes)} in the folders of {getattr(self, split)}")
        for name, file in files:
            if name not in label:
                raise ValueError(f"dataset.{split}: {file} is of no training class{did_you_mean(name, label)}")
        whole = torch.tensor([label[name] for name, _ in files])
        classes.refuse_impossible(f"dataset.{split}: {getattr(self, split)}", split, whole, names)
        chosen = self._indices(whole, split)
        _refuse_what_does_not_fit(split, len(chosen), self.shape)
        pictures = (self._picture(files[i][1]) for i in chosen.tolist())
        return _gather(pictures, self.shape, whole[chosen], names)

    def _picture(self, file: Path) -> tuple[str, Any]:
        return str(file), pixels(file, str(file), channels=self.channels, size=self.size)


@lru_cache
def _folder_classes(dataset: ImageFolder) -> tuple[str, ...]:
    return tuple(dataset._files("train"))


def _existing(key: str, path: Path | str | None) -> Path:
    """The path that a field gives, if there is such a file or folder; for an address, of its copy here."""
    if path is None:
        raise ValueError(f"dataset.{key}: not given; name the file or folder of the {key} images")
    if isinstance(path, str):
        try:
            return cached(path)
        except ValueError as error:
            raise ValueError(f"dataset.{key}: {error}") from error
    if not path.exists():
        folder = next(parent for parent in path.parents if parent.is_dir())
        names = os.listdir(folder)
        hint = did_you_mean(path.relative_to(folder).parts[0], names) if names else ", which is empty"
        raise ValueError(
            f"dataset.{key}: no {path}; looked in {folder}{textwrap.shorten(hint, 300)}; correct it, or say with "
            "--data or ARAT_DATA which folder holds it now"
        )
    return path


def _refuse_what_does_not_fit(split: Split, n: int, shape: Shape) -> None:
    """ValueError where so many images need more memory than this machine has."""
    needed, there = n * int(np.prod(shape)), os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > there:
        fix = "take fewer with dataset.images, or smaller ones with dataset.size" if split == "train" else "give fewer"
        raise ValueError(
            f"dataset.{split}: {n:,} images of {' x '.join(map(str, shape))} take {needed / 1e9:,.1f} GB, and this "
            f"machine has {there / 1e9:,.1f} GB of memory; {fix}"
        )


def _gather(pictures: Iterator[tuple[str, Any]], shape: Shape, labels: Tensor, names: tuple[str, ...]) -> ImageSet:
    """The images (where, pixels), one for each label, as an image set; all must have one shape."""
    images = np.empty((len(labels), *shape), np.uint8)
    for i, (where, found) in enumerate(pictures):
        if found.shape != shape:
            fixes = {"channels": found.shape[0] != shape[0], "size": found.shape[1:] != shape[1:]}
            key = " and ".join(f"dataset.{name}" for name, differs in fixes.items() if differs)
            raise ValueError(
                f"{where}: image of {found.shape}, but the first training image is {shape} (channels, height, width); "
                f"all must have one shape: set {key}{' (3 makes all of them RGB)' if fixes['channels'] else ''}"
            )
        images[i] = found
    return ImageSet(torch.from_numpy(images), labels.contiguous(), names)
