"""Method: what every defence is. It owns the network and any other that it trains along.

x, x_adv [N, C, H, W]; y [N]; logits [N, K].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn

from arat_ray.training import branches
from arat_ray.training.attacks import Attack
from arat_ray.training.branches import AttackNorm
from arat_ray.training.randomness import Noise

SampleAccuracy = Callable[[nn.Module, int, bool], float]
"""Accuracy of a network, in eval mode, on so many augmented training images: fresh ones each epoch (True) or always
the same."""


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
    def total(self) -> Tensor:
        return self.adversarial + self.clean + self.invariance


class Method(nn.Module):
    """A defence: an inner maximisation (`perturb`) and an outer minimisation (`forward`)."""

    def __init__(self, model: nn.Module, *, attack_norm: AttackNorm = "train") -> None:
        super().__init__()
        self.model = model
        self.attack_norm = attack_norm
        self.balance: float | None = None

    def start_epoch(self, sample_accuracy: SampleAccuracy) -> None:
        """Called before each epoch; nothing by default."""

    def perturb(self, x: Tensor, y: Tensor, attack: Attack, noise: Noise) -> tuple[Tensor, Tensor]:
        """The clean and the adversarial input of this step; by default x and the attack on the bare network."""
        with branches.attack_norm(self.model, self.attack_norm):
            return x, attack(self.model, x, y, noise=noise)

    def forward(self, x: Tensor, x_adv: Tensor, y: Tensor) -> Losses:
        raise NotImplementedError(f"{type(self).__name__} has no loss")
