"""The images that a checkpoint's run trained on, read again."""

from __future__ import annotations

import torch

from arat_ray.training.checkpoint import Checkpoint
from arat_ray.training.data import fingerprint
from arat_ray.training.data.batches import Batches


def images(state: Checkpoint, *, device: torch.device) -> Batches:
    """In augmented batches, without those that were held out. ValueError where they are not those of the run."""
    train = state.train_spec
    splits = state.validate_spec.splits(train.dataset)
    if found := list(fingerprint.changes(state.content or {}, dict(splits.content))):
        raise ValueError(
            f"the data has changed since this checkpoint: {'; '.join(found)}; bring it back, or give --data PATH"
        )
    if splits.validation_sha256 != state.validation_sha256:
        raise ValueError("the training set has changed since this checkpoint: other images would be held out now")
    return Batches(
        splits.train, train.dataset, policy=train.augmentation, channels_last=train.channels_last, device=device
    )
