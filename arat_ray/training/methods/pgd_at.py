"""PGD-AT: cross-entropy on adversarial images. Madry et al., https://arxiv.org/abs/1706.06083, section 2."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor, nn

from arat_ray.spec import Spec
from arat_ray.training.methods.base import Losses, Method, Task
from arat_ray.training.split_norm import AttackNorm


class PgdAtSpec(Spec):
    """`attack_norm: train` as in https://arxiv.org/abs/2002.11569 (robust overfitting); `eval` as in
    https://arxiv.org/abs/2010.00467 (bag of tricks)."""

    name: Literal["pgd_at"] = "pgd_at"
    passes: ClassVar[int] = 1
    attack_norm: AttackNorm = "train"
    """How batch norms behave while the attack runs: train (statistics of the batch, which move the running ones),
    train_frozen_stats (which leave them alone) or eval (running ones)."""

    def build(self, model: nn.Module, task: Task) -> Method:
        del task
        return PgdAt(model, attack_norm=self.attack_norm)


class PgdAt(Method):
    def forward(self, x: Tensor, x_adv: Tensor, y: Tensor) -> Losses:
        logits = self.model(x_adv)
        zero = logits.new_zeros(())
        return Losses(self.cross_entropy(logits, y), zero, zero, logits_adv=logits)
