"""The defences: standard training and PGD-AT against their formulas in float64, and all of them on all networks."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from arat_ray.training.attacks import Pgd
from arat_ray.training.methods import METHODS, MethodSpec, Task
from arat_ray.training.models import MODELS
from tests.training.methods.arat_formula import SMALL
from tests.training.methods.formulas import NEEDED, assert_same_gradients, batch, build, cross_entropy, noise, tiny

ATTACK = Pgd(norm="linf", epsilon=0.1, step_size=0.05, steps=2)


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
    assert_same_gradients(losses.total, expected, method.model, reference)
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
    clean, x_adv = method.perturb(x, y, ATTACK, noise(len(y)))
    assert clean is x
    assert x_adv is x
    assert all(torch.equal(value, before[key]) for key, value in method.state_dict().items())


def test_pgd_at_trains_on_the_attack_on_its_own_network() -> None:
    x, _, y = batch()
    method = build("pgd_at", tiny())
    clean, x_adv = method.perturb(x, y, ATTACK, noise(len(y)))
    assert clean is x
    assert torch.equal(x_adv, ATTACK(tiny(), x, y, noise=noise(len(y))))
    assert 0 < (x_adv - x).abs().max() <= 0.1 + 1e-12


@pytest.mark.parametrize("model", list(MODELS))
@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_takes_a_step_with_every_network(name: str, model: str) -> None:
    torch.manual_seed(0)
    spec = MODELS[model](**SMALL[model])
    method = build(name, spec.build((1, 8, 8), 4), Task(spec, (1, 8, 8), 4)).train()
    trained = {key: value for key, value in method.named_parameters() if value.requires_grad}
    optimizer = torch.optim.SGD(trained.values(), lr=0.1)
    before = {key: value.detach().clone() for key, value in method.named_parameters()}
    x, _, y = batch(dtype=torch.float32)
    method.start_epoch(2, lambda network, images, fresh: 0.5)
    x, x_adv = method.perturb(x, y, ATTACK, noise(len(y)))
    assert all(parameter.grad is None for parameter in method.parameters())
    losses = method(x, x_adv, y)
    assert all(0 <= value.item() < math.inf for value in losses[:3])
    torch.testing.assert_close(losses.total, losses[0] + losses[1] + losses[2])
    losses.total.backward()
    optimizer.step()
    assert method.training
    for key, parameter in trained.items():
        assert parameter.grad is not None, key  # or DistributedDataParallel would wait for it
        assert parameter.isfinite().all(), key
    assert any(not torch.equal(parameter, before[key]) for key, parameter in trained.items())
    assert any(logits is not None and logits.shape == (6, 4) for logits in losses[3:])
    assert method.networks[0] is method.model


@pytest.mark.parametrize("name", list(METHODS))
def test_smoothed_labels_reach_the_methods_cross_entropies_and_not_its_attack(name: str) -> None:
    """The losses differ by the cross-entropies' difference, on the logits where each method has one."""
    plain, smooth = (build(name, tiny(), **FIXED.get(name, {})).double().train() for _ in range(2))
    smooth.load_state_dict(plain.state_dict())
    smooth.label_smoothing = 0.2
    x, _, y = batch()
    for method in (plain, smooth):
        method.start_epoch(2, lambda network, images, fresh: math.nan)
    attacks = [method.perturb(x, y, ATTACK, noise(len(y)))[1] for method in (plain, smooth)]
    assert torch.equal(*attacks)
    twin = build(name, tiny(), **FIXED.get(name, {})).double().train()
    twin.load_state_dict(plain.state_dict())
    before, after = plain(x, attacks[0], y), smooth(x, attacks[0], y)
    logits = {"adversarial": before.logits_adv, "clean": before.logits_clean}
    if name == "lbgat":
        logits["clean"] = twin.get_submodule("teacher")(x)
    weights = {"adversarial": 0.3, "clean": 0.7} if name == "arat" else SMOOTHED[name]
    for term, weight in weights.items():
        scores = logits[term]
        assert scores is not None
        difference = weight * (cross_entropy(scores, y, 0.2) - cross_entropy(scores, y))
        torch.testing.assert_close(getattr(after, term) - getattr(before, term), difference)
    for term in {"adversarial", "clean", "invariance"} - set(weights):
        assert torch.equal(getattr(after, term), getattr(before, term))


FIXED: dict[str, dict[str, Any]] = {"arat": {"balance": {"name": "fixed", "adversarial": 0.3}}}
SMOOTHED: dict[str, dict[str, float]] = {
    "standard": {"clean": 1},
    "pgd_at": {"adversarial": 1},
    "trades": {"clean": 1},
    "mart": {"adversarial": 1},
    "lbgat": {"clean": 1},
    "arrest": {"adversarial": 1},
}


def test_every_method_is_on_the_menu_under_its_name() -> None:
    for name, kind in METHODS.items():
        spec: Any = TypeAdapter(MethodSpec).validate_python({"name": name, **NEEDED.get(name, {})})
        assert type(spec) is kind


def test_an_unknown_method_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValidationError, match=r"'standard', 'pgd_at', .*'arat'"):
        TypeAdapter(MethodSpec).validate_python({"name": "pdg_at"})
