"""ARAT's objective against an independent computation of the published formula, in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from arat_ray.training import split_norm
from arat_ray.training.attacks import Pgd
from arat_ray.training.methods import AratSpec
from arat_ray.training.models import MODELS
from tests.training.methods.arat_formula import make, published
from tests.training.methods.formulas import assert_same_gradients, batch, gradients, noise


@pytest.mark.parametrize("model", list(MODELS))
@pytest.mark.parametrize("term", ["adversarial", "clean", "invariance"])
def test_each_term_and_its_gradients_equal_the_published_formula(model: str, term: str) -> None:
    method = make(model)
    x, x_adv, y = batch()
    ours = getattr(method(x, x_adv, y), term)
    theirs = published(method, x, x_adv, y)[("adversarial", "clean", "invariance").index(term)]
    assert_same_gradients(ours, theirs, method)


def test_the_invariance_term_averages_over_layers_as_if_each_were_alone() -> None:
    x, x_adv, y = batch()
    both = make(layers=["bn2", "bn3"])
    alone = []
    for index, name in enumerate(both.layers):
        single = make(layers=[name])
        single.load_state_dict(
            {
                key.replace(f"predictors.{index}.", "predictors.0."): value
                for key, value in both.state_dict().items()
                if not key.startswith("predictors.") or key.startswith(f"predictors.{index}.")
            }
        )
        alone.append(single(x, x_adv, y).invariance)
    torch.testing.assert_close(both(x, x_adv, y).invariance, sum(alone) / 2)


def test_invariance_gradient_does_not_reach_the_clean_branch() -> None:
    method = make()
    x, x_adv, y = batch()
    x.requires_grad_()
    invariance = method(x, x_adv, y).invariance
    (into_x,) = torch.autograd.grad(invariance, x, retain_graph=True, allow_unused=True)
    assert into_x is None
    for (name, _), gradient in zip(method.named_parameters(), gradients(invariance, method), strict=True):
        if ".clean." in name:
            assert not gradient.any(), name
    assert any(
        g.any()
        for (n, _), g in zip(method.named_parameters(), gradients(invariance, method), strict=True)
        if ".adversarial." in n
    )


def test_each_branch_moves_its_running_statistics_with_its_own_inputs_only() -> None:
    method = make()
    x, x_adv, y = batch()
    first = method.model.get_submodule("bn1")
    assert isinstance(first, split_norm.SplitNorm)
    before = {name: getattr(first, name).running_mean.clone() for name in ("clean", "adversarial")}
    conv = method.model.get_submodule("conv1")
    method(x, x_adv, y)
    for name, inputs in (("clean", x), ("adversarial", x_adv)):
        mean = conv(inputs).mean((0, 2, 3))
        torch.testing.assert_close(getattr(first, name).running_mean, 0.9 * before[name] + 0.1 * mean)


@pytest.mark.parametrize(("attack_norm", "moves"), [("train", True), ("train_frozen_stats", False), ("eval", False)])
def test_the_attack_moves_the_adversarial_statistics_only_in_train_mode(attack_norm: str, moves: bool) -> None:
    method = make(attack_norm=attack_norm)
    x, _, y = batch()
    attack = Pgd(norm="linf", epsilon=0.1, step_size=0.05, steps=3)
    before = {name: value.clone() for name, value in method.named_buffers()}
    method.perturb(x, y, attack, noise(len(y)))
    assert method.training
    changed = {name for name, value in method.named_buffers() if not torch.equal(value, before[name])}
    assert not any(".clean." in name for name in changed)
    assert any("adversarial.running_mean" in name for name in changed) == moves
    assert all(module.track_running_stats for module in method.modules() if isinstance(module, nn.BatchNorm2d))


def test_the_automatic_balance_is_the_clean_branchs_accuracy_to_the_exponent() -> None:
    method = make(balance={"name": "auto", "exponent": 2.0, "images": 7})
    asked: list[tuple[str, int, bool]] = []

    def accuracy(model: nn.Module, images: int, fresh: bool) -> float:
        split = model.get_submodule("bn1")
        assert isinstance(split, split_norm.SplitNorm)
        asked.append((split.active, images, fresh))
        return 0.8

    method.start_epoch(1, accuracy)
    assert asked == [("clean", 7, False)]
    assert method.weight_adversarial == pytest.approx(0.64)
    assert method.weight_clean == pytest.approx(0.04)
    assert method.balance == method.weight_adversarial


def test_the_noisy_centre_is_the_clean_input_and_the_middle_of_the_ball() -> None:
    method = make(noisy_center=True)
    x, _, y = batch()
    attack = Pgd(norm="linf", epsilon=0.1, step_size=0.05, steps=5)
    kept = x.clone()
    center, x_adv = method.perturb(x, y, attack, noise(len(y)))
    assert torch.equal(x, kept)
    assert 0 < (center - x).abs().max() <= 0.1
    assert center.min() < 0 < 1 < center.max()
    assert (x_adv - center.clamp(-0.1, 1.1)).abs().max() <= 0.1 + 1e-9
    assert (x_adv - x).abs().max() > 0.1
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1


def test_the_official_preset_says_what_the_authors_code_does() -> None:
    spec = AratSpec.model_validate({"preset": "official", "invariance_weight": 30, "layers": ["bn3"]})
    assert spec.noisy_center
    assert spec.attack_norm == "train"
    assert spec.balance.name == "auto"
    assert spec.balance.sample == "fresh"
    overridden = AratSpec.model_validate(
        {"preset": "official", "invariance_weight": 30, "layers": ["bn3"], "noisy_center": False}
    )
    assert not overridden.noisy_center


@pytest.mark.parametrize(
    ("balance", "expected"),
    [
        ({"images": 512}, {"name": "auto", "exponent": 1.0, "images": 512, "sample": "fresh"}),
        ({"name": "auto", "exponent": 2}, {"name": "auto", "exponent": 2.0, "images": 1024, "sample": "fresh"}),
        ({"sample": "fixed"}, {"name": "auto", "exponent": 1.0, "images": 1024, "sample": "fixed"}),
        ({"name": "fixed", "adversarial": 0.5}, {"name": "fixed", "adversarial": 0.5, "clean": None}),
    ],
)
def test_what_a_file_says_of_the_balance_goes_before_the_preset_key_by_key(
    balance: dict[str, Any], expected: dict[str, Any]
) -> None:
    spec = AratSpec.model_validate(
        {"preset": "official", "invariance_weight": 30, "layers": ["bn3"], "balance": balance}
    )
    assert spec.balance.model_dump() == expected
    assert AratSpec.model_validate(spec.model_dump()) == spec  # as checkpoints hold it


def test_the_predictor_has_the_papers_shape() -> None:
    predictor = make("resnet18", layers=["layer4.1.bn2"]).predictors[0]
    assert isinstance(predictor, nn.Sequential)
    linear1, norm, relu, linear2 = predictor
    assert isinstance(linear1, nn.Linear)
    assert isinstance(norm, nn.BatchNorm1d)
    assert isinstance(relu, nn.ReLU)
    assert isinstance(linear2, nn.Linear)
    assert (linear1.in_features, linear1.out_features) == (16, 4)
    assert [name for name, _ in linear1.named_parameters()] == ["weight"]
    assert (linear2.in_features, linear2.out_features, linear2.bias is None) == (4, 16, False)
