"""Standard training: cross-entropy on clean images, without an attack. The trade-off's clean end."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from arat_ray.spec import Spec
from arat_ray.training.attacks import Attack
from arat_ray.training.methods.base import Losses, Method
from arat_ray.training.randomness import Noise


class StandardSpec(Spec):
    name: Literal["standard"] = "standard"

    def build(self, model: nn.Module, shape: tuple[int, int, int]) -> Method:
        del shape
        return Standard(model)


class Standard(Method):
    def perturb(self, x: Tensor, y: Tensor, attack: Attack, noise: Noise) -> tuple[Tensor, Tensor]:
        return x, x

    def forward(self, x: Tensor, x_adv: Tensor, y: Tensor) -> Losses:
        logits = self.model(x)
        zero = logits.new_zeros(())
        return Losses(zero, F.cross_entropy(logits, y), zero, logits_clean=logits)
