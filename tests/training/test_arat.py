"""ARAT's objective against an independent computation of the published formula, in float64."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from arat_ray.training import branches
from arat_ray.training.attacks import Pgd
from arat_ray.training.methods import Arat, AratSpec
from arat_ray.training.models import MODELS
from arat_ray.training.randomness import Noise, generator

SHAPE = (1, 8, 8)
LAYERS = {"tiny": ("bn2", "bn3"), "resnet18": ("layer4.*.bn?",), "wide_resnet": ("block3.layer.*.relu?", "avgpool")}


def make(model: str = "tiny", **fields: Any) -> Arat:
    """A small ARAT in float64 train mode, its two norm branches made different, its balance 0.3 to 0.7."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"tiny": {"width": 3}, "resnet18": {"width": 2}, "wide_resnet": {"depth": 10, "width": 1}}
    network = MODELS[model](**sizes[model]).build(1, 4)
    fields = {
        "invariance_weight": 7.0,
        "layers": LAYERS[model],
        "balance": {"name": "fixed", "adversarial": 0.3},
    } | fields
    method = AratSpec.model_validate({"name": "arat", **fields}).build(network, SHAPE).double()
    assert isinstance(method, Arat)
    with torch.no_grad():
        for name, value in method.named_parameters():
            if ".clean." in name or ".adversarial." in name:
                value.add_(0.3 * torch.rand_like(value))
    method.start_epoch(lambda model, images, fresh: math.nan)
    return method.train()


def batch(images: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    x = torch.rand(images, *SHAPE, dtype=torch.float64)
    return x, (x + 0.1 * torch.randn_like(x)).clamp(0, 1), torch.arange(images) % 4


def features_of(method: Arat, branch: branches.Branch, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Logits and pooled features by plain hooks, without the code under test but for the choice of branch."""
    found: dict[str, Tensor] = {}
    modules = dict(method.model.named_modules())

    def keep(name: str) -> Any:
        return modules[name].register_forward_hook(lambda module, inputs, out: found.__setitem__(name, out))

    handles = [keep(name) for name in method.layers]
    for module in method.model.modules():
        if isinstance(module, branches.SplitNorm):
            module.active = branch
    logits = method.model(x)
    for handle in handles:
        handle.remove()
    return logits, [found[name].clamp(min=0).flatten(2).sum(2) / found[name][0, 0].numel() for name in method.layers]


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    exponentials = (logits - logits.max(1, keepdim=True).values).exp()
    return -(exponentials[torch.arange(len(y)), y] / exponentials.sum(1)).log().mean()


def published(method: Arat, x: Tensor, x_adv: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The three terms of the objective, from the formula."""
    logits_clean, clean = features_of(method, "clean", x)
    logits_adv, adversarial = features_of(method, "adversarial", x_adv)
    terms = []
    for predictor, z_adv, z in zip(method.predictors, adversarial, clean, strict=True):
        p, z = predictor(z_adv), z.detach()
        terms.append(1 - ((p * z).sum(1) / (p.square().sum(1).sqrt() * z.square().sum(1).sqrt())).mean())
    return (
        0.3 * cross_entropy(logits_adv, y),
        0.7 * cross_entropy(logits_clean, y),
        7.0 / len(terms) * sum(terms, start=torch.zeros((), dtype=torch.float64)),
    )


def gradients(loss: Tensor, method: nn.Module) -> list[Tensor]:
    found = torch.autograd.grad(loss, list(method.parameters()), retain_graph=True, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(method.parameters(), found, strict=True)]


@pytest.mark.parametrize("model", list(MODELS))
@pytest.mark.parametrize("term", ["adversarial", "clean", "invariance"])
def test_each_term_and_its_gradients_equal_the_published_formula(model: str, term: str) -> None:
    method = make(model)
    x, x_adv, y = batch()
    ours = getattr(method(x, x_adv, y), term)
    theirs = published(method, x, x_adv, y)[("adversarial", "clean", "invariance").index(term)]
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    for mine, wanted in zip(gradients(ours, method), gradients(theirs, method), strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-8, atol=1e-10)


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


def test_without_stop_gradient_the_invariance_gradient_does_reach_the_clean_branch() -> None:
    method = make(stop_gradient=False)
    x, x_adv, y = batch()
    x.requires_grad_()
    (into_x,) = torch.autograd.grad(method(x, x_adv, y).invariance, x)
    assert into_x.abs().sum() > 0


def test_each_branch_moves_its_running_statistics_with_its_own_inputs_only() -> None:
    method = make()
    x, x_adv, y = batch()
    first = method.model.get_submodule("bn1")
    assert isinstance(first, branches.SplitNorm)
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
    method.perturb(x, y, attack, Noise(generator("cpu", 0), len(y)))
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
        assert isinstance(split, branches.SplitNorm)
        asked.append((split.active, images, fresh))
        return 0.8

    method.start_epoch(accuracy)
    assert asked == [("clean", 7, False)]
    assert method.weight_adversarial == pytest.approx(0.64)
    assert method.weight_clean == pytest.approx(0.04)
    assert method.balance == method.weight_adversarial


def test_the_noisy_centre_is_the_clean_input_and_the_middle_of_the_ball() -> None:
    method = make(noisy_center=True)
    x, _, y = batch()
    attack = Pgd(norm="linf", epsilon=0.1, step_size=0.05, steps=5)
    kept = x.clone()
    center, x_adv = method.perturb(x, y, attack, Noise(generator("cpu", 0), len(y)))
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


def test_without_a_predictor_the_feature_itself_is_compared() -> None:
    method = make(predictor=None)
    x, x_adv, y = batch()
    torch.testing.assert_close(method(x, x_adv, y).invariance, published(method, x, x_adv, y)[2])


def test_without_split_norm_there_is_one_set_of_statistics() -> None:
    method = make(split_norm=False)
    assert not any(isinstance(module, branches.SplitNorm) for module in method.modules())
    x, x_adv, y = batch()
    assert torch.isfinite(method(x, x_adv, y).total)
