"""PGD, projected gradient ascent, and FGSM, its single whole step: Madry et al., section 2.

https://arxiv.org/abs/1706.06083. x, x_adv [N, C, H, W] in [0, 1]; y [N]; epsilon and step_size in pixel units.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from arat_ray.attack_names import counted
from arat_ray.spec import Pixels
from arat_ray.training.attacks.base import Attack, Logits, Loss, l2
from arat_ray.training.randomness import Noise

NORMAL_START = 0.001
"""Standard deviation, in pixel units, of the start in the published code of TRADES, MART and LBGAT."""
USUAL_STEPS = 20


class GradientSteps(Attack):
    """What the attacks have in common that step along a gradient's sign (linf) or direction (l2)."""

    step_size: Pixels = Field(gt=0)
    """Length of a step, in pixel units."""
    steps: int = Field(ge=1)
    """Iterations."""
    start: Literal["uniform", "normal", "center"] = "uniform"
    """Uniform in the ball, normal (x + 0.001 N(0, 1), as TRADES' code) or the center, x itself."""

    @classmethod
    def asked(cls, word: str, given: Mapping[str, Any]) -> Self:
        """20 steps of a quarter of the radius, unless they are given."""
        return cls.model_validate({"name": word, "step_size": given["epsilon"] / 4, "steps": USUAL_STEPS, **given})

    @property
    def passes(self) -> int:
        return 2 * self.steps

    @property
    def starts_at_x(self) -> bool:
        return self.start == "center"

    def _start(self, x: Tensor, noise: Noise | None) -> Tensor:
        """Where the ascent begins, in [0, 1] and in the ball; without noise at x itself."""
        if noise is None or self.start == "center":
            return x
        return self.project(x + self._offset(x, noise), x)

    def _offset(self, x: Tensor, noise: Noise) -> Tensor:
        return NORMAL_START * noise.normal(x) if self.start == "normal" else self.uniform(x, noise)

    def _step(self, gradient: Tensor) -> Tensor:
        if self.norm == "linf":
            return self.step_size * gradient.sign()
        return self.step_size * gradient / l2(gradient)


class Pgd(GradientSteps):
    """Projected gradient ascent on a loss, the cross-entropy by default, within a ball of radius epsilon around x.

    `start` is uniform in the ball, normal (x + 0.001 N(0, 1)) or the center, x itself.
    """

    name: Literal["pgd"] = "pgd"

    @classmethod
    def asked(cls, word: str, given: Mapping[str, Any]) -> Self:
        """As ever; fgsm: one whole step from x itself."""
        if word != "fgsm":
            return super().asked(word, given)
        return cls.model_validate({**given, "step_size": given["epsilon"], "steps": 1, "start": "center"})

    @property
    def label(self) -> str:
        """As in papers: PGD-20 takes 20 steps, FGSM one whole one from x itself."""
        is_fgsm = self.steps == 1 and self.start == "center" and self.step_size == self.epsilon
        return "fgsm" if is_fgsm else counted("pgd", self.steps)

    def __call__(
        self, logits: Logits, x: Tensor, y: Tensor, *, noise: Noise | None, loss: Loss | None = None
    ) -> Tensor:
        """Adversarial images [N, C, H, W] in [0, 1], at most epsilon from x.

        `noise` feeds the random start; None starts at x itself. `loss` is the cross-entropy with y where not given.
        """
        x = x.detach()
        climb = loss or (lambda scores: F.cross_entropy(scores, y, reduction="sum"))
        x_adv = self._start(x, noise)
        for _ in range(self.steps):
            x_adv = x_adv.detach().requires_grad_()
            with torch.enable_grad():
                height = climb(logits(x_adv))
            (gradient,) = torch.autograd.grad(height, x_adv)
            x_adv = self.project(x_adv.detach() + self._step(gradient), x)
        return x_adv
