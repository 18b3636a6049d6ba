"""MART: misclassification-aware adversarial training. Wang et al., ICLR 2020,
https://openreview.net/forum?id=rklOg6EFwS, section 3.3, equation 11.

    L = BCE(p(x'), y) + beta mean_i [KL(p(x_i) || p(x'_i)) (1 - p_y(x_i))]
    BCE(p', y) = -log p'_y - log(1 - max over k != y of p'_k)

The constants are those of the authors' code, https://github.com/YisenWang/MART: 1.0001 and 1e-12 inside the logarithm,
1.0000001 in the weight.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from arat_ray.spec import Spec
from arat_ray.training.methods.base import Losses, Method, Task
from arat_ray.training.split_norm import AttackNorm

TINY = 1e-12


class MartSpec(Spec):
    """The authors take beta 5 for ResNet-18 and 6 for WideResNets."""

    name: Literal["mart"] = "mart"
    passes: ClassVar[int] = 2
    beta: float = Field(5.0, ge=0)
    """Weight of the KL term."""
    attack_norm: AttackNorm = "eval"
    """How batch norms behave while the attack runs: train (statistics of the batch, which move the running ones),
    train_frozen_stats (which leave them alone) or eval (running ones)."""

    def build(self, model: nn.Module, task: Task) -> Method:
        del task
        return Mart(model, self)


class Mart(Method):
    def __init__(self, model: nn.Module, spec: MartSpec) -> None:
        super().__init__(model, attack_norm=spec.attack_norm)
        self.beta = spec.beta

    def forward(self, x: Tensor, x_adv: Tensor, y: Tensor) -> Losses:
        logits_clean = self.model(x)
        logits_adv = self.model(x_adv)
        p_clean, p_adv = logits_clean.softmax(1), logits_adv.softmax(1)
        runner_up = p_adv.scatter(1, y[:, None], -1).argmax(1)
        margin = F.nll_loss((1.0001 - p_adv + TINY).log(), runner_up)
        divergences = F.kl_div(
            (p_adv + TINY).log(), logits_clean.log_softmax(1), reduction="none", log_target=True
        ).sum(1)
        doubt = 1.0000001 - p_clean.gather(1, y[:, None])[:, 0]
        return Losses(
            adversarial=self.cross_entropy(logits_adv, y) + margin,
            clean=margin.new_zeros(()),
            invariance=self.beta * (divergences * doubt).mean(),
            logits_adv=logits_adv,
            logits_clean=logits_clean,
        )
