"""What lies between two trained networks without training: a soup of their weights, a mixture of their probabilities.

Soups: Wortsman et al., https://arxiv.org/abs/2203.05482; of robust networks Croce et al.,
https://arxiv.org/abs/2302.10164. Mixtures: Bai et al., https://arxiv.org/abs/2402.02263; attacked as one network here,
with gradients through both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from arat_ray.training import averaging, checkpoint, trained_on
from arat_ray.training.checkpoint import Checkpoint
from arat_ray.training.methods.pgd_at import PgdAt
from arat_ray.training.randomness import Noise, generator

Way = Literal["soup", "mix"]
NORM_IMAGES = 10_000
"""Training images on which a soup's norm statistics are estimated, at most; whole batches, as averages have it."""


class TwoNetworks(NamedTuple):
    """Two checkpoints, and the way from the first (t = 0) to the second (t = 1)."""

    way: Way
    a: Checkpoint
    b: Checkpoint


def check(pair: TwoNetworks, names: Sequence[object], dials: Sequence[float]) -> None:
    """ValueError for networks that are not two of one kind, and for a setting that is not between them."""
    a, b = pair.a, pair.b
    if (a.shape, a.num_classes) != (b.shape, b.num_classes):
        raise ValueError(
            f"--{pair.way}: {names[0]} is for images {list(a.shape)} of {a.num_classes} classes and {names[1]} for "
            f"{list(b.shape)} of {b.num_classes}; choose two networks for the same images"
        )
    if pair.way == "soup" and a.train_spec.model != b.train_spec.model:
        raise ValueError(
            f"--soup: {names[0]} and {names[1]} are of two architectures, {a.train_spec.model!r} and "
            f"{b.train_spec.model!r}, whose weights have no middle; --mix mixes what they answer"
        )
    for dial in dials:
        if not 0 <= dial <= 1:
            raise ValueError(f"dial {dial:g}: between two networks it goes from 0 to 1; choose settings there")


def network(pair: TwoNetworks, t: float, *, averaged: bool, device: torch.device) -> nn.Module:
    """The network at t, in eval mode on `device`; at 0 and 1 the deployed network of a checkpoint, bit for bit."""
    a, b = (checkpoint.network(each, averaged=averaged).to(device) for each in pair[1:])
    if t in (0, 1):
        return b if t else a
    return (_soup(a, b, t, pair.a, device) if pair.way == "soup" else Mixture(a, b, t)).eval()


class Mixture(nn.Module):
    """Logarithms [N, K] of (1 - t) x the probabilities of `a` + t x those of `b`, which are logits of just these."""

    def __init__(self, a: nn.Module, b: nn.Module, t: float) -> None:
        super().__init__()
        self.a, self.b, self.t = a, b, t

    def forward(self, x: Tensor) -> Tensor:
        a, b = (each(x).log_softmax(1) for each in (self.a, self.b))
        return torch.logaddexp(a + math.log(1 - self.t), b + math.log(self.t))

    def extra_repr(self) -> str:
        """The share is part of what the network is."""
        return f"t={self.t!r}"


def _soup(a: nn.Module, b: nn.Module, t: float, state: Checkpoint, device: torch.device) -> nn.Module:
    with torch.no_grad():
        for mine, other in zip(a.parameters(), b.parameters(), strict=True):
            mine.copy_((1 - t) * mine.double() + t * other.double())
    norms = [each for each in a.modules() if isinstance(each, _BatchNorm) and each.track_running_stats]
    if norms:
        _estimate_norms(a, norms, state, device)
    return a


def _estimate_norms(model: nn.Module, norms: list[_BatchNorm], state: Checkpoint, device: torch.device) -> None:
    """Statistics on training images of the first run, attacked as it trained: those that a deployed branch serves."""
    train = state.train_spec
    images = trained_on.images(state, device=device)
    size = min(train.batch_size, len(images))
    whole = max(1, min(NORM_IMAGES, len(images)) // size)
    chosen = torch.randperm(len(images), generator=generator("cpu", train.seed, "soup"))[: whole * size]
    draws = generator("cpu", train.seed, "soup-augment")
    batches = (images.batch(indices, draws) for indices in chosen.split(size))
    method = PgdAt(model).train().requires_grad_(False)
    averaging.estimate(method, norms, batches, train.attack, Noise(generator(device, train.seed, "soup-attack"), size))
