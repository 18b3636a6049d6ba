"""AWP: adversarial weight perturbation. Wu et al., https://arxiv.org/abs/2004.05884, section 3.

Loss, gradient and step of an update are taken at w + v, and v is taken off again afterwards:

    v_l = gamma ||w_l|| g_l / ||g_l||,    g_l = gradient of the method's own loss to the weights of layer l

for the weight tensors of more than one dimension of the deployed network, as in the authors' code,
https://github.com/csdongxian/AWP. Running statistics of norm layers do not see the pass that finds g.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from pydantic import Field
from torch import Tensor

from arat_ray.spec import Spec
from arat_ray.training import split_norm
from arat_ray.training.methods import Method

TINY = 1e-20


class WeightPerturbation(Spec):
    """The authors take gamma 0.01 for PGD-AT, and for TRADES 0.005 after 9 epochs without."""

    gamma: float = Field(0.01, gt=0, le=1)
    """Length of a perturbation over that of the weight."""
    warmup_epochs: int = Field(0, ge=0)
    """So many epochs at first are trained without."""


@contextmanager
def perturbed(
    method: Method, loss: Callable[[], Tensor], *, gamma: float, average: Callable[[Tensor], Tensor]
) -> Iterator[None]:
    """Move the weights to w + v within the block; `average` takes the mean of a gradient over all workers."""
    weights = [
        parameter
        for name, parameter in method.model.named_parameters()
        if name.endswith("weight") and parameter.dim() > 1 and parameter.requires_grad
    ]
    with split_norm.attack_norm(method, "train_frozen_stats"):
        gradients = torch.autograd.grad(loss(), weights, allow_unused=True)
    shifts = [
        torch.zeros_like(weight) if gradient is None else _shift(weight.detach(), average(gradient), gamma)
        for weight, gradient in zip(weights, gradients, strict=True)
    ]
    with torch.no_grad():
        for weight, shift in zip(weights, shifts, strict=True):
            weight.add_(shift)
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, shift in zip(weights, shifts, strict=True):
                weight.sub_(shift)


def _shift(weight: Tensor, gradient: Tensor, gamma: float) -> Tensor:
    length: Tensor = gamma * weight.norm() / (gradient.norm() + TINY)
    return gradient * length
