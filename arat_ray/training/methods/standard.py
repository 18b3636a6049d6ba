"""Standard training: cross-entropy on clean images, without an attack. The trade-off's clean end."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor, nn

from arat_ray.spec import Spec
from arat_ray.training.attacks import Attack
from arat_ray.training.methods.base import Losses, Method, Task
from arat_ray.training.randomness import Noise


class StandardSpec(Spec):
    name: Literal["standard"] = "standard"
    passes: ClassVar[int] = 1

    def build(self, model: nn.Module, task: Task) -> Method:
        del task
        return Standard(model)


class Standard(Method):
    def perturb(self, x: Tensor, y: Tensor, attack: Attack, noise: Noise) -> tuple[Tensor, Tensor]:
        return x, x

    def forward(self, x: Tensor, x_adv: Tensor, y: Tensor) -> Losses:
        logits = self.model(x)
        zero = logits.new_zeros(())
        return Losses(zero, self.cross_entropy(logits, y), zero, logits_clean=logits)
