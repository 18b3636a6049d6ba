"""Optimisers: what turns a gradient into a step; the rate of each step comes from the schedule."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import nn

from arat_ray.spec import Spec

GUARDED = ("add_param_group", "state_dict", "load_state_dict", "zero_grad")


def _eager(kind: type[torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
    """The optimiser of torch's own functions, less their wrappers, which keep its compiler off.

    They import it for that, a second of CPU for each worker, and nothing is compiled here.
    """
    functions = {name: inspect.unwrap(getattr(kind, name)) for name in GUARDED}
    functions["step"] = torch.no_grad()(inspect.unwrap(kind.step))
    return type(kind.__name__, (kind,), functions)


class Sgd(Spec):
    """Stochastic gradient descent; weight decay acts on all parameters, norms and predictors too, as in ARAT's code."""

    name: Literal["sgd"] = "sgd"
    learning_rate: float = Field(0.1, gt=0)
    """Before the schedule's factor."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Share of the step before that is kept."""
    weight_decay: float = Field(5e-4, ge=0)
    """L2 penalty."""
    nesterov: bool = False
    """Nesterov's momentum."""

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0")
        return self

    def build(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return _eager(torch.optim.SGD)(
            parameters,
            lr=self.learning_rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            nesterov=self.nesterov,
        )


class AdamW(Spec):
    """Adam with decoupled weight decay, usual for transformers. https://arxiv.org/abs/1711.05101"""

    name: Literal["adamw"] = "adamw"
    learning_rate: float = Field(1e-3, gt=0)
    """Before the schedule's factor."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    """Decay of the two moments."""
    weight_decay: float = Field(0.01, ge=0)
    """Decoupled."""

    def build(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return _eager(torch.optim.AdamW)(
            parameters, lr=self.learning_rate, betas=self.betas, weight_decay=self.weight_decay
        )


Optimizer = Annotated[Sgd | AdamW, Field(discriminator="name")]
