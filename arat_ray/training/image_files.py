"""Your own images: encoded in Parquet files, or in a folder for each class."""

from __future__ import annotations

import hashlib
import io
import json
import os
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import PositiveInt

from arat_ray.spec import DataPlace, did_you_mean
from arat_ray.storage.datasets import cached
from arat_ray.training.images import Images, ImageSet, Shape, Split

if TYPE_CHECKING:
    import pyarrow.parquet as pq


class ParquetImages(Images):
    """Images in Parquet as on the Hugging Face hub: struct<bytes, path> or binary, beside an integer label.

    A path is a file or a folder of parts: `train*.parquet` or `test*.parquet`, or all if none are named so.
    Class names are those of the schema's `huggingface` metadata, else "0" to the highest training label.
    """

    name: Literal["parquet"] = "parquet"
    places: ClassVar[tuple[str, ...]] = ("train", "test")
    train: DataPlace
    test: DataPlace | None = None
    image_column: str | None = None  # by default `img` or `image`
    label_column: str = "label"
    channels: Literal[1, 3] | None = None  # convert to grey or RGB; by default all are as the first

    @property
    def shape(self) -> Shape:
        return _parquet_facts(self.located())[0]

    @property
    def num_classes(self) -> int:
        return len(_parquet_facts(self.located())[1])

    def read(self, split: Split) -> ImageSet:
        shape, classes = _parquet_facts(self.located())
        n = self._count(sum(map(_num_rows, self._parts(split))), split)
        return _gather(n, self._rows(split), shape, classes)

    def _parts(self, split: Split) -> list[Path]:
        path = _existing(split, getattr(self.located(), split))
        if not path.is_dir():
            return [path]
        parts = sorted(path.glob("*.parquet"))
        if any(part.name.startswith(("train", "test")) for part in parts):  # then never one for the other
            parts = [part for part in parts if part.name.startswith(split)]
        if not parts:
            raise ValueError(f"dataset.{split}: no {split}*.parquet in {path}")
        return parts

    def _columns(self, part: Path, file: pq.ParquetFile) -> tuple[str, str]:
        """The names of the image and the label column."""
        known = file.schema_arrow.names
        image = self.image_column or ("img" if "img" in known else "image")
        for key, column in (("image_column", image), ("label_column", self.label_column)):
            if column not in known:
                raise ValueError(f"dataset.{key}: {part} has no {column!r}{did_you_mean(column, known)}")
        return image, self.label_column

    def _rows(self, split: Split) -> Iterator[tuple[str, Any, Any]]:
        """Where a row stands, its image uint8 [C, H, W] and its label; read no further than asked."""
        for part in self._parts(split):
            with _parquet(part) as file:
                columns = self._columns(part, file)
                batches = file.iter_batches(batch_size=1024, columns=columns)
                cells = (zip(*(batch[column].to_pylist() for column in columns), strict=True) for batch in batches)
                for row, (image, label) in enumerate(chain.from_iterable(cells)):
                    where = f"{part}, row {row} (from 0)"
                    encoded = image.get("bytes") if isinstance(image, dict) else image
                    if not isinstance(encoded, bytes):
                        raise ValueError(f"{where}: no encoded image in {columns[0]}; embed the bytes, not a path")
                    yield where, _pixels(io.BytesIO(encoded), where, channels=self.channels), label


@contextmanager
def _parquet(part: Path) -> Iterator[pq.ParquetFile]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(part) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{part}: no intact Parquet file ({error}); download or write it again") from error


def _num_rows(part: Path) -> int:
    with _parquet(part) as file:
        return int(file.metadata.num_rows)


@lru_cache
def _parquet_facts(dataset: ParquetImages) -> tuple[Shape, tuple[str, ...]]:
    """The shape of the first training image and the class names."""
    first = next(dataset._rows("train"), None)
    if first is None:
        raise ValueError(f"dataset.train: {dataset.train} has no rows")
    highest = 0
    for part in dataset._parts("train"):
        with _parquet(part) as file:
            _, label = dataset._columns(part, file)
            info = json.loads((file.schema_arrow.metadata or {}).get(b"huggingface", b"{}"))
            names = info.get("info", {}).get("features", {}).get(label, {}).get("names")
            if names:
                return first[1].shape, tuple(names)
            labels = file.read(columns=[label])[label].to_pylist()
            highest = max([highest, *(value for value in labels if isinstance(value, int))])
    return first[1].shape, tuple(map(str, range(highest + 1)))


class ImageFolder(Images):
    """A folder of images for each class; their shorter side is resized to `size`, then the centre is cropped.

    Files are read in the order of a hash of their names: shuffled, and the same on every machine.
    """

    name: Literal["image_folder"] = "image_folder"
    places: ClassVar[tuple[str, ...]] = ("train", "test")
    train: DataPlace
    test: DataPlace | None = None
    size: PositiveInt
    channels: Literal[1, 3] = 3
    suffixes: ClassVar[tuple[str, ...]] = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")

    @property
    def shape(self) -> Shape:
        return self.channels, self.size, self.size

    @property
    def num_classes(self) -> int:
        return len(self._classes())

    def _classes(self) -> tuple[str, ...]:
        folder = _existing("train", self.located().train)
        names = tuple(sorted(entry.name for entry in folder.glob("[!.]*") if entry.is_dir()))
        if not names:
            raise ValueError(f"dataset.train: {folder} holds no folders; make one for each class")
        return names

    def read(self, split: Split) -> ImageSet:
        folder = _existing(split, getattr(self.located(), split))
        files = [file for file in folder.glob("[!.]*/**/[!.]*") if file.suffix.lower() in self.suffixes]
        if not files:
            raise ValueError(f"dataset.{split}: no {', '.join(self.suffixes)} in the folders of {folder}")
        files.sort(key=lambda file: hashlib.sha256(file.relative_to(folder).as_posix().encode()).digest())
        n = self._count(len(files), split)
        return _gather(n, self._rows(split, folder, files), self.shape, self._classes())

    def _rows(self, split: Split, folder: Path, files: list[Path]) -> Iterator[tuple[str, Any, int]]:
        """Name, image uint8 [C, H, W] and label of each file."""
        label = {name: index for index, name in enumerate(self._classes())}
        for file in files:
            name = file.relative_to(folder).parts[0]
            if name not in label:
                raise ValueError(f"dataset.{split}: {file} is of no training class{did_you_mean(name, label)}")
            yield str(file), _pixels(file, str(file), channels=self.channels, size=self.size), label[name]


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


def _pixels(source: Any, where: str, *, channels: int | None, size: int | None = None) -> Any:
    """One image, uint8 [C, H, W]: grey (1) or RGB (3) as `channels` says, by default as it is stored.

    With `size`, the shorter side is resized to it and the centre [C, size, size] is kept.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(source) as image:
            if image.mode.startswith(("I", "F")):
                raise ValueError(f"mode {image.mode}, more than 8 bits a channel")
            grey = image.mode in ("1", "L", "LA") if channels is None else channels == 1
            decoded = image if image.mode == "RGB" and not grey else image.convert("L" if grey else "RGB")
            if size is not None:
                from torchvision.transforms.functional import center_crop, resize

                decoded = center_crop(resize(decoded, [size]), [size])
            pixels = np.asarray(decoded)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # Syntax: a broken PNG
        reason = "no known format" if isinstance(error, UnidentifiedImageError) else error
        raise ValueError(f"{where}: unreadable image ({reason}); repair or remove it") from error
    return pixels.reshape(*pixels.shape[:2], -1).transpose(2, 0, 1)


def _gather(n: int, rows: Iterator[tuple[str, Any, Any]], shape: Shape, classes: tuple[str, ...]) -> ImageSet:
    """The first n rows (where, image, label) as an image set, each checked."""
    images, labels = np.empty((n, *shape), np.uint8), np.empty(n, np.int64)
    for i, (where, pixels, label) in enumerate(islice(rows, n)):
        if pixels.shape != shape:
            raise ValueError(
                f"{where}: image of {pixels.shape}, but the first training image is {shape} (channels, "
                "height, width); all must share one size, and `channels: 3` makes all of them RGB"
            )
        if not isinstance(label, int) or not 0 <= label < len(classes):
            raise ValueError(f"{where}: label {label!r} is no integer in 0..{len(classes) - 1}")
        images[i], labels[i] = pixels, label
    return ImageSet(torch.from_numpy(images), torch.from_numpy(labels), classes)
