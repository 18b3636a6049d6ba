"""Attack: what every attack is, a spec whose fields are its YAML and whose call makes adversarial images.

x, x_adv [N, C, H, W] in [0, 1]; y [N]; lengths in pixel units. An attack never modifies its input and leaves no
gradient on the parameters. Training, validation and evaluation know attacks by this class alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol, Self

import torch
from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError
from torch import Tensor

from arat_ray.pixels import Norm, format_pixels
from arat_ray.spec import Pixels, Spec
from arat_ray.training.randomness import Noise

Logits = Callable[[Tensor], Tensor]
"""A network's forward: x [N, C, H, W] -> logits [N, K]."""

Loss = Callable[[Tensor], Tensor]
"""What an attack climbs: logits [N, K] -> the sum of the images' losses."""

LARGEST_EPSILON = {"linf": 1.0, "l2": 32.0}
"""Beyond these every image is within reach; a larger value is a radius that was not divided by 255."""


class Adversary(Protocol):
    """What perturbs images to measure a network: an attack, or a step of an ensemble, bound to its ball and seed."""

    @property
    def label(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def passes(self) -> int: ...
    def __call__(self, logits: Any, x: Tensor, y: Tensor, *, noise: Noise | None) -> Tensor: ...


class Attack(Spec):
    """A search for adversarial images in a ball around each image."""

    version: ClassVar[str] = "arat-ray"
    """Whose code attacks."""
    measures_only: ClassVar[bool] = False
    """Whether no method can train against it."""
    name: str
    norm: Norm
    """Of the ball around each image."""
    epsilon: Pixels = Field(gt=0)
    """Radius, in pixel units of [0, 1]; may be written 8/255."""

    @model_validator(mode="after")
    def _lengths_are_in_pixel_units(self) -> Self:
        for key in ("epsilon", "step_size"):
            check_pixel_units(key, getattr(self, key, self.epsilon), self.norm)
        return self

    @classmethod
    def asked(cls, word: str, given: Mapping[str, Any]) -> Self:
        """The attack that a command line means by `word`, where `given` are norm, epsilon and other fields."""
        return cls.model_validate({"name": word, **given})

    def __str__(self) -> str:
        return f"{self.label} {self.norm} {format_pixels(self.epsilon)}"

    @property
    def label(self) -> str:
        """The attack's short name, under which accuracies are reported."""
        return self.name

    @property
    def passes(self) -> int:
        """Passes through the network, forward or backward, for each image."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it costs")

    @property
    def starts_at_x(self) -> bool:
        """Whether the first gradient is always taken at x itself, where a divergence from p(x) has none."""
        return False

    def __call__(
        self, logits: Logits, x: Tensor, y: Tensor, *, noise: Noise | None, loss: Loss | None = None
    ) -> Tensor:
        """Adversarial images [N, C, H, W] in [0, 1], at most epsilon from x.

        `noise` feeds random numbers; without it nothing is random. `loss` is what the method climbs; None: the attack's
        own, on y.
        """
        raise NotImplementedError(f"{type(self).__name__} does not attack")

    def neighbour(self, x: Tensor, noise: Noise) -> Tensor:
        """Random images, not adversarial ones, in [0, 1] and at most epsilon from x."""
        return self.project(x + self.uniform(x, noise), x)

    def uniform(self, x: Tensor, noise: Noise) -> Tensor:
        """Uniform in the cube (linf); a uniform direction times a uniform radius (l2)."""
        if self.norm == "linf":
            return noise.uniform(x, -self.epsilon, self.epsilon)
        direction = noise.normal(x)
        radius = noise.uniform(x[:, :1, :1, :1], 0, 1)
        return direction / l2(direction) * radius * self.epsilon

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """The nearest images in [0, 1] and, but for its corners, in the ball around x."""
        if self.norm == "linf":
            x_adv = torch.minimum(torch.maximum(x_adv, x - self.epsilon), x + self.epsilon)
        else:
            delta = x_adv - x
            x_adv = x + delta * (self.epsilon / l2(delta)).clamp(max=1)
        return x_adv.clamp(0, 1)


def check_pixel_units(key: str, value: float, norm: str) -> None:
    """Refuse a length that was not divided by 255."""
    if value > LARGEST_EPSILON[norm] or (norm == "linf" and value == 1):
        raise PydanticCustomError(
            "pixel_units",
            "{key} is {value}, but images lie in [0, 1]; did you mean {value}/255?",
            {"key": key, "value": f"{value:g}"},
        )


def l2(x: Tensor) -> Tensor:
    """Length of each image [N, 1, 1, 1], never zero, so that a vanished gradient gives no step instead of NaN."""
    lengths: Tensor = torch.linalg.vector_norm(x.flatten(1), dim=1)
    return lengths.clamp_min(1e-12).view(-1, 1, 1, 1)
