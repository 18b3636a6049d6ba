"""ARAT's mechanisms switched off, turned round and replaced, against the formula in float64."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from arat_ray.training import split_norm as branches
from arat_ray.training.methods import Task
from arat_ray.training.methods.arat import ACTIVATIONS, DISTANCES, HELD, NORMS, PredictorSpec
from arat_ray.training.models import MODELS
from tests.training.methods.arat_formula import make, published
from tests.training.methods.formulas import assert_same_gradients, batch, build, gradients


@pytest.mark.parametrize("split_norm", [True, False])
@pytest.mark.parametrize("predictor", [True, False], ids=["predictor", "identity"])
@pytest.mark.parametrize("distance", list(DISTANCES))
@pytest.mark.parametrize("held", list(HELD))
def test_every_combination_of_switches_equals_the_formula(
    held: str, distance: str, predictor: bool, split_norm: bool
) -> None:
    off: dict[str, Any] = {} if predictor else {"predictor": None}
    method = make(stop_gradient=held, distance=distance, split_norm=split_norm, **off)
    x, x_adv, y = batch()
    losses = method(x, x_adv, y)
    wanted = published(method, x, x_adv, y, distance=distance, held=held)
    assert losses.invariance.item() > 0
    for ours, theirs in zip(losses[:3], wanted, strict=True):
        assert_same_gradients(ours, theirs, method)


@pytest.mark.parametrize(
    ("held", "into_x", "into_x_adv"),
    [("clean", False, True), ("none", True, True), ("adversarial", True, False), ("both", True, True)],
)
@pytest.mark.parametrize("predictor", [{}, {"predictor": None}], ids=["predictor", "identity"])
@pytest.mark.parametrize("distance", list(DISTANCES))
def test_the_invariance_gradient_reaches_the_sides_that_are_not_held(
    distance: str, predictor: dict[str, Any], held: str, into_x: bool, into_x_adv: bool
) -> None:
    method = make(stop_gradient=held, distance=distance, **predictor)
    x, x_adv, y = batch()
    inputs = x.requires_grad_(), x_adv.requires_grad_()
    invariance = method(*inputs, y).invariance
    found = torch.autograd.grad(invariance, inputs, retain_graph=True, allow_unused=True)
    assert [gradient is not None and bool(gradient.any()) for gradient in found] == [into_x, into_x_adv]
    reached = dict.fromkeys((".clean.", ".adversarial."), False)
    for (name, _), gradient in zip(method.named_parameters(), gradients(invariance, method), strict=True):
        for branch in reached:
            if f"model.bn1{branch}" in name:
                reached[branch] |= bool(gradient.any())
    assert list(reached.values()) == [into_x, into_x_adv]


def test_holding_both_sides_by_turns_is_not_holding_none() -> None:
    """Without a predictor the cosine is symmetric: the values agree, and the gradients are each other's half."""
    x, x_adv, y = batch()
    whole, halves = make(stop_gradient="none", predictor=None), make(stop_gradient="both", predictor=None)
    a, b = whole(x, x_adv, y).invariance, halves(x, x_adv, y).invariance
    torch.testing.assert_close(a, b)
    for full, half in zip(gradients(a, whole), gradients(b, halves), strict=True):
        torch.testing.assert_close(full, 2 * half)


def test_the_predictor_gets_its_gradient_from_the_invariance_term_alone() -> None:
    method = make()
    losses = method(*batch())
    assert not any(gradient.any() for gradient in gradients(losses.classification, method.predictors))
    assert all(gradient.any() for gradient in gradients(losses.invariance, method.predictors))


@pytest.mark.parametrize("distance", list(DISTANCES))
def test_features_that_agree_are_at_distance_zero(distance: str) -> None:
    z = torch.rand(5, 7, dtype=torch.float64)
    torch.testing.assert_close(DISTANCES[distance](z, z), torch.zeros((), dtype=torch.float64))


def test_distances_worked_by_hand() -> None:
    p = torch.tensor([[1.0, 0], [0, 2]], dtype=torch.float64)
    z = torch.tensor([[0.0, 1], [0, 1]], dtype=torch.float64)
    assert DISTANCES["cosine"](p, z).item() == pytest.approx(0.5)  # right angle, equal
    assert DISTANCES["mse"](p, z).item() == pytest.approx(3 / 4)
    e = math.e  # softmax(z) = (1, e) / (1 + e); softmax(p) = (e, 1) / (1 + e) and (1, e^2) / (1 + e^2)
    first = (-1 + e) / (1 + e)
    second = math.log((1 + e**2) / (1 + e)) - e / (1 + e)
    assert DISTANCES["kl"](p, z).item() == pytest.approx((first + second) / 2, rel=1e-12)


@pytest.mark.parametrize("norm", list(NORMS))
@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_the_predictor_has_the_norm_and_the_activation_asked_for(activation: str, norm: str) -> None:
    spec = PredictorSpec.model_validate({"ratio": 0.5, "depth": 3, "norm": norm, "activation": activation})
    predictor = spec.build(8)
    norms: dict[str, list[type[nn.Module]]] = {"batch": [nn.BatchNorm1d], "layer": [nn.LayerNorm], "none": []}
    between = [*norms[norm], {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh}[activation]]
    assert [type(module) for module in predictor.children()] == [nn.Linear, *between, nn.Linear, *between, nn.Linear]
    biased = [module.bias is not None for module in predictor.modules() if isinstance(module, nn.Linear)]
    assert biased == [norm == "none", norm == "none", True]
    assert predictor(torch.rand(4, 8)).shape == (4, 8)


def test_without_split_norm_there_is_one_set_of_statistics() -> None:
    method = make(split_norm=False)
    assert not any(isinstance(module, branches.SplitNorm) for module in method.modules())
    x, x_adv, y = batch()
    method(x, x_adv, y)
    assert method.model.get_buffer("bn1.num_batches_tracked") == 2


def test_a_network_without_norms_cannot_be_split_and_says_how_to_go_on() -> None:
    spec = MODELS["tiny"](width=3, norm="none")
    task = Task(spec, (1, 8, 8), 4)
    with pytest.raises(ValueError, match=r"method\.split_norm: this network has no norm layer.* set split_norm: false"):
        build("arat", spec.build((1, 8, 8), 4), task)
    build("arat", spec.build((1, 8, 8), 4), task, split_norm=False)


def test_fixed_weights_need_not_add_up_to_one() -> None:
    method = make(balance={"name": "fixed", "adversarial": 2.0, "clean": 0.5})
    assert (method.weight_adversarial, method.weight_clean, method.balance) == (2.0, 0.5, 2.0)
    with pytest.raises(ValueError, match="say what `clean` is"):
        make(balance={"name": "fixed", "adversarial": 2.0})
