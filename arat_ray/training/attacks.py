"""Attacks: a spec whose fields are its YAML and whose call is the attack.

x, x_adv [N, C, H, W] in [0, 1]; y [N]; epsilon and step_size in pixel units. An attack never modifies its input and
leaves no gradient on the parameters. PGD: Madry et al., https://arxiv.org/abs/1706.06083, section 2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError
from torch import Tensor

from arat_ray.spec import Pixels, Spec
from arat_ray.training.randomness import Noise

Logits = Callable[[Tensor], Tensor]
"""A network's forward: x [N, C, H, W] -> logits [N, K]."""

Loss = Callable[[Tensor], Tensor]
"""What an attack climbs: logits [N, K] -> the sum of the images' losses."""

NORMAL_START = 0.001
"""Standard deviation, in pixel units, of the start in the published code of TRADES, MART and LBGAT."""

LARGEST_EPSILON = {"linf": 1.0, "l2": 32.0}
"""Beyond these every image is within reach; a larger value is a radius that was not divided by 255."""


def check_pixel_units(key: str, value: float, norm: str) -> None:
    """Refuse a length that was not divided by 255."""
    if value > LARGEST_EPSILON[norm] or (norm == "linf" and value == 1):
        raise PydanticCustomError(
            "pixel_units",
            "{key} is {value}, but images lie in [0, 1]; did you mean {value}/255?",
            {"key": key, "value": f"{value:g}"},
        )


class Pgd(Spec):
    """Projected gradient ascent on a loss, the cross-entropy by default, within a ball of radius epsilon around x.

    `start` is uniform in the ball, normal (x + 0.001 N(0, 1)) or the center, x itself.
    """

    version: ClassVar[str] = "arat-ray"
    name: Literal["pgd"] = "pgd"
    norm: Literal["linf", "l2"]
    """Of the ball around each image."""
    epsilon: Pixels = Field(gt=0)
    """Radius, in pixel units of [0, 1]; may be written 8/255."""
    step_size: Pixels = Field(gt=0)
    """Length of a step, in pixel units."""
    steps: int = Field(ge=1)
    """Iterations."""
    start: Literal["uniform", "normal", "center"] = "uniform"
    """Uniform in the ball, normal (x + 0.001 N(0, 1), as TRADES' code) or the center, x itself."""

    @model_validator(mode="after")
    def _lengths_are_in_pixel_units(self) -> Self:
        for key in ("epsilon", "step_size"):
            check_pixel_units(key, getattr(self, key), self.norm)
        return self

    def __str__(self) -> str:
        return f"{self.label} {self.norm} {format_pixels(self.epsilon)}"

    @property
    def label(self) -> str:
        """The attack's short name, as in papers: PGD-20 takes 20 steps, FGSM one whole one from x itself."""
        is_fgsm = self.steps == 1 and self.start == "center" and self.step_size == self.epsilon
        return "fgsm" if is_fgsm else f"pgd-{self.steps}"

    @property
    def passes(self) -> int:
        """Passes through the network, forward or backward, for each image."""
        return 2 * self.steps

    def __call__(
        self, logits: Logits, x: Tensor, y: Tensor, *, noise: Noise | None, loss: Loss | None = None
    ) -> Tensor:
        """Adversarial images [N, C, H, W] in [0, 1], at most epsilon from x.

        `noise` feeds the random start; None starts at x itself. `loss` is the cross-entropy with y where not given.
        """
        x = x.detach()
        climb = loss or (lambda scores: F.cross_entropy(scores, y, reduction="sum"))
        x_adv = x if noise is None or self.start == "center" else self._project(x + self._start(x, noise), x)
        for _ in range(self.steps):
            x_adv = x_adv.detach().requires_grad_()
            with torch.enable_grad():
                height = climb(logits(x_adv))
            (gradient,) = torch.autograd.grad(height, x_adv)
            x_adv = self._project(x_adv.detach() + self._step(gradient), x)
        return x_adv

    def neighbour(self, x: Tensor, noise: Noise) -> Tensor:
        """Random images, not adversarial ones, in [0, 1] and at most epsilon from x."""
        return self._project(x + self._uniform(x, noise), x)

    def _start(self, x: Tensor, noise: Noise) -> Tensor:
        return NORMAL_START * noise.normal(x) if self.start == "normal" else self._uniform(x, noise)

    def _uniform(self, x: Tensor, noise: Noise) -> Tensor:
        """Uniform in the cube (linf); a uniform direction times a uniform radius (l2)."""
        if self.norm == "linf":
            return noise.uniform(x, -self.epsilon, self.epsilon)
        direction = noise.normal(x)
        radius = noise.uniform(x[:, :1, :1, :1], 0, 1)
        return direction / _l2(direction) * radius * self.epsilon

    def _step(self, gradient: Tensor) -> Tensor:
        if self.norm == "linf":
            return self.step_size * gradient.sign()
        return self.step_size * gradient / _l2(gradient)

    def _project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        if self.norm == "linf":
            x_adv = torch.minimum(torch.maximum(x_adv, x - self.epsilon), x + self.epsilon)
        else:
            delta = x_adv - x
            x_adv = x + delta * (self.epsilon / _l2(delta)).clamp(max=1)
        return x_adv.clamp(0, 1)


def _l2(x: Tensor) -> Tensor:
    """Length of each image [N, 1, 1, 1], never zero, so that a vanished gradient gives no step instead of NaN."""
    lengths: Tensor = torch.linalg.vector_norm(x.flatten(1), dim=1)
    return lengths.clamp_min(1e-12).view(-1, 1, 1, 1)


Attack = Pgd
"""What `attack:` may be in YAML: a union, discriminated on `name`, as soon as there are several."""


def format_pixels(value: float) -> str:
    """8/255 for 0.03137, 0.3 for 0.3: as papers write it."""
    by_255 = value * 255
    is_decimal = abs(value - round(value, 3)) < 1e-9
    return f"{by_255:.4g}/255" if not is_decimal and abs(by_255 - round(by_255, 1)) < 1e-6 else f"{value:.4g}"
