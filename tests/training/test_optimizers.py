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


@pytest.mark.parametrize(
    ("spec", "plain"),
    [
        (Sgd(nesterov=True), torch.optim.SGD),
        (Sgd(momentum=0.5, weight_decay=0), torch.optim.SGD),
        (AdamW(betas=(0.8, 0.9)), torch.optim.AdamW),
    ],
)
def test_steps_are_torchs_to_the_bit_also_after_their_state_was_kept(
    spec: Sgd | AdamW, plain: type[torch.optim.Optimizer]
) -> None:
    options = {key: value for key, value in spec.model_dump().items() if key not in ("name", "learning_rate")}
    weights = [torch.linspace(-1, 1, 7).requires_grad_() for _ in range(2)]
    ours = spec.build([nn.Parameter(weights[0].detach().clone())])
    torchs = plain([nn.Parameter(weights[1].detach().clone())], lr=spec.learning_rate, **options)  # type: ignore[call-arg]
    for step in range(6):
        if step == 3:
            kept = ours.state_dict()
            ours = spec.build(ours.param_groups[0]["params"])
            ours.load_state_dict(kept)
        for optimizer in (ours, torchs):
            (parameter,) = optimizer.param_groups[0]["params"]
            parameter.grad = torch.sin(parameter.detach() * (step + 1))
            optimizer.step()
            optimizer.zero_grad()
            assert parameter.grad is None
        assert torch.equal(ours.param_groups[0]["params"][0], torchs.param_groups[0]["params"][0])
    assert isinstance(ours, plain)
