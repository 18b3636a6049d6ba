"""Optimisers: the first step of each against its formula in float64."""

from __future__ import annotations

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from arat_ray.training.optimizers import AdamW, Optimizer, Sgd


def stepped(spec: Sgd | AdamW, times: int = 1) -> float:
    """A weight of 2 with the constant gradient 0.5."""
    weight = nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    optimizer = spec.build([weight])
    for _ in range(times):
        weight.grad = torch.tensor([0.5], dtype=torch.float64)
        optimizer.step()
    return weight.item()


def test_sgd_adds_weight_decay_to_the_gradient_and_momentum_to_the_step() -> None:
    first = 2 - 0.1 * (0.5 + 0.01 * 2)
    assert stepped(Sgd(learning_rate=0.1, momentum=0, weight_decay=0.01)) == pytest.approx(first)
    second = first - 0.1 * (0.9 * 0.52 + 0.5 + 0.01 * first)
    assert stepped(Sgd(learning_rate=0.1, momentum=0.9, weight_decay=0.01), 2) == pytest.approx(second)


def test_adamw_steps_by_the_rate_and_decays_apart_from_it() -> None:
    assert stepped(AdamW(learning_rate=0.1, weight_decay=0.01)) == pytest.approx(2 * (1 - 0.1 * 0.01) - 0.1)


def test_nesterov_without_momentum_is_refused() -> None:
    with pytest.raises(ValidationError, match="nesterov needs a momentum above 0"):
        Sgd(momentum=0, nesterov=True)


def test_the_name_chooses_the_optimizer() -> None:
    adapter: TypeAdapter[Sgd | AdamW] = TypeAdapter(Optimizer)
    assert adapter.validate_python({"name": "adamw", "betas": [0.9, 0.95]}) == AdamW(betas=(0.9, 0.95))
    with pytest.raises(ValidationError, match="less than 1"):
        adapter.validate_python({"name": "adamw", "betas": [0.9, 1.0]})
