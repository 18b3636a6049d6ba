"""What a data set is: a Spec whose fields are its YAML and whose `read` gives an `ImageSet`.

Images stay uint8 until the caller divides a batch by 255. The order of a set is fixed and not by class (a Parquet
file's is its own), so `images: N` makes a cheap, repeatable experiment.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, NamedTuple, Self

import torch
from pydantic import NonNegativeInt, PositiveInt, field_validator
from torch import Tensor

from arat_ray.spec import Spec
from arat_ray.storage import finding

Split = Literal["train", "test"]
Shape = tuple[int, int, int]  # channels, height, width


class ImageSet(NamedTuple):
    """Images uint8 [N, C, H, W], labels int64 [N], and the name of each label."""

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]


class Images(Spec):
    """What every data set may say."""

    images: PositiveInt | None = None  # train on the first so many only
    crop_padding: NonNegativeInt = 4  # random crops of the image padded by so many black pixels; 0 for none
    flip: bool = True  # mirror one image in two
    places: ClassVar[tuple[str, ...]] = ()  # the keys that say where it lies, which is no part of what it is
    train_images: ClassVar[int | None] = None  # how many there are, where that is known beforehand

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
