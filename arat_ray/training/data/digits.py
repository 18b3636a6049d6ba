"""The digits of scikit-learn, read from its file: to import the library takes longer than to train on them."""

from __future__ import annotations

import gzip
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import NonNegativeInt

from arat_ray.training.data.images import Images, ImageSet, Shape, Split

Ints = npt.NDArray[np.int64]
TEST_IMAGES = 360


class Digits(Images):
    """1,797 handwritten digits, grey 8x8, inside scikit-learn; always the same 360 are the test set.

    E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998.
    """

    name: Literal["digits"] = "digits"
    crop_padding: NonNegativeInt = 0
    flip: bool = False
    shape: ClassVar[Shape] = (1, 8, 8)
    num_classes: ClassVar[int] = 10
    train_images: ClassVar[int] = 1437
    test_images: ClassVar[int] = TEST_IMAGES

    def read(self, split: Split) -> ImageSet:
        values, labels = table()
        train, test = split_of(labels)
        rows = train if split == "train" else test
        grey = np.round(values[rows] * (255 / 16)).astype(np.uint8)  # stored as 0..16
        return self._chosen(
            "dataset digits", split, grey.reshape(-1, *self.shape), labels[rows], map(str, range(self.num_classes))
        )


def table() -> tuple[Ints, Ints]:
    """Grey values [N, 64], 0 to 16, and labels [N], in the order of scikit-learn's file."""
    library = find_spec("sklearn")
    assert library is not None, "a dependency of this package"
    assert library.origin is not None, "a package of files"
    with gzip.open(Path(library.origin).parent / "datasets" / "data" / "digits.csv.gz", "rt") as file:
        rows = np.array([line.split(",") for line in file.read().split()]).astype(np.int64)
    return rows[:, :-1], rows[:, -1]


def split_of(labels: Ints) -> tuple[Ints, Ints]:
    """Indices to train on and to test on, in scikit-learn's order: what its `train_test_split(numpy.arange(N),
    test_size=360, stratify=labels, random_state=0)` gives."""
    draw = np.random.RandomState(0)
    counts = np.bincount(labels)
    train_counts = _by_class(counts, len(labels) - TEST_IMAGES, draw)
    test_counts = _by_class(counts - train_counts, TEST_IMAGES, draw)
    train, test = [], []
    for label, (first, then) in enumerate(zip(train_counts, test_counts, strict=True)):
        mixed = draw.permutation(np.flatnonzero(labels == label))
        train.append(mixed[:first])
        test.append(mixed[first : first + then])
    return draw.permutation(np.concatenate(train)), draw.permutation(np.concatenate(test))


def _by_class(counts: Ints, images: int, draw: np.random.RandomState) -> Ints:
    """So many images by the share of each class, what rounding down leaves going to the largest remainders, of equal
    ones to those that are drawn."""
    exact = counts / counts.sum() * images
    taken: npt.NDArray[np.float64] = np.floor(exact)
    remainder = exact - taken
    for value in np.unique(remainder)[::-1]:
        left = int(images - taken.sum())
        if left == 0:
            break
        equal = np.flatnonzero(remainder == value)
        taken[draw.choice(equal, size=min(len(equal), left), replace=False)] += 1
    return taken.astype(np.int64)
