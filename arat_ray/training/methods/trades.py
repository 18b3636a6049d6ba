"""TRADES: clean cross-entropy and a KL term. Zhang et al., https://arxiv.org/abs/1901.08573, section 3, algorithm 1.

    L = CE(f(x), y) + beta KL(p(x) || p(x')),    x' = argmax KL(p(x) || p(x'))

p is the softmax of f; both terms are means over the images. With `stop_gradient: clean` the KL term pulls x' towards x
but not x towards x': the asymmetric TRADES that ARAT's paper, https://arxiv.org/abs/2402.14648, asks about.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from arat_ray.spec import Spec
from arat_ray.training import split_norm
from arat_ray.training.attacks import Attack
from arat_ray.training.methods.base import Losses, Method, Task, away_from, detach, keep, kl
from arat_ray.training.randomness import Noise
from arat_ray.training.split_norm import AttackNorm


class TradesSpec(Spec):
    """`stop_gradient` names the side of the KL term that is held constant; the paper holds neither.

    `repeat_clean_forward`: the authors' code sends x through the network twice a step. Loss and gradient are the same;
    the running statistics of the norm layers then count clean images twice.
    """

    name: Literal["trades"] = "trades"
    passes: ClassVar[int] = 2
    beta: float = Field(6.0, ge=0)
    """Weight of the KL term."""
    stop_gradient: Literal["none", "clean", "adversarial"] = "none"
    """The side of the KL term that is held constant."""
    attack_norm: AttackNorm = "eval"
    """How batch norms behave while the attack runs: train (statistics of the batch, which move the running ones),
    train_frozen_stats (which leave them alone) or eval (running ones)."""
    repeat_clean_forward: bool = False
    """Send x through the network twice a step, as the authors' code does: running statistics then count clean images
    twice."""

    def build(self, model: nn.Module, task: Task) -> Method:
        del task
        return Trades(model, self)


class Trades(Method):
    def __init__(self, model: nn.Module, spec: TradesSpec) -> None:
        super().__init__(model, attack_norm=spec.attack_norm)
        self.beta = spec.beta
        self.hold_clean = detach if spec.stop_gradient == "clean" else keep
        self.hold_adversarial = detach if spec.stop_gradient == "adversarial" else keep
        self.repeat_clean_forward = spec.repeat_clean_forward

    def perturb(self, x: Tensor, y: Tensor, attack: Attack, noise: Noise) -> tuple[Tensor, Tensor]:
        with split_norm.attack_norm(self.model, self.attack_norm):
            return x, attack(self.model, x, y, noise=noise, loss=away_from(self.model, x))

    def forward(self, x: Tensor, x_adv: Tensor, y: Tensor) -> Losses:
        logits_clean = self.model(x)
        logits_adv = self.model(x_adv)
        if self.repeat_clean_forward:
            with torch.no_grad():
                self.model(x)
        divergence = kl(self.hold_adversarial(logits_adv), self.hold_clean(logits_clean))
        return Losses(
            adversarial=divergence.new_zeros(()),
            clean=self.cross_entropy(logits_clean, y),
            invariance=self.beta * divergence,
            logits_adv=logits_adv,
            logits_clean=logits_clean,
        )
