"""PGD that ends for an image as soon as the network is wrong on any of its iterates, the start among them.

With equal settings and an equal start it breaks every image that PGD breaks, whose verdict is that of the last iterate
alone, and more; a broken image costs no further passes. Its accuracies are lower, so they have a name of their own.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from arat_ray.attack_names import counted
from arat_ray.training.attacks.base import Logits, Loss
from arat_ray.training.attacks.pgd import GradientSteps
from arat_ray.training.randomness import Noise


class PgdAny(GradientSteps):
    """PGD on the cross-entropy that stops at an image's first iterate that the network gets wrong.

    It measures, with a network in eval mode, and does not train: the batch shrinks as images fall.
    """

    measures_only: ClassVar[bool] = True
    name: Literal["pgd-any"] = "pgd-any"

    @property
    def label(self) -> str:
        return counted("pgd-any", self.steps)

    def __call__(
        self, logits: Logits, x: Tensor, y: Tensor, *, noise: Noise | None, loss: Loss | None = None
    ) -> Tensor:
        """Each image's first iterate that is not of class y, else its last one: [N, C, H, W], at most epsilon from x.

        `noise` feeds the random start; None starts at x itself. ValueError for a `loss` of a method's own.
        """
        if loss is not None:
            raise ValueError("pgd-any climbs the cross-entropy alone; take pgd for a method's own loss")
        x = x.detach()
        x_adv = self._start(x, noise).clone()
        rows = torch.arange(len(x), device=x.device)  # of the images that stand
        for _ in range(self.steps):
            leaf = x_adv[rows].requires_grad_()
            with torch.enable_grad():
                scores = logits(leaf)
                stands = scores.detach().argmax(1) == y[rows]
                rows = rows[stands]
                if not len(rows):
                    break
                height = F.cross_entropy(scores[stands], y[rows], reduction="sum")
            (gradient,) = torch.autograd.grad(height, leaf)
            x_adv[rows] = self.project(leaf.detach()[stands] + self._step(gradient[stands]), x[rows])
        return x_adv
