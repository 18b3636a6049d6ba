"""LBGAT against its published formula in float64, with gradients to both networks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from arat_ray.training.methods import Lbgat
from arat_ray.training.models import Tiny
from tests.training.methods.formulas import (
    Given,
    assert_same_gradients,
    assert_same_state,
    batch,
    black_and_white,
    build,
    cross_entropy,
    gradients,
    kl,
    tiny,
)


def published(f_adv: Tensor, f: Tensor, g: Tensor, y: Tensor, *, beta: float) -> Tensor:
    """1/(N K) ||f(x') - g(x)||^2 + CE(g(x), y) + beta/N sum_i KL(p_f(x_i) || p_f(x'_i))."""
    images, classes = g.shape
    return (f_adv - g).square().sum() / (images * classes) + cross_entropy(g, y) + beta * kl(f, f_adv).sum() / images


def make(model: nn.Module, teacher: nn.Module, beta: float) -> Lbgat:
    method = build("lbgat", model, beta=beta)
    assert isinstance(method, Lbgat)
    method.teacher = teacher
    return method.train()


@pytest.mark.parametrize("images", [1, 5])
@pytest.mark.parametrize("beta", [0.0, 6.0])
def test_the_loss_and_its_gradients_to_all_logits_are_the_published_ones(beta: float, images: int) -> None:
    model, teacher = Given(images), Given(images, seed=1)
    x, x_adv, y = black_and_white(images)
    method = make(model, teacher, beta)
    losses = method(x, x_adv, y)
    wanted = published(model.adversarial, model.clean, teacher.clean, y, beta=beta)
    assert_same_gradients(losses.total, wanted, method)
    torch.testing.assert_close(losses.clean, cross_entropy(teacher.clean, y))
    assert losses.adversarial == 0


def test_the_squared_difference_is_a_mean_over_images_and_classes() -> None:
    """f(x') - g(x) = 1 everywhere: 1, whatever their number."""
    model, teacher = Given(3), Given(3)
    with torch.no_grad():
        model.adversarial.copy_(teacher.clean + 1)
    losses = make(model, teacher, 0.0)(*black_and_white(3))
    torch.testing.assert_close(losses.invariance.item(), 1.0)


def test_the_boundary_is_matched_without_a_stop_gradient() -> None:
    model, teacher = Given(3), Given(3, seed=1)
    invariance = make(model, teacher, 0.0)(*black_and_white(3)).invariance
    pulled, _ = gradients(invariance, teacher)
    torch.testing.assert_close(pulled, 2 * (teacher.clean - model.adversarial) / (3 * 4))
    untouched, _ = gradients(invariance, model)
    assert not untouched.any()


@pytest.mark.parametrize("beta", [0.0, 6.0])
def test_the_gradients_to_both_networks_with_batch_norm_are_the_published_ones(beta: float) -> None:
    x, x_adv, y = batch()
    method, model, teacher = make(tiny(), other(), beta), tiny(), other()
    losses = method(x, x_adv, y)
    f_adv, f, g = model(x_adv), model(x), teacher(x)
    wanted = published(f_adv, f, g, y, beta=beta)
    assert_same_gradients(losses.total, wanted, method.model, model)
    assert_same_gradients(losses.total, wanted, method.teacher, teacher)
    torch.testing.assert_close(losses.logits_clean, f)
    torch.testing.assert_close(losses.logits_adv, f_adv)
    assert_same_state(method.model, model)  # adversarial first, as in the authors' code
    assert_same_state(method.teacher, teacher)


def other() -> nn.Module:
    torch.manual_seed(5)
    return Tiny(width=2).build((1, 8, 8), 4).double().train()


def test_the_teacher_is_the_networks_own_kind_or_the_one_asked_for() -> None:
    same = build("lbgat", tiny())
    assert isinstance(same, Lbgat)
    assert [p.shape for p in same.teacher.parameters()] == [p.shape for p in same.model.parameters()]
    first, second = next(same.teacher.parameters()), next(same.model.parameters())
    assert not torch.equal(first.double(), second)
    wide = build("lbgat", tiny(), teacher={"name": "tiny", "width": 7})
    assert isinstance(wide, Lbgat)
    assert wide.teacher.get_parameter("linear.weight").shape == (4, 28)
    assert wide.networks == (wide.model, wide.teacher)
