"""Which images a network gets right, clean and under attack, and how many; shared out over workers, counts summed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from arat_ray.results.rows import EpochRow
from arat_ray.training.attacks import Attack
from arat_ray.training.data.splits import ImageSet
from arat_ray.training.randomness import Noise, generator

Reduce = Callable[[Tensor], Tensor]
"""Sums a tensor over all workers."""


class Counts(NamedTuple):
    """Numbers of images: all, rightly classified, and rightly classified both clean and under attack."""

    images: int
    clean: int
    robust: int

    @property
    def clean_accuracy(self) -> float:
        return self.clean / self.images

    @property
    def robust_accuracy(self) -> float:
        return self.robust / self.images

    def row(self) -> EpochRow:
        """By the columns of `epochs`; each `validation_<goal>` can be maximised."""
        return {
            "validation_clean_accuracy": self.clean_accuracy,
            "validation_robust_accuracy": self.robust_accuracy,
            "validation_images": self.images,
        }


def to_unit(images: Tensor, *, channels_last: bool = False) -> Tensor:
    """uint8 [N, C, H, W] in 0..255 -> float32 in [0, 1], where floats lie already."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    x = images.to(torch.float32, memory_format=layout)
    return x.div_(255) if images.dtype == torch.uint8 else x


def margins(logits: Tensor, y: Tensor) -> Tensor:
    """[N]: the logit of the true class less the highest other one; negative where the network is wrong."""
    true = logits.gather(1, y[:, None])
    return (true - logits.scatter(1, y[:, None], -torch.inf)).amin(1)


class Correctness(NamedTuple):
    """The verdict on n images: right without an attack, right both without and under it, and how far from wrong."""

    clean: Tensor  # bool [n]
    robust: Tensor  # bool [n]
    margins: Tensor  # float32 [n]: at x_adv; at x where the network is wrong without an attack


def correctness(
    model: nn.Module,
    data: ImageSet,
    *,
    attack: Attack | None,
    seed: int,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[Correctness]:
    """The verdicts of `model`, in eval mode, on `data` (on the model's device), batch by batch; this worker's share.

    The attack goes for rightly classified images only, because x lies in its own ball: an image that is wrong without
    an attack is not robust. Without an attack `robust` equals `clean`.
    """
    kernels = [parameter for parameter in model.parameters() if parameter.dim() == 4]
    channels_last = bool(kernels) and all(k.is_contiguous(memory_format=torch.channels_last) for k in kernels)
    device, training = data.images.device, model.training
    model.eval()
    try:
        for start in range(0, len(data.labels), batch_size):
            total = min(batch_size, len(data.labels) - start)
            rows = torch.arange(total, device=device)[rank::world_size]  # of a ragged last batch perhaps none
            x = to_unit(data.images[start + rows], channels_last=channels_last)
            y = data.labels[start + rows]
            with torch.no_grad():
                logits = model(x)
            clean = logits.argmax(1) == y
            robust, margin = clean.clone(), margins(logits, y)
            if attack is not None and bool(clean.any()):
                noise = Noise(generator(device, seed, "attack", start), total, rows[clean])
                x_adv = attack(model, x[clean], y[clean], noise=noise)
                with torch.no_grad():
                    logits = model(x_adv)
                robust[clean] = logits.argmax(1) == y[clean]
                margin[clean] = margins(logits, y[clean])
            yield Correctness(clean, robust, margin)
    finally:
        model.train(training)


def count(
    model: nn.Module,
    data: ImageSet,
    *,
    attack: Attack | None,
    seed: int,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    reduce: Reduce = lambda counts: counts,
    alive: Callable[[], None] = lambda: None,
) -> Counts:
    """How many images `correctness` finds right, over all workers; `alive` is called after each batch."""
    seen = clean = robust = 0
    for batch in correctness(
        model, data, attack=attack, seed=seed, batch_size=batch_size, rank=rank, world_size=world_size
    ):
        seen += len(batch.clean)
        clean += int(batch.clean.sum())
        robust += int(batch.robust.sum())
        alive()
    summed = reduce(torch.tensor([seen, clean, robust], device=data.images.device))
    return Counts(*(int(value) for value in summed))
