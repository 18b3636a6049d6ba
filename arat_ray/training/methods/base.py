"""Method: what every defence is. It owns the network and any other that it trains along.

x, x_adv [N, C, H, W]; y [N]; logits [N, K].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from arat_ray.training import split_norm
from arat_ray.training.attacks import Attack, Loss
from arat_ray.training.models import Model
from arat_ray.training.randomness import Noise
from arat_ray.training.split_norm import AttackNorm

SampleAccuracy = Callable[[nn.Module, int, bool], float]
"""Accuracy of a network, in eval mode, on so many augmented training images: fresh ones each epoch (True) or always
the same."""


@dataclass(frozen=True)
class Task:
    """What a method is built for: images of `shape` [C, H, W], so many classes, and the network trained on them."""

    model: Model
    shape: tuple[int, int, int]
    num_classes: int

    def network(self, model: Model | None = None) -> nn.Module:
        """A freshly initialised network, of the task's own kind or of another."""
        return (model or self.model).build(self.shape, self.num_classes)


class Losses(NamedTuple):
    """The three terms every method speaks in, already weighted: a step minimises their sum.

    The logits are there for the training accuracies; None where the method does not compute them.
    """

    adversarial: Tensor
    clean: Tensor
    invariance: Tensor
    logits_adv: Tensor | None = None
    logits_clean: Tensor | None = None

    @property
    def classification(self) -> Tensor:
        return self.adversarial + self.clean

    @property
    def total(self) -> Tensor:
        return self.adversarial + self.clean + self.invariance


class Method(nn.Module):
    """A defence: an inner maximisation (`perturb`) and an outer minimisation (`forward`)."""

    label_smoothing = 0.0

    def __init__(self, model: nn.Module, *, attack_norm: AttackNorm = "train") -> None:
        super().__init__()
        self.model = model
        self.attack_norm = attack_norm
        self.balance: float | None = None

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """The classifiers that are trained; the first is the one deployed."""
        return (self.model,)

    def start_epoch(self, epoch: int, sample_accuracy: SampleAccuracy) -> None:
        """Called before each epoch (from 1); nothing by default."""

    def epoch_state(self) -> dict[str, Any]:
        """What `start_epoch` settled, beyond parameters and buffers: plain values by the names of attributes."""
        return {"balance": self.balance}

    def resume_epoch(self, state: dict[str, Any]) -> None:
        """Go on in the middle of an epoch, instead of `start_epoch`."""
        for name, value in state.items():
            setattr(self, name, value)

    def perturb(self, x: Tensor, y: Tensor, attack: Attack, noise: Noise) -> tuple[Tensor, Tensor]:
        """The clean and the adversarial input of this step; by default x and the attack on the bare network."""
        with split_norm.attack_norm(self.model, self.attack_norm):
            return x, attack(self.model, x, y, noise=noise)

    def forward(self, x: Tensor, x_adv: Tensor, y: Tensor) -> Losses:
        raise NotImplementedError(f"{type(self).__name__} has no loss")

    def cross_entropy(self, logits: Tensor, y: Tensor) -> Tensor:
        """Mean over the images, labels smoothed as the run says."""
        return F.cross_entropy(logits, y, label_smoothing=self.label_smoothing)


def detach(values: Tensor) -> Tensor:
    """Held constant: no gradient passes."""
    return values.detach()


def keep(values: Tensor) -> Tensor:
    """As it is: gradients pass."""
    return values


def away_from(model: nn.Module, x: Tensor) -> Loss:
    """TRADES' inner objective: sum over images of KL(p(x) || p(x')), with p(x) as the network gives it now."""
    with torch.no_grad():
        clean = model(x).softmax(1)
    return lambda logits: F.kl_div(logits.log_softmax(1), clean, reduction="sum")


def kl(logits_adv: Tensor, logits_clean: Tensor) -> Tensor:
    """KL(p(x) || p(x')) summed over classes, mean over images; gradients go to both sides.

    From logarithms on both sides: where a p underflows to 0 the gradient to p itself would be NaN.
    """
    return F.kl_div(logits_adv.log_softmax(1), logits_clean.log_softmax(1), reduction="batchmean", log_target=True)
