"""ARREST: adversarial finetuning that keeps the representation of a standard network. Suzuki et al., ICCV 2023,
https://arxiv.org/abs/2308.16454.

    epochs 1 .. standard_epochs:  L = CE(f(x), y), no attack; the network then is copied and frozen as f_std
    afterwards:                   L = CE(f(x'), y) + lambda mean_i d(z(x'_i), z_std(x_i))

z is the penultimate feature and d the angular distance, arccos of the cosine over pi, in [0, 1]. Noisy replay puts a
random neighbour of x in the place of x' while x's representation is further than `threshold` from the
standard network's. There is no published code, and the paper's constants were not to be found in what is public of it:
lambda, the threshold and the lengths of both stages are knobs here, and the defaults are this project's.
"""

from __future__ import annotations

import copy
import math
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from arat_ray.spec import Spec
from arat_ray.training import layers, split_norm
from arat_ray.training.attacks import Attack
from arat_ray.training.methods.base import Losses, Method, SampleAccuracy, Task
from arat_ray.training.randomness import Noise
from arat_ray.training.split_norm import AttackNorm


class ArrestSpec(Spec):
    """`distillation_weight` is lambda; `replay_threshold` an angular distance in [0, 1], null for no noisy replay."""

    name: Literal["arrest"] = "arrest"
    passes: ClassVar[int] = 1
    standard_epochs: int = Field(ge=1)
    """Epochs of standard training before the finetuning."""
    distillation_weight: float = Field(10.0, ge=0)
    """Weight of the distance to the standard network's representation (lambda)."""
    replay_threshold: float | None = Field(0.25, ge=0, le=1)
    """Angular distance in [0, 1] from the standard network's representation above which a random neighbour takes the
    place of the adversarial image; null: none does."""
    attack_norm: AttackNorm = "train"
    """How batch norms behave while the attack runs: train (statistics of the batch, which move the running ones),
    train_frozen_stats (which leave them alone) or eval (running ones)."""

    def build(self, model: nn.Module, task: Task) -> Method:
        return Arrest(model, task.model.representation, self)


class Arrest(Method):
    def __init__(self, model: nn.Module, layer: str, spec: ArrestSpec) -> None:
        super().__init__(model, attack_norm=spec.attack_norm)
        self.layer = layer
        self.teacher = copy.deepcopy(model).requires_grad_(False)
        self.distillation_weight = spec.distillation_weight
        self.replay_threshold = spec.replay_threshold
        self.standard_epochs = spec.standard_epochs
        self.is_finetuning = False

    def train(self, mode: bool = True) -> Self:
        """As usual, but the standard network stays as it was frozen."""
        super().train(mode)
        self.teacher.eval()
        return self

    def start_epoch(self, epoch: int, sample_accuracy: SampleAccuracy) -> None:
        self.is_finetuning = epoch > self.standard_epochs
        if epoch == self.standard_epochs + 1:
            self.teacher.load_state_dict(self.model.state_dict())

    def epoch_state(self) -> dict[str, Any]:
        return super().epoch_state() | {"is_finetuning": self.is_finetuning}

    def perturb(self, x: Tensor, y: Tensor, attack: Attack, noise: Noise) -> tuple[Tensor, Tensor]:
        if not self.is_finetuning:
            return x, x
        if self.replay_threshold is None:
            return super().perturb(x, y, attack, noise)
        is_far = (self._drift(x) > self.replay_threshold)[:, None, None, None]  # before the attack moves statistics
        _, x_adv = super().perturb(x, y, attack, noise)
        return x, torch.where(is_far, attack.neighbour(x, noise), x_adv)

    def _drift(self, x: Tensor) -> Tensor:
        """How far each image's representation is from the standard network's, in eval mode: [N]."""
        with torch.no_grad(), split_norm.attack_norm(self.model, "eval"):
            return angular_distance(self._through(self.model, x)[1], self._through(self.teacher, x)[1])

    def forward(self, x: Tensor, x_adv: Tensor, y: Tensor) -> Losses:
        logits, z = self._through(self.model, x_adv)
        loss = self.cross_entropy(logits, y)
        zero = loss.new_zeros(())
        if not self.is_finetuning:  # x_adv is x
            return Losses(zero, loss, zero, logits_clean=logits)
        with torch.no_grad():
            _, z_standard = self._through(self.teacher, x)
        distance = angular_distance(z, z_standard).mean()
        return Losses(loss, zero, self.distillation_weight * distance, logits_adv=logits)

    def _through(self, model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [N, K] and penultimate features [N, d]."""
        with layers.capture(model, (self.layer,)) as features:
            return model(x), features[self.layer]


def angular_distance(a: Tensor, b: Tensor) -> Tensor:
    """Angle between rows of a and b [N, d], over pi: [N] in [0, 1].

    Kept off 0 and 1 by a hair, where the arc cosine has no gradient.
    """
    hair = 10 * torch.finfo(a.dtype).eps
    cosine = torch.cosine_similarity(a, b).clamp(-1 + hair, 1 - hair)
    return cosine.arccos() / math.pi
