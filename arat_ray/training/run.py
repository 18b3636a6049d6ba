"""Train: the spec of one complete training run, and Validate: how it is measured on held-out images."""

from __future__ import annotations

from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError
from torch import nn

from arat_ray.spec import Spec
from arat_ray.training.attacks import Attack
from arat_ray.training.data import Dataset
from arat_ray.training.methods import AratSpec, Method, MethodSpec, StandardSpec
from arat_ray.training.models import Model
from arat_ray.training.randomness import derive_seed
from arat_ray.training.schedules import Piecewise, Schedule


class Sgd(Spec):
    """Stochastic gradient descent; weight decay acts on all parameters, norms and predictors too, as in ARAT's code."""

    name: Literal["sgd"] = "sgd"
    learning_rate: float = Field(0.1, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(5e-4, ge=0)
    nesterov: bool = False

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0")
        return self

    def build(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(
            parameters,
            lr=self.learning_rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            nesterov=self.nesterov,
        )


class Train(Spec):
    """One training run: what YAML says under `train:`, concrete and complete."""

    dataset: Dataset
    model: Model
    method: MethodSpec
    attack: Attack | None = None
    """The inner maximisation; only standard training does without."""
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=2)
    """Global: shared out over the workers."""
    optimizer: Sgd = Sgd()
    schedule: Schedule = Piecewise()
    seed: int = Field(ge=0)
    sync_batch_norm: bool = False
    """Norm layers take their statistics over all workers' images, so that the number of workers does not matter."""
    channels_last: bool = True
    """Memory layout of the convolutions: the same maths, faster on most machines."""

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Self:
        if self.attack is None and not isinstance(self.method, StandardSpec):
            raise PydanticCustomError(
                "no_attack",
                "method {name} needs `attack:` (name, norm, epsilon, step_size, steps)",
                {"name": repr(self.method.name)},
            )
        noisy = isinstance(self.method, AratSpec) and self.method.noisy_center
        if noisy and self.attack is not None and self.attack.norm != "linf":
            raise ValueError("method.noisy_center is defined for attack.norm linf only; set noisy_center: false")
        return self

    def build(self) -> Method:
        """The method around a freshly initialised network, on torch's default device; seeded by `seed` alone.

        Raises ValueError for a layer pattern that the network does not know.
        """
        channels, height, width = self.dataset.shape
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(self.seed, "init"))
            model = self.model.build(channels, self.dataset.num_classes)
            return self.method.build(model, (channels, height, width))

    def check(self) -> None:
        """Build the method without memory or data (meta device): ValueError for what only the network can tell."""
        with torch.device("meta"):
            self.build()


class Validate(Spec):
    """Measurements on images held out of the training set, every so many epochs and after the last one."""

    every: int = Field(ge=1)
    images: int = Field(ge=1)
    seed: int = Field(0, ge=0)
    """Chooses the images held out; apart from `train.seed`, so that all trials and seeds share one split."""
    attack: Attack
    batch_size: int = Field(256, ge=1)

    def is_due(self, epoch: int, epochs: int) -> bool:
        """Whether epoch `epoch` (from 1) of `epochs` ends with a measurement."""
        return epoch % self.every == 0 or epoch == epochs
