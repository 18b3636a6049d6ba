"""Image sets as uint8 tensors, and the split of a training set into what trains and what validates.

A data set is a Spec: its fields are its YAML, its `read` gives an `ImageSet`. Images stay uint8 until the
caller divides a batch by 255. The order of a set is fixed and not by class (a Parquet file's is its own), so
`images: N` makes a cheap, repeatable experiment.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import socket
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from functools import lru_cache
from http.client import HTTPException
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor

from arat_ray.spec import DataPath, Spec, did_you_mean

if TYPE_CHECKING:
    import pyarrow.parquet as pq

Split = Literal["train", "test"]
Shape = tuple[int, int, int]  # channels, height, width


class ImageSet(NamedTuple):
    """Images uint8 [N, C, H, W], labels int64 [N], and the name of each label."""

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]


class _Images(Spec):
    """What every data set may say."""

    images: PositiveInt | None = None  # train on the first so many only
    crop_padding: NonNegativeInt = 4  # random crops of the image padded by so many black pixels; 0 for none
    flip: bool = True  # mirror one image in two

    def _count(self, available: int, split: Split) -> int:
        """How many images to read of a split that has so many."""
        if split == "test" or self.images is None:
            return available
        if self.images > available:
            raise ValueError(f"dataset.images: {self.images} is more than the {available} training images there are")
        return self.images

    def _first(self, split: Split, images: Any, labels: Any, classes: Any) -> ImageSet:
        n = self._count(len(images), split)
        return ImageSet(torch.as_tensor(images[:n]).contiguous(), torch.as_tensor(labels[:n]), tuple(classes))


class Digits(_Images):
    """1,797 handwritten digits, grey 8x8, inside scikit-learn; always the same 360 are the test set.

    E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998.
    """

    name: Literal["digits"] = "digits"
    crop_padding: NonNegativeInt = 0
    flip: bool = False
    shape: ClassVar[Shape] = (1, 8, 8)
    num_classes: ClassVar[int] = 10

    def read(self, split: Split) -> ImageSet:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        digits = load_digits()
        train, test = train_test_split(np.arange(1797), test_size=360, stratify=digits.target, random_state=0)
        rows = train if split == "train" else test
        grey = np.round(digits.images[rows] * (255 / 16)).astype(np.uint8)  # stored as 0..16
        return self._first(split, grey[:, None], digits.target[rows], map(str, range(10)))


def _data_folder() -> Path:
    return Path(os.environ.get("ARAT_DATA") or "~/.cache/arat-ray").expanduser().absolute()


class Cifar10(_Images):
    """60,000 photographs, RGB 32x32.

    A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
    """

    name: Literal["cifar10"] = "cifar10"
    root: DataPath = Field(default_factory=_data_folder)
    shape: ClassVar[Shape] = (3, 32, 32)
    num_classes: ClassVar[int] = 10
    files: ClassVar[str] = (
        "cifar-10-python.tar.gz (MD5 c58f30108f718f92721af3b95e74349a) from https://www.cs.toronto.edu/~kriz/"
    )

    def read(self, split: Split) -> ImageSet:
        found = _torchvision(self, "CIFAR10", {"train": split == "train"})
        return self._first(split, found.data.transpose(0, 3, 1, 2), found.targets, found.classes)


class Cifar100(_Images):
    """As CIFAR-10, with 100 finer classes."""

    name: Literal["cifar100"] = "cifar100"
    root: DataPath = Field(default_factory=_data_folder)
    shape: ClassVar[Shape] = (3, 32, 32)
    num_classes: ClassVar[int] = 100
    files: ClassVar[str] = (
        "cifar-100-python.tar.gz (MD5 eb9058c3a382ffc7106e4002c42a8d85) from https://www.cs.toronto.edu/~kriz/"
    )

    def read(self, split: Split) -> ImageSet:
        found = _torchvision(self, "CIFAR100", {"train": split == "train"})
        return self._first(split, found.data.transpose(0, 3, 1, 2), found.targets, found.classes)


class Svhn(_Images):
    """99,289 digits of house numbers, RGB 32x32; not flipped, because a mirrored digit is none.

    Y. Netzer et al., "Reading Digits in Natural Images with Unsupervised Feature Learning", 2011.
    """

    name: Literal["svhn"] = "svhn"
    flip: bool = False
    root: DataPath = Field(default_factory=_data_folder)
    shape: ClassVar[Shape] = (3, 32, 32)
    num_classes: ClassVar[int] = 10
    files: ClassVar[str] = (
        "train_32x32.mat (MD5 e26dedcc434d2e4c54c9b2d4a06d8373) and test_32x32.mat "
        "(MD5 eb5a983be6a315427106f1b164d9cef3) from http://ufldl.stanford.edu/housenumbers/"
    )

    def read(self, split: Split) -> ImageSet:
        found = _torchvision(self, "SVHN", {"split": split})
        return self._first(split, found.data, found.labels, map(str, range(10)))


class FashionMnist(_Images):
    """70,000 pieces of clothing, grey 28x28. H. Xiao et al., https://arxiv.org/abs/1708.07747."""

    name: Literal["fashion_mnist"] = "fashion_mnist"
    root: DataPath = Field(default_factory=_data_folder)
    shape: ClassVar[Shape] = (1, 28, 28)
    num_classes: ClassVar[int] = 10
    files: ClassVar[str] = (
        "FashionMNIST/raw/train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and "
        "t10k-labels-idx1-ubyte (gunzipped) from https://github.com/zalandoresearch/fashion-mnist "
        "or Debian's package dataset-fashion-mnist"
    )

    def read(self, split: Split) -> ImageSet:
        found = _torchvision(self, "FashionMNIST", {"train": split == "train"})
        return self._first(split, found.data[:, None], found.targets, found.classes)


def _torchvision(dataset: Cifar10 | Cifar100 | Svhn | FashionMnist, kind: str, which: dict[str, Any]) -> Any:
    """The torchvision data set under `root`; else downloaded, quietly, by one process while others wait."""
    import torchvision.datasets
    from filelock import FileLock  # torch depends on it

    make, root = getattr(torchvision.datasets, kind), dataset.root
    with suppress(RuntimeError):  # not there, or damaged
        return make(root, **which)
    timeout, silence = socket.getdefaulttimeout(), io.StringIO()
    socket.setdefaulttimeout(15)  # seconds; a firewall that drops packets would hang the trial
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / ".lock"), redirect_stdout(silence), redirect_stderr(silence):
            return make(root, download=True, **which)
    except (OSError, RuntimeError, HTTPException) as error:
        raise ValueError(
            f"dataset {dataset.name}: no intact copy in {root} and no download "
            f"({' '.join(str(error).split())}); put {dataset.files} there, "
            "or set dataset.root (or ARAT_DATA) to a folder that has them"
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)


def _existing(key: str, path: Path | None) -> Path:
    """The path that a field gives, if there is such a file or folder."""
    if path is None:
        raise ValueError(f"dataset.{key}: not given; name the file or folder of the {key} images")
    if not path.exists():
        folder = next(parent for parent in path.parents if parent.is_dir())
        names = os.listdir(folder)
        hint = did_you_mean(path.relative_to(folder).parts[0], names) if names else ", which is empty"
        raise ValueError(f"dataset.{key}: no {path}; looked in {folder}{textwrap.shorten(hint, 300)}")
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


class ParquetImages(_Images):
    """Images in Parquet as on the Hugging Face hub: struct<bytes, path> or binary, beside an integer label.

    A path is a file or a folder of parts: `train*.parquet` or `test*.parquet`, or all if none are named so.
    Class names are those of the schema's `huggingface` metadata, else "0" to the highest training label.
    """

    name: Literal["parquet"] = "parquet"
    train: DataPath
    test: DataPath | None = None
    image_column: str | None = None  # by default `img` or `image`
    label_column: str = "label"
    channels: Literal[1, 3] | None = None  # convert to grey or RGB; by default all are as the first

    @property
    def shape(self) -> Shape:
        return _parquet_facts(self)[0]

    @property
    def num_classes(self) -> int:
        return len(_parquet_facts(self)[1])

    def read(self, split: Split) -> ImageSet:
        shape, classes = _parquet_facts(self)
        n = self._count(sum(map(_num_rows, self._parts(split))), split)
        return _gather(n, self._rows(split), shape, classes)

    def _parts(self, split: Split) -> list[Path]:
        path = _existing(split, getattr(self, split))
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


class ImageFolder(_Images):
    """A folder of images for each class; their shorter side is resized to `size`, then the centre is cropped.

    Files are read in the order of a hash of their names: shuffled, and the same on every machine.
    """

    name: Literal["image_folder"] = "image_folder"
    train: DataPath
    test: DataPath | None = None
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
        folder = _existing("train", self.train)
        names = tuple(sorted(entry.name for entry in folder.glob("[!.]*") if entry.is_dir()))
        if not names:
            raise ValueError(f"dataset.train: {folder} holds no folders; make one for each class")
        return names

    def read(self, split: Split) -> ImageSet:
        folder = _existing(split, getattr(self, split))
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


_Dataset = Digits | Cifar10 | Cifar100 | Svhn | FashionMnist | ParquetImages | ImageFolder
Dataset = Annotated[_Dataset, Field(discriminator="name")]
DATASETS: dict[str, type[_Dataset]] = {
    "digits": Digits,
    "cifar10": Cifar10,
    "cifar100": Cifar100,
    "svhn": Svhn,
    "fashion_mnist": FashionMnist,
    "parquet": ParquetImages,
    "image_folder": ImageFolder,
}


@lru_cache(maxsize=4)
def read(dataset: Dataset, split: Split) -> ImageSet:
    """A split of a data set, read once a process: a reused worker finds it here. Not to be written to."""
    return dataset.read(split)


class Splits(NamedTuple):
    """A training set in two parts, and the fingerprint of the indices held out."""

    train: ImageSet
    validation: ImageSet
    validation_sha256: str


def load(dataset: Dataset, *, validation_images: int, seed: int) -> Splits:
    """The training set, less a stratified validation set drawn with `seed`; the test set is not opened."""
    images, labels, classes = read(dataset, "train")
    kept, held = hold_out(labels, images=validation_images, seed=seed)
    train, validation = (ImageSet(images[rows], labels[rows], classes) for rows in (kept, held))
    return Splits(train, validation, indices_sha256(held))


def hold_out(labels: Tensor, *, images: int, seed: int) -> tuple[Tensor, Tensor]:
    """Sorted indices to train on [N - images] and to validate on [images], drawn with `seed`; labels [N].

    Each class is held out by its share of the set, rounded to a neighbouring whole number of images.
    """
    n = len(labels)
    if not 0 <= images < n:
        raise ValueError(f"{images} validation images of {n} training images; choose 0 to {n - 1}")
    shuffled = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    shuffled = shuffled[labels[shuffled].argsort(stable=True)]  # class by class, in random order within
    counts = labels.bincount()
    quota, remainder = counts * images // n, counts * images % n
    quota[remainder.argsort(descending=True, stable=True)[: images - int(quota.sum())]] += 1
    group = labels[shuffled]
    held = torch.arange(n) - (counts.cumsum(0) - counts)[group] < quota[group]
    return shuffled[~held].sort().values, shuffled[held].sort().values


def indices_sha256(indices: Tensor) -> str:
    """Hex digest of int64 indices, little endian: equal where two runs held out the same images."""
    return hashlib.sha256(indices.numpy().astype("<i8").tobytes()).hexdigest()
