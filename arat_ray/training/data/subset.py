"""A part of a data set: each class by its share, drawn with a seed and the same on every machine, or the first."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

Subset = Literal["stratified", "first"]
SUBSETS: tuple[Subset, ...] = get_args(Subset)


def choose(labels: Tensor, images: int, *, subset: Subset, seed: int = 0) -> Tensor:
    """Sorted indices of so many images [images], of those with labels [N]."""
    if subset == "first" or images == len(labels):
        return torch.arange(images)
    return stratified(labels, images, seed=seed)[1]


def stratified(labels: Tensor, images: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Sorted indices of the rest [N - images] and of those drawn [images], of labels [N].

    Of each class its share is drawn, rounded to a neighbouring whole number of images.
    """
    n = len(labels)
    assert 0 <= images <= n
    shuffled = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    shuffled = shuffled[labels[shuffled].argsort(stable=True)]  # class by class, in random order within
    counts = labels.bincount()
    quota, remainder = counts * images // n, counts * images % n
    quota[remainder.argsort(descending=True, stable=True)[: images - int(quota.sum())]] += 1
    group = labels[shuffled]
    drawn = torch.arange(n) - (counts.cumsum(0) - counts)[group] < quota[group]
    return shuffled[~drawn].sort().values, shuffled[drawn].sort().values
