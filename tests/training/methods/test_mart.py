"""MART against its published formula, with the constants of the authors' code, image by image in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests.training.methods.formulas import (
    Given,
    assert_same_gradients,
    assert_same_state,
    batch,
    black_and_white,
    build,
    gradients,
    softmax,
    tiny,
)


def published(clean: Tensor, adversarial: Tensor, y: Tensor, *, beta: float) -> tuple[Tensor, Tensor]:
    """1/N sum_i BCE_i and beta/N sum_i KL_i (1 - p_y(x_i)); BCE = -log p'_y - log(1 - max over k != y of p'_k)."""
    bce, kl = [], []
    for p, q, label in zip(softmax(clean), softmax(adversarial), y.tolist(), strict=True):
        wrong = max(q[k] for k in range(len(q)) if k != label)
        bce.append(-q[label].log() - (1.0001 - wrong + 1e-12).log())
        divergence = sum((p[k] * (p[k].log() - (q[k] + 1e-12).log()) for k in range(len(p))), start=torch.zeros(()))
        kl.append(divergence * (1.0000001 - p[label]))
    return torch.stack(bce).mean(), beta * torch.stack(kl).mean()


@pytest.mark.parametrize("images", [1, 7])
@pytest.mark.parametrize("beta", [0.0, 5.0])
def test_the_loss_and_its_gradients_to_the_logits_are_the_published_ones(beta: float, images: int) -> None:
    model = Given(images)
    x, x_adv, y = black_and_white(images)
    losses = build("mart", model, beta=beta)(x, x_adv, y)
    bce, weighted = published(model.clean, model.adversarial, y, beta=beta)
    assert_same_gradients(losses.adversarial, bce, model)
    assert_same_gradients(losses.invariance, weighted, model)
    assert losses.clean == 0


def test_the_gradients_to_a_network_with_batch_norm_are_the_published_ones() -> None:
    x, x_adv, y = batch()
    method, twin = build("mart", tiny(), beta=5.0), tiny()
    losses = method(x, x_adv, y)
    clean, adversarial = twin(x), twin(x_adv)
    bce, weighted = published(clean, adversarial, y, beta=5.0)
    assert_same_gradients(losses.total, bce + weighted, method.model, twin)
    assert_same_state(method.model, twin)  # clean first, as in the authors' code


def loss_of(clean: list[float], adversarial: list[float], label: int) -> tuple[float, float, list[Tensor]]:
    """Both terms with beta 1, and the gradients of their sum, for one image."""
    model = Given(1)
    with torch.no_grad():
        model.clean.copy_(torch.tensor([clean], dtype=torch.float64).log())
        model.adversarial.copy_(torch.tensor([adversarial], dtype=torch.float64).log())
    x, x_adv, _ = black_and_white(1)
    losses = build("mart", model, beta=1.0)(x, x_adv, torch.tensor([label]))
    return losses.adversarial.item(), losses.invariance.item(), gradients(losses.total, model)


def test_a_point_worked_by_hand() -> None:
    bce, weighted, _ = loss_of([0.5, 0.25, 0.125, 0.125], [0.25, 0.5, 0.125, 0.125], label=0)
    assert bce == pytest.approx(-math.log(0.25) - math.log(0.5001), rel=1e-11)
    kl = 0.5 * math.log(2) - 0.25 * math.log(2)
    assert weighted == pytest.approx(kl * 0.5000001, rel=1e-10)


@pytest.mark.parametrize("label", range(4))
def test_ties_between_the_most_likely_classes_do_not_matter(label: int) -> None:
    probabilities = [0.4, 0.4, 0.1, 0.1]
    bce, _, _ = loss_of(probabilities, probabilities, label)
    assert bce == pytest.approx(-math.log(probabilities[label]) - math.log(0.6001), rel=1e-11)


@pytest.mark.parametrize("label", range(4))
@pytest.mark.parametrize("winner", range(4))
def test_saturated_probabilities_give_a_finite_loss_and_gradient(label: int, winner: int) -> None:
    """p'_k = 1 of a wrong class costs -log 1e-4, not infinity; so do the constants under the divergence."""
    model = Given(1)
    with torch.no_grad():
        model.clean.zero_()[0, 3] = 1000.0
        model.adversarial.zero_()[0, winner] = 1000.0
    x, x_adv, _ = black_and_white(1)
    losses = build("mart", model, beta=1.0)(x, x_adv, torch.tensor([label]))
    bce = 1000 - math.log(1.0001 - 1) if label != winner else -math.log(1.0001)
    assert losses.adversarial.item() == pytest.approx(bce, rel=1e-9)
    kl = 0.0 if winner == 3 else -math.log(1e-12)
    assert losses.invariance.item() == pytest.approx(kl * (1e-7 if label == 3 else 1.0000001), rel=1e-6, abs=1e-11)
    assert all(gradient.isfinite().all() for gradient in gradients(losses.total, model))
