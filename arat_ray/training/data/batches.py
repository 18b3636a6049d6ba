"""Batches: a training set on the device, served in augmented batches, of which every worker takes its rows.

Offsets, flips and the seeds of a policy are drawn for the whole global batch on every worker, so the number of workers
does not change them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from arat_ray.training.accuracy_counts import to_unit
from arat_ray.training.data import augmentation, policies
from arat_ray.training.data.augmentation import AugmentedImages
from arat_ray.training.data.images import ImageSet
from arat_ray.training.data.policies import Policy
from arat_ray.training.data.splits import Dataset

EVERYTHING = slice(None)


class Batches:
    """A set of images, augmented as the data set and `policy` say; `rows` are this worker's of each batch."""

    def __init__(
        self,
        images: ImageSet,
        dataset: Dataset,
        *,
        policy: Policy | None,
        channels_last: bool,
        device: torch.device,
        rows: slice = EVERYTHING,
    ) -> None:
        self.labels = images.labels.to(device)
        self.augmented = AugmentedImages(images.images.to(device), padding=dataset.crop_padding, flip=dataset.flip)
        self.dataset, self.policy, self.channels_last, self.rows = dataset, policy, channels_last, rows

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Tensor, draws: torch.Generator, rows: slice | None = None) -> tuple[Tensor, Tensor]:
        """Rows of the augmented batch of images `indices`: x [B, C, H, W] in [0, 1] and y [B]."""
        images, labels = self.images(indices, draws, self.rows if rows is None else rows)
        return to_unit(images, channels_last=self.channels_last), labels

    def images(self, indices: Tensor, draws: torch.Generator, rows: slice = EVERYTHING) -> tuple[Tensor, Tensor]:
        """The same as uint8."""
        offsets, flips = augmentation.draw(
            len(indices), draws, padding=self.dataset.crop_padding, flip=self.dataset.flip
        )
        seeds = policies.draw(len(indices), draws) if self.policy else []
        mine = indices[rows].to(self.labels.device, non_blocking=True)
        images = self.augmented.batch(mine, offsets[rows], flips[rows])
        return policies.apply(self.policy, images, seeds[rows]) if self.policy else images, self.labels[mine]
