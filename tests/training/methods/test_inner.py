"""The inner maximisation of every method: its steps by an independent computation, and what it does to norm layers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from arat_ray.training.attacks import Pgd
from arat_ray.training.randomness import generator
from tests.training.methods.formulas import (
    assert_same_state,
    batch,
    build,
    cross_entropy,
    kl,
    noise,
    tiny,
)

EPSILON, STEP = 0.05, 0.02
STARTS = ["uniform", "normal"]
MODES = ["train", "train_frozen_stats", "eval"]


def attack(start: Any, steps: int = 3) -> Pgd:
    return Pgd(norm="linf", epsilon=EPSILON, step_size=STEP, steps=steps, start=start)


def starting_point(x: Tensor, start: str) -> Tensor:
    draws = torch.empty_like(x)
    if start == "uniform":
        return (x + draws.uniform_(-EPSILON, EPSILON, generator=generator("cpu", 0))).clamp(0, 1)
    return (x + 0.001 * draws.normal_(generator=generator("cpu", 0))).clamp(0, 1)


def climb(model: nn.Module, x: Tensor, y: Tensor, start: str, loss: str, steps: int) -> Tensor:
    """Signed gradient steps on the sum of CE(f(x'), y) or of KL(p(x) || p(x')), by the definitions."""
    x_adv = starting_point(x, start)
    for _ in range(steps):
        x_adv = x_adv.clone().requires_grad_()
        logits = model(x_adv)
        height = cross_entropy(logits, y) * len(y) if loss == "ce" else kl(model(x).detach(), logits).sum()
        (gradient,) = torch.autograd.grad(height, x_adv)
        x_adv = x + (x_adv.detach() + STEP * gradient.sign() - x).clamp(-EPSILON, EPSILON)
        x_adv = x_adv.clamp(0, 1)
    return x_adv


def adversarial_of(name: str, start: str, steps: int, **fields: Any) -> tuple[nn.Module, nn.Module, Tensor, Tensor]:
    """The method after its attack, its network as it was, x and x'."""
    method = build(name, tiny(), **fields).train()
    method.start_epoch(2, lambda model, images, fresh: math.nan)
    x, _, y = batch()
    kept = x.clone()
    clean, x_adv = method.perturb(x, y, attack(start, steps), noise(len(y)))
    assert clean is x
    assert torch.equal(x, kept)
    assert method.model.training
    assert all(parameter.grad is None for parameter in method.parameters())
    return method, tiny(), x, x_adv


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize(
    ("name", "loss"), [("trades", "kl"), ("lbgat", "kl"), ("mart", "ce")], ids=["trades", "lbgat", "mart"]
)
def test_attacks_in_eval_mode_climb_the_published_loss_and_leave_the_statistics(
    name: str, loss: str, start: str, steps: int
) -> None:
    method, twin, x, x_adv = adversarial_of(name, start, steps)
    expected = climb(twin.eval(), x, batch()[2], start, loss, steps)
    torch.testing.assert_close(x_adv, expected)
    assert_same_state(method.get_submodule("model"), tiny())


@pytest.mark.parametrize("beta", [0.0, 6.0])
def test_lbgat_attacks_its_deployed_networks_kl_whatever_beta_is(beta: float) -> None:
    _, twin, x, x_adv = adversarial_of("lbgat", "normal", 2, beta=beta)
    torch.testing.assert_close(x_adv, climb(twin.eval(), x, batch()[2], "normal", "kl", 2))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["pgd_at", "mart", "arrest", "arat"])
def test_cross_entropy_attacks_use_the_statistics_that_attack_norm_says(name: str, mode: str) -> None:
    off: dict[str, dict[str, Any]] = {"arat": {"split_norm": False}, "arrest": {"replay_threshold": None}}
    method, twin, x, x_adv = adversarial_of(name, "uniform", 3, attack_norm=mode, **off.get(name, {}))
    expected = climb(twin.train(mode != "eval"), x, batch()[2], "uniform", "ce", 3)
    torch.testing.assert_close(x_adv, expected)
    assert_same_state(method.get_submodule("model"), twin if mode == "train" else tiny())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["trades", "lbgat"])
def test_kl_attacks_can_run_in_other_norm_modes(name: str, mode: str) -> None:
    """Batch statistics are no function of the running ones: both train modes give the same images."""
    method, twin, x, x_adv = adversarial_of(name, "normal", 2, attack_norm=mode)
    torch.testing.assert_close(x_adv, climb(twin.train(mode != "eval"), x, batch()[2], "normal", "kl", 2))
    moved = int(method.get_buffer("model.bn1.num_batches_tracked"))
    assert moved == (3 if mode == "train" else 0)  # the clean target once, two steps


def test_the_kl_attack_from_the_center_goes_nowhere() -> None:
    """Its gradient vanishes there up to rounding, which is why a run with such an attack is refused."""
    model = tiny().eval()
    x, _, _ = batch()
    inputs = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(kl(model(x).detach(), model(inputs)).sum(), inputs)
    assert gradient.abs().max() < 1e-12
