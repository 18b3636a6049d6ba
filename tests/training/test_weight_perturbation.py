"""Adversarial weight perturbation against its formula in float64: what moves, how far, and what stays."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from arat_ray.training.methods import METHODS, Method
from arat_ray.training.weight_perturbation import WeightPerturbation, perturbed
from tests.training.methods.formulas import assert_same_state, batch, build, cross_entropy, tiny

GAMMA = 0.05


def make(name: str, **fields: Any) -> Method:
    method = build(name, tiny(), **fields).double().train()
    method.start_epoch(2, lambda model, images, fresh: 0.4)
    return method


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def test_weights_move_by_gamma_times_their_length_along_the_gradient() -> None:
    x, x_adv, y = batch()
    method, twin = make("pgd_at"), tiny()
    cross_entropy(twin(x_adv), y).backward()
    with perturbed(method, lambda: method(x, x_adv, y).total, gamma=GAMMA, average=lambda gradient: gradient):
        moved = state(method.model)
    for name, weight in twin.named_parameters():
        expected = weight.detach()
        if weight.dim() > 1:
            assert weight.grad is not None
            lengths = [values.square().sum().sqrt() for values in (weight.detach(), weight.grad)]
            expected = expected + GAMMA * lengths[0] * weight.grad / lengths[1]
            torch.testing.assert_close((moved[name] - weight.detach()).norm(), GAMMA * lengths[0])
        torch.testing.assert_close(moved[name], expected)


@pytest.mark.parametrize("name", list(METHODS))
def test_only_matrices_and_kernels_of_the_deployed_network_move_and_all_is_put_back(name: str) -> None:
    x, x_adv, y = batch()
    method = make(name)
    before = state(method)
    with perturbed(method, lambda: method(x, x_adv, y).total, gamma=GAMMA, average=lambda gradient: gradient):
        within = state(method)
    moved = {key for key, value in within.items() if not torch.equal(value, before[key])}
    assert moved == {f"model.{layer}.weight" for layer in ("conv1", "conv2", "conv3", "linear")}
    for key, value in state(method).items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=1e-15)
        if key not in moved:
            assert torch.equal(value, before[key]), key
    assert method.training
    assert all(parameter.grad is None for parameter in method.parameters())


def test_running_statistics_do_not_see_the_pass_that_finds_the_direction() -> None:
    x, x_adv, y = batch()
    method = make("trades")
    with perturbed(method, lambda: method(x, x_adv, y).total, gamma=GAMMA, average=lambda gradient: gradient):
        assert not any(int(v) for name, v in method.named_buffers() if name.endswith("num_batches_tracked"))
        method(x, x_adv, y)  # the update's own pass does count
    tracked = [int(v) for name, v in method.named_buffers() if name.endswith("num_batches_tracked")]
    assert tracked == [2, 2, 2]


def test_a_weight_that_no_gradient_reaches_stays() -> None:
    """ARAT with both cross-entropies switched off trains what lies before the layer, and not the classifier."""
    x, x_adv, y = batch()
    method = make("arat", layers=["bn2"], balance={"name": "fixed", "adversarial": 0, "clean": 0})
    before = state(method.model)
    with perturbed(method, lambda: method(x, x_adv, y).invariance, gamma=GAMMA, average=lambda gradient: gradient):
        within = state(method.model)
    assert {name for name in within if not torch.equal(within[name], before[name])} == {"conv1.weight", "conv2.weight"}
    assert all(value.isfinite().all() for value in within.values())


def test_a_step_is_taken_at_the_perturbed_weights_weight_decay_included() -> None:
    """w <- (w + v) - r [g(w + v) + d (w + v)] - v, in one number: L = (w1 + w2)^2 / 2 of a kernel (w1, w2)."""
    method = make("pgd_at")
    weight = nn.Parameter(torch.tensor([[3.0, 1.0]], dtype=torch.float64))
    method.model = nn.Module()
    method.model.weight = weight

    def loss() -> Tensor:
        return weight.sum().square() / 2

    optimizer = torch.optim.SGD([weight], lr=0.1, weight_decay=0.5)
    v = GAMMA * math.sqrt(10) / math.sqrt(2)  # g = (4, 4), along (1, 1) / sqrt(2)
    with perturbed(method, loss, gamma=GAMMA, average=lambda gradient: gradient):
        loss().backward()
        optimizer.step()
    g = 4 + 2 * v
    expected = [w + v - 0.1 * (g + 0.5 * (w + v)) - v for w in (3, 1)]
    torch.testing.assert_close(weight.detach(), torch.tensor([expected], dtype=torch.float64))


def test_weights_are_put_back_when_the_step_fails() -> None:
    x, x_adv, y = batch()
    method = make("pgd_at")
    with (
        pytest.raises(RuntimeError, match="out of memory"),
        perturbed(method, lambda: method(x, x_adv, y).total, gamma=GAMMA, average=lambda gradient: gradient),
    ):
        raise RuntimeError("out of memory")
    assert_same_state(method.model, tiny())


def test_the_direction_is_that_of_the_averaged_gradient() -> None:
    """`average` sees each gradient once; its scale does not matter, its direction does."""
    x, x_adv, y = batch()
    method, asked = make("pgd_at"), []

    def backwards(gradient: Tensor) -> Tensor:
        asked.append(gradient)
        return -3 * gradient

    with perturbed(method, lambda: method(x, x_adv, y).total, gamma=GAMMA, average=lambda gradient: gradient):
        forth = state(method.model)
    with perturbed(method, lambda: method(x, x_adv, y).total, gamma=GAMMA, average=backwards):
        back = state(method.model)
    assert len(asked) == 4
    for name, weight in tiny().named_parameters():
        torch.testing.assert_close(back[name] - weight.detach(), weight.detach() - forth[name])


@pytest.mark.parametrize("bad", [{"gamma": 0}, {"gamma": 2}, {"warmup_epochs": -1}])
def test_impossible_settings_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        WeightPerturbation.model_validate(bad)
