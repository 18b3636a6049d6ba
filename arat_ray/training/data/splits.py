"""The menu of data sets, and the split of a training set into what trains and what validates."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field
from torch import Tensor

from arat_ray.storage import finding
from arat_ray.training.data import fingerprint
from arat_ray.training.data.digits import Digits
from arat_ray.training.data.fingerprint import Content
from arat_ray.training.data.image_files import ImageFolder, ParquetImages
from arat_ray.training.data.images import ImageSet, Split
from arat_ray.training.data.subset import Subset, choose, stratified
from arat_ray.training.data.torchvision_sets import Cifar10, Cifar100, FashionMnist, Svhn

__all__ = ["DATASETS", "Dataset", "Digits", "ImageSet", "Splits", "hold_out", "indices_sha256", "load", "read"]


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


def read(dataset: Dataset, split: Split) -> ImageSet:
    """A split of a data set, read once a process: a reused worker finds it here. Not to be written to."""
    found = dataset.located()
    places = [getattr(found, key) for key in found.places if key in ("train", "test")]
    return _read(found, split, tuple(finding.version(place) for place in places if place is not None))


@lru_cache(maxsize=4)
def _read(dataset: Dataset, split: Split, version: tuple[Any, ...]) -> ImageSet:
    del version  # what was replaced meanwhile is read again
    return dataset.read(split)


class Splits(NamedTuple):
    """What is trained on, what is validated on, and the fingerprint of the latter's indices."""

    train: ImageSet
    validation: ImageSet
    validation_sha256: str
    content: Content
    """Fingerprints of the splits that both are of."""


def load(
    dataset: Dataset,
    *,
    validate_on: Literal["validation", "test"],
    images: int,
    seed: int,
    subset: Subset = "stratified",
) -> Splits:
    """A training set, less a stratified validation set drawn with `seed`; or whole, beside so many test images.

    These too are drawn by class with `seed`, unless `subset` says the first.

    The test set is opened in the second case only. Raises ValueError for more images than there are.
    """
    train = read(dataset, "train")
    content = {"train": fingerprint.of(train)}
    if validate_on == "validation":
        kept, held = hold_out(train.labels, images=images, seed=seed)
        return Splits(_rows(train, kept), _rows(train, held), indices_sha256(held), content)
    test = read(dataset, "test")
    if images > len(test.labels):
        raise ValueError(f"{images} images of a test set of {len(test.labels)}; lower validate.images")
    chosen = choose(test.labels, images, subset=subset, seed=seed)
    content["test"] = fingerprint.of(test)
    return Splits(train, _rows(test, chosen), indices_sha256(chosen), content)


def _rows(images: ImageSet, indices: Tensor) -> ImageSet:
    return images._replace(images=images.images[indices], labels=images.labels[indices])


def hold_out(labels: Tensor, *, images: int, seed: int) -> tuple[Tensor, Tensor]:
    """Sorted indices to train on [N - images] and to validate on [images], drawn with `seed`; labels [N].

    Each class is held out by its share of the set, rounded to a neighbouring whole number of images.
    """
    n = len(labels)
    if not 0 <= images < n:
        raise ValueError(f"{images} validation images of {n} training images; choose 0 to {n - 1}")
    return stratified(labels, images, seed=seed)


def indices_sha256(indices: Tensor) -> str:
    """Hex digest of int64 indices, little endian: equal where two runs held out the same images."""
    return hashlib.sha256(indices.numpy().astype("<i8").tobytes()).hexdigest()
