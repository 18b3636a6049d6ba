"""ARREST in its two stages against the published formula in float64; the frozen standard network; noisy replay."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from arat_ray.training.attacks import Pgd
from arat_ray.training.methods import Arrest
from arat_ray.training.methods.arrest import angular_distance
from tests.training.methods.formulas import (
    assert_same_gradients,
    assert_same_state,
    batch,
    build,
    cross_entropy,
    noise,
    tiny,
)

ATTACK = Pgd(norm="linf", epsilon=0.1, step_size=0.05, steps=2)


def nothing(model: nn.Module, images: int, fresh: bool) -> float:
    return math.nan


def make(epoch: int, **fields: Any) -> Arrest:
    """Standard for two epochs, then finetuning; at the start of epoch `epoch`, the network moved in each one."""
    method = build("arrest", tiny(), **{"standard_epochs": 2, "distillation_weight": 7.0} | fields).double().train()
    assert isinstance(method, Arrest)
    for begun in range(1, epoch + 1):
        method.start_epoch(begun, nothing)
        if begun < epoch:
            move(method.model)
    return method


def move(model: nn.Module) -> None:
    draws = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, dtype=parameter.dtype, generator=draws))
        model(batch()[0])  # and its running statistics


def penultimate(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Logits, and what the classifier reads."""
    read: list[Tensor] = []
    handle = model.get_submodule("linear").register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    logits = model(x)
    handle.remove()
    return logits, read[0]


def angle(a: Tensor, b: Tensor) -> Tensor:
    return ((a * b).sum(1) / (a.square().sum(1).sqrt() * b.square().sum(1).sqrt())).acos() / math.pi


def copy_of(model: nn.Module) -> nn.Module:
    twin = tiny()
    twin.load_state_dict(model.state_dict())
    return twin


@pytest.mark.parametrize("epoch", [1, 2])
def test_the_first_stage_is_standard_training(epoch: int) -> None:
    method = make(epoch)
    twin = copy_of(method.model)
    x, _, y = batch()
    clean, x_adv = method.perturb(x, y, ATTACK, noise(len(y)))
    assert clean is x
    assert x_adv is x
    losses = method(x, x_adv, y)
    assert_same_gradients(losses.total, cross_entropy(twin(x), y), method.model, twin)
    assert losses.adversarial == losses.invariance == 0
    assert losses.logits_adv is None
    assert_same_state(method.model, twin)


@pytest.mark.parametrize("images", [1, 6])
def test_the_second_stage_equals_the_published_formula(images: int) -> None:
    method = make(4)
    x, x_adv, y = (values[:images] for values in batch())
    assert all(parameter.requires_grad == name.startswith("model.") for name, parameter in method.named_parameters())
    twin, teacher = copy_of(method.model), copy_of(method.teacher).eval()
    losses = method(x, x_adv, y)
    logits, z = penultimate(twin, x_adv)
    wanted = cross_entropy(logits, y) + 7 * angle(z, penultimate(teacher, x)[1].detach()).mean()
    assert losses.invariance > 0
    assert_same_gradients(losses.total, wanted, method.model, twin)
    assert_same_state(method.model, twin)


def test_the_standard_network_is_frozen_as_it_is_when_the_second_stage_begins() -> None:
    method = make(2)
    move(method.model)
    reached = copy_of(method.model)
    method.start_epoch(3, nothing)
    assert_same_state(method.teacher, reached)
    move(method.model)
    method.start_epoch(4, nothing)
    assert_same_state(method.teacher, reached)


def test_training_does_not_touch_the_frozen_network() -> None:
    method = make(3)
    frozen = copy_of(method.teacher)
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    x, _, y = batch()
    for _ in range(2):
        method.train()
        assert not any(module.training for module in method.teacher.modules())
        x, x_adv = method.perturb(x, y, ATTACK, noise(len(y)))
        optimizer.zero_grad()
        method(x, x_adv, y).total.backward()
        optimizer.step()
    assert_same_state(method.teacher, frozen)
    assert not any(parameter.requires_grad for parameter in method.teacher.parameters())
    assert not torch.equal(next(method.model.parameters()), next(frozen.parameters()))
    assert method.networks == (method.model,)


def test_noisy_replay_replaces_exactly_the_images_that_drifted() -> None:
    method = make(5, attack_norm="train_frozen_stats")
    x, _, y = batch()
    model, teacher = copy_of(method.model).eval(), copy_of(method.teacher).eval()
    drift = angle(penultimate(model, x)[1], penultimate(teacher, x)[1])
    threshold = drift.sort().values[2:4].mean().item()
    attacked, neighbours = make(5, attack_norm="train_frozen_stats", replay_threshold=None), noise(len(y))
    _, all_adversarial = attacked.perturb(x, y, ATTACK, neighbours)
    noisy = ATTACK.neighbour(x, neighbours)  # drawn after the attack's start

    method.replay_threshold = threshold
    before = copy_of(method.model)
    clean, x_adv = method.perturb(x, y, ATTACK, noise(len(y)))
    drifted = drift > threshold
    assert int(drifted.sum()) == 3
    assert clean is x
    assert torch.equal(x_adv[drifted], noisy[drifted])
    assert torch.equal(x_adv[~drifted], all_adversarial[~drifted])
    assert not torch.equal(all_adversarial[drifted], noisy[drifted])
    assert (x_adv - x).abs().max() <= 0.1 + 1e-12
    assert method.model.training
    assert_same_state(method.model, before)


def test_the_angular_distance_of_right_opposite_and_equal_directions() -> None:
    a = torch.tensor([[3.0, 0], [3, 0], [3, 0], [1, 1]], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([[0.0, 2], [-1, 0], [5, 0], [0, 1]], dtype=torch.float64)
    distance = angular_distance(a, b)
    torch.testing.assert_close(distance, torch.tensor([0.5, 1, 0, 0.25], dtype=torch.float64), rtol=0, atol=1e-7)
    (gradient,) = torch.autograd.grad(distance.sum(), a)
    assert gradient.isfinite().all()
    assert gradient[0, 1] == pytest.approx(-1 / (3 * math.pi))
