"""What a data set is: a Spec whose fields are its YAML and whose `read` gives an `ImageSet`.

Images stay uint8 until the caller divides a batch by 255. The order of a set is fixed. `images: N` trains on N of them,
drawn by class with a fixed seed, or on the first, which of sorted files are of one class.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal, NamedTuple, Self

import torch
from pydantic import (
    NonNegativeInt,
    PositiveInt,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError
from torch import Tensor

from arat_ray.spec import Spec
from arat_ray.storage import finding
from arat_ray.training.data import classes as check
from arat_ray.training.data.subset import Subset, choose

Split = Literal["train", "test"]
Shape = tuple[int, int, int]  # channels, height, width


class ImageSet(NamedTuple):
    """Images uint8 [N, C, H, W], labels int64 [N], and the name of each label."""

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]


class Images(Spec):
    """What every data set may say."""

    images: PositiveInt | None = None
    """Train on so many only."""
    subset: Subset = "stratified"
    """Which: of each class by its share, drawn with a fixed seed; or the first, as others do."""
    crop_padding: NonNegativeInt = 4
    """Random crops of the image padded by so many black pixels; 0 for none."""
    flip: bool = True
    """Mirror one image in two."""
    places: ClassVar[tuple[str, ...]] = ()  # the keys that say where it lies, which is no part of what it is
    later: ClassVar[tuple[str, ...]] = ()  # keys that came later and are None by default
    train_images: ClassVar[int | None] = None  # how many there are, where that is known beforehand
    test_images: ClassVar[int | None] = None

    @field_validator("images")
    @classmethod
    def _are_there(cls, images: int | None) -> int | None:
        if images is not None and cls.train_images is not None and images > cls.train_images:
            raise ValueError(f"{images} is more than the {cls.train_images} training images there are")
        return images

    def located(self) -> Self:
        """The same set, its places those where it is found on this machine (`storage.finding`)."""
        named = {key: place for key in self.places if (place := getattr(self, key)) is not None}
        return self.model_copy(update=finding.find(named)) if named else self

    @model_validator(mode="after")
    def _subset_has_a_size(self) -> Self:
        if self.images is None and self.subset != "stratified":
            raise PydanticCustomError("subset", "subset: {subset} needs `images:`, how many", {"subset": self.subset})
        return self

    @model_serializer(mode="wrap")
    def _without_later_keys(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What stands for nothing is not written out, so that runs from before there was such a key stay the same."""
        written: dict[str, Any] = write(self)
        nothing = [name for name in self.later if getattr(self, name) is None]
        for name in [*nothing, *(["subset"] if self.images is None else [])]:
            written.pop(name, None)
        return written

    def notes(self) -> Iterator[str]:
        """What a user should know of how the set is read, where its files are at hand."""
        if self.images is not None:
            which = "the first" if self.subset == "first" else "drawn by class with a fixed seed"
            yield f"{self.images} of its training images, {which}"

    def available(self, split: Split) -> int:
        """How many images of a split there are to train on or to test, counted without reading them.

        Raises ValueError for fewer than `images`, and where there is nothing to count.
        """
        known = self.test_images if split == "test" else self.train_images
        if known is None:
            known = self._counted(split)
        return self._count(known, split)

    def _counted(self, split: Split) -> int:
        raise NotImplementedError(f"{type(self).__name__} says neither how many images it has nor how to count them")

    def _count(self, available: int, split: Split) -> int:
        """How many images to read of a split that has so many."""
        if split == "test" or self.images is None:
            return available
        if self.images > available:
            raise ValueError(f"dataset.images: {self.images} is more than the {available} training images there are")
        return self.images

    def _indices(self, labels: Tensor, split: Split) -> Tensor:
        """Which images to read of a split with these labels [N], sorted."""
        n = self._count(len(labels), split)
        return choose(labels, n, subset=self.subset)

    def _chosen(self, where: str, split: Split, images: Any, labels: Any, classes: Any) -> ImageSet:
        """Of all images and labels of a split, which `where` holds, those to be read; checked."""
        whole, names = torch.as_tensor(labels), tuple(classes)
        check.refuse_impossible(where, split, whole, names)
        chosen = self._indices(whole, split)
        if len(chosen) == len(whole):
            return ImageSet(torch.as_tensor(images).contiguous(), whole, names)
        return ImageSet(torch.as_tensor(images)[chosen].contiguous(), whole[chosen], names)
