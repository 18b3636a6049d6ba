"""TRADES against its published formula in float64."""

from __future__ import annotations

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
    cross_entropy,
    gradients,
    kl,
    log_softmax,
    softmax,
    tiny,
)

HELD = ["none", "clean", "adversarial"]


def published(clean: Tensor, adversarial: Tensor, y: Tensor, *, beta: float, held: str = "none") -> Tensor:
    """CE(f(x), y) + beta/N sum_i KL(p(x_i) || p(x'_i)), one side of the KL held constant."""
    p = clean.detach() if held == "clean" else clean
    q = adversarial.detach() if held == "adversarial" else adversarial
    return cross_entropy(clean, y) + beta * kl(p, q).sum() / len(y)


@pytest.mark.parametrize("images", [1, 5])
@pytest.mark.parametrize("held", HELD)
def test_the_loss_and_its_gradients_to_the_logits_are_the_published_ones(held: str, images: int) -> None:
    model = Given(images)
    x, x_adv, y = black_and_white(images)
    losses = build("trades", model, beta=6.0, stop_gradient=held)(x, x_adv, y)
    wanted = published(model.clean, model.adversarial, y, beta=6.0, held=held)
    assert_same_gradients(losses.total, wanted, model)
    torch.testing.assert_close(losses.clean, cross_entropy(model.clean, y))
    assert losses.adversarial == 0


@pytest.mark.parametrize("beta", [0.0, 2.5])
@pytest.mark.parametrize("held", HELD)
def test_the_gradients_to_a_network_with_batch_norm_are_the_published_ones(held: str, beta: float) -> None:
    x, x_adv, y = batch()
    method, twin = build("trades", tiny(), beta=beta, stop_gradient=held), tiny()
    losses = method(x, x_adv, y)
    clean, adversarial = twin(x), twin(x_adv)
    assert_same_gradients(losses.total, published(clean, adversarial, y, beta=beta, held=held), method.model, twin)
    torch.testing.assert_close(losses.logits_clean, clean)
    torch.testing.assert_close(losses.logits_adv, adversarial)
    assert_same_state(method.model, twin)


@pytest.mark.parametrize(
    ("held", "into_clean", "into_adversarial"),
    [("none", True, True), ("clean", False, True), ("adversarial", True, False)],
)
def test_no_kl_gradient_flows_into_the_side_held_constant(held: str, into_clean: bool, into_adversarial: bool) -> None:
    model = Given(5)
    losses = build("trades", model, stop_gradient=held)(*black_and_white(5))
    reached = [bool(gradient.any()) for gradient in gradients(losses.invariance, model)]
    assert reached == [into_clean, into_adversarial]


def test_the_gradient_to_the_logits_is_the_one_worked_by_hand() -> None:
    """To f(x') it is beta (p(x') - p(x)) / N."""
    model = Given(5)
    losses = build("trades", model, beta=6.0)(*black_and_white(5))
    _, into_adversarial = gradients(losses.invariance, model)
    torch.testing.assert_close(into_adversarial, 6 * (softmax(model.adversarial) - softmax(model.clean)) / 5)
    torch.testing.assert_close(log_softmax(model.clean).exp().sum(1), torch.ones(5, dtype=torch.float64))


def test_repeating_the_clean_forward_moves_the_running_statistics_as_the_authors_three_forwards_do() -> None:
    x, x_adv, y = batch()
    once, repeated = build("trades", tiny()), build("trades", tiny(), repeat_clean_forward=True)
    twin = tiny()
    loss = repeated(x, x_adv, y).total
    for inputs in (x, x_adv, x):
        twin(inputs)
    assert_same_state(repeated.model, twin)
    assert_same_gradients(loss, once(x, x_adv, y).total, repeated, once)
    tracked = [int(value) for name, value in repeated.named_buffers() if name.endswith("num_batches_tracked")]
    assert tracked == [3, 3, 3]


@pytest.mark.parametrize("held", HELD)
def test_saturated_probabilities_give_finite_gradients(held: str) -> None:
    model = Given(2)
    with torch.no_grad():
        model.clean.copy_(torch.tensor([[1000.0, 0, 0, 0], [0, 0, 0, 0]]))
        model.adversarial.copy_(torch.tensor([[0.0, 1000, 0, 0], [0, 0, 1000, 0]]))
    losses = build("trades", model, beta=1.0, stop_gradient=held)(*black_and_white(2))
    torch.testing.assert_close(losses.invariance.item(), (1000 + 750 - torch.tensor(4.0).log().item()) / 2)
    assert all(gradient.isfinite().all() for gradient in gradients(losses.total, model))
