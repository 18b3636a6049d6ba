"""How many images a network gets right, clean and under attack; shared out over workers, counts summed."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from arat_ray.training.attacks import Attack
from arat_ray.training.data import ImageSet
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


def to_unit(images: Tensor, *, channels_last: bool = False) -> Tensor:
    """uint8 [N, C, H, W] in 0..255 -> float32 in [0, 1]."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return images.to(torch.float32, memory_format=layout).div_(255)


def margins(logits: Tensor, y: Tensor) -> Tensor:
    """[N]: the logit of the true class less the highest other one; negative where the network is wrong."""
    true = logits.gather(1, y[:, None])
    return (true - logits.scatter(1, y[:, None], -torch.inf)).amin(1)


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
    progress: Callable[[int, int, int], None] = lambda images, clean, robust: None,
) -> Counts:
    """Accuracy counts of `model`, in eval mode, on `data` (on the model's device).

    The attack goes for rightly classified images only, because x lies in its own ball: an image that is wrong without
    an attack is not robust. Without an attack `robust` equals `clean`. `progress(images, clean, robust)` is called
    after each batch with this worker's counts so far.
    """
    training = model.training
    model.eval()
    kernels = [parameter for parameter in model.parameters() if parameter.dim() == 4]
    channels_last = bool(kernels) and all(k.is_contiguous(memory_format=torch.channels_last) for k in kernels)
    device = data.images.device
    seen = clean = robust = 0
    for start in range(0, len(data.labels), batch_size):
        total = min(batch_size, len(data.labels) - start)
        rows = torch.arange(total, device=device)[rank::world_size]  # of a ragged last batch perhaps none
        x = to_unit(data.images[start + rows], channels_last=channels_last)
        y = data.labels[start + rows]
        with torch.no_grad():
            right = model(x).argmax(1) == y
        seen, clean = seen + len(y), clean + int(right.sum())
        if attack is not None and bool(right.any()):
            noise = Noise(generator(device, seed, "attack", start), total, rows[right])
            x_adv = attack(model, x[right], y[right], noise=noise)
            with torch.no_grad():
                robust += int((model(x_adv).argmax(1) == y[right]).sum())
        progress(seen, clean, clean if attack is None else robust)
    model.train(training)
    summed = reduce(torch.tensor([seen, clean, clean if attack is None else robust], device=device))
    return Counts(*(int(value) for value in summed))
