"""LBGAT: learnable boundary guided adversarial training. Cui et al., https://arxiv.org/abs/2011.11164, section 3.

    L = MSE(f(x'), g(x)) + CE(g(x), y) + beta KL(p_f(x) || p_f(x')),    x' = argmax KL(p_f(x) || p_f(x'))

g is a natural network trained along, on clean images alone; the logits of both are matched without a stop-gradient, and
the MSE is a mean over images and classes. f is deployed. The attack is TRADES' also with beta = 0, as in the authors'
code, https://github.com/dvlab-research/LBGAT.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from arat_ray.spec import Spec
from arat_ray.training import split_norm
from arat_ray.training.attacks import Attack
from arat_ray.training.methods.base import Losses, Method, Task, away_from, kl
from arat_ray.training.models import Model
from arat_ray.training.randomness import Noise
from arat_ray.training.split_norm import AttackNorm


class LbgatSpec(Spec):
    """`teacher` is g's architecture, the same as f's where not given; the authors take a ResNet-18 for all f."""

    name: Literal["lbgat"] = "lbgat"
    passes: ClassVar[int] = 3
    beta: float = Field(0.0, ge=0)
    """Weight of TRADES' KL term; 0 for none."""
    teacher: Model | None = None
    """Architecture of the natural network; by default that of `model`."""
    attack_norm: AttackNorm = "eval"
    """How batch norms behave while the attack runs: train (statistics of the batch, which move the running ones),
    train_frozen_stats (which leave them alone) or eval (running ones)."""

    def build(self, model: nn.Module, task: Task) -> Method:
        return Lbgat(model, task.network(self.teacher), self)


class Lbgat(Method):
    def __init__(self, model: nn.Module, teacher: nn.Module, spec: LbgatSpec) -> None:
        super().__init__(model, attack_norm=spec.attack_norm)
        self.teacher = teacher
        self.beta = spec.beta

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        return self.model, self.teacher

    def perturb(self, x: Tensor, y: Tensor, attack: Attack, noise: Noise) -> tuple[Tensor, Tensor]:
        with split_norm.attack_norm(self.model, self.attack_norm):
            return x, attack(self.model, x, y, noise=noise, loss=away_from(self.model, x))

    def forward(self, x: Tensor, x_adv: Tensor, y: Tensor) -> Losses:
        logits_adv = self.model(x_adv)
        logits_clean = self.model(x)
        boundary = self.teacher(x)
        divergence = kl(logits_adv, logits_clean)
        return Losses(
            adversarial=divergence.new_zeros(()),
            clean=self.cross_entropy(boundary, y),
            invariance=F.mse_loss(logits_adv, boundary) + self.beta * divergence,
            logits_adv=logits_adv,
            logits_clean=logits_clean,
        )
