"""The defences: standard training and PGD-AT against their formulas in float64, and all of them on all networks."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from arat_ray.training.attacks import Pgd
from arat_ray.training.methods import METHODS, Method, MethodSpec
from arat_ray.training.models import MODELS, Tiny
from arat_ray.training.randomness import Noise, generator

SHAPE = (1, 8, 8)
SMALL: dict[str, dict[str, Any]] = {
    "resnet18": {"width": 2},
    "wide_resnet": {"depth": 10, "width": 1},
    "tiny": {"width": 2},
}
NEEDED: dict[str, dict[str, Any]] = {"arat": {"invariance_weight": 5, "layers": ["avgpool"]}}
ATTACK = Pgd(norm="linf", epsilon=0.1, step_size=0.05, steps=2)


def build(method: str, model: nn.Module) -> Method:
    spec: Any = TypeAdapter(MethodSpec).validate_python({"name": method, **NEEDED.get(method, {})})
    assert type(spec) is METHODS[method]
    built: Method = spec.build(model, SHAPE)
    return built


def batch(images: int = 6, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    x = torch.rand(images, *SHAPE, dtype=dtype)
    return x, (x + 0.1 * torch.randn_like(x)).clamp(0, 1), torch.arange(images) % 4


def tiny() -> nn.Module:
    torch.manual_seed(0)
    return Tiny(width=3).build(1, 4).double().train()


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """-1/N sum log p_y, by its definition."""
    exponentials = logits.exp()
    return -(exponentials[torch.arange(len(y)), y] / exponentials.sum(1)).log().sum() / len(y)


@pytest.mark.parametrize(("name", "term"), [("standard", "clean"), ("pgd_at", "adversarial")])
def test_the_loss_and_its_gradients_are_those_of_one_cross_entropy(name: str, term: str) -> None:
    x, x_adv, y = batch()
    inputs = x if term == "clean" else x_adv
    method, reference = build(name, tiny()), tiny()
    losses = method(x, x_adv, y)
    expected = cross_entropy(reference(inputs), y)
    torch.testing.assert_close(getattr(losses, term), expected)
    torch.testing.assert_close(losses.total, expected)
    assert sum(value.item() == 0 for value in losses[:3]) == 2
    losses.total.backward()
    expected.backward()
    for mine, theirs in zip(method.model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)
    computed, absent = losses.logits_clean, losses.logits_adv
    if term == "adversarial":
        computed, absent = absent, computed
    assert absent is None
    assert computed is not None
    torch.testing.assert_close(computed, tiny()(inputs))


def test_standard_training_attacks_nothing() -> None:
    x, _, y = batch()
    method = build("standard", tiny())
    before = {key: value.clone() for key, value in method.state_dict().items()}
    clean, x_adv = method.perturb(x, y, ATTACK, Noise(generator("cpu", 0), len(y)))
    assert clean is x
    assert x_adv is x
    assert all(torch.equal(value, before[key]) for key, value in method.state_dict().items())


def test_pgd_at_trains_on_the_attack_on_its_own_network() -> None:
    x, _, y = batch()
    method = build("pgd_at", tiny())
    clean, x_adv = method.perturb(x, y, ATTACK, Noise(generator("cpu", 0), len(y)))
    assert clean is x
    assert torch.equal(x_adv, ATTACK(tiny(), x, y, noise=Noise(generator("cpu", 0), len(y))))
    assert 0 < (x_adv - x).abs().max() <= 0.1 + 1e-12


@pytest.mark.parametrize("model", list(MODELS))
@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_takes_a_step_with_every_network(name: str, model: str) -> None:
    torch.manual_seed(0)
    network: Any = MODELS[model]
    method = build(name, network(**SMALL[model]).build(1, 4)).train()
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    before = {key: value.detach().clone() for key, value in method.named_parameters()}
    x, _, y = batch(dtype=torch.float32)
    method.start_epoch(lambda network, images, fresh: 0.5)
    x, x_adv = method.perturb(x, y, ATTACK, Noise(generator("cpu", 0), len(y)))
    assert all(parameter.grad is None for parameter in method.parameters())
    losses = method(x, x_adv, y)
    assert all(0 <= value.item() < math.inf for value in losses[:3])
    torch.testing.assert_close(losses.total, losses[0] + losses[1] + losses[2])
    losses.total.backward()
    optimizer.step()
    assert method.training
    for key, parameter in method.named_parameters():
        assert parameter.grad is not None, key  # or DistributedDataParallel would wait for it
        assert parameter.isfinite().all(), key
    assert any(not torch.equal(parameter, before[key]) for key, parameter in method.named_parameters())
    assert any(logits is not None and logits.shape == (6, 4) for logits in losses[3:])


def test_an_unknown_method_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValidationError, match="'standard', 'pgd_at', 'arat'"):
        TypeAdapter(MethodSpec).validate_python({"name": "pdg_at"})
