"""Split normalisation, the deployed network, and norm layers while an attack runs."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from arat_ray.training import split_norm as branches
from arat_ray.training.models import MODELS, Tiny
from arat_ray.training.split_norm import SplitNorm, attack_norm, branch, convert, deployed

SMALL: dict[str, dict[str, Any]] = {
    "resnet18": {"width": 2},
    "wide_resnet": {"depth": 10, "width": 1},
    "preact_resnet18": {"width": 2},
    "vit": {"patch": 2, "width": 8, "depth": 2, "heads": 2},
    "tiny": {"width": 2},
}


def plain(name: str = "tiny", seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    spec: Any = MODELS[name]
    model: nn.Module = spec(**SMALL[name]).build((1, 8, 8), 4).double()
    return model


def grouped() -> nn.Module:
    torch.manual_seed(0)
    return Tiny(width=4, norm="group").build((1, 8, 8), 4).double()


def split(name: str = "tiny", seed: int = 0) -> nn.Module:
    """A converted network whose two branches, running statistics too, differ."""
    model = convert(plain(name, seed))
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if (".clean." in key or ".adversarial." in key) and value.is_floating_point():
                value.add_(torch.rand_like(value))
    return model


def images(n: int = 6) -> Tensor:
    torch.manual_seed(1)
    return torch.rand(n, 1, 8, 8, dtype=torch.float64)


def norms(model: nn.Module) -> list[Any]:
    kinds = (nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)
    return [module for module in model.modules() if isinstance(module, kinds)]


# split networks


@pytest.mark.parametrize("name", list(MODELS))
def test_conversion_doubles_the_norms_and_nothing_else(name: str) -> None:
    before, after = plain(name), convert(plain(name))
    assert len(norms(after)) == 2 * len(norms(before))
    others = {key: value for key, value in before.named_parameters() if not _is_norm(before, key)}
    kept = {
        key: value for key, value in after.named_parameters() if ".clean." not in key and ".adversarial." not in key
    }
    assert others.keys() == kept.keys()
    assert all(torch.equal(others[key], kept[key]) for key in others)


def _is_norm(model: nn.Module, parameter: str) -> bool:
    return model.get_submodule(parameter.rpartition(".")[0]) in norms(model)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", list(MODELS))
def test_both_branches_start_equal_to_the_plain_network(name: str, training: bool) -> None:
    before, after = plain(name).train(training), convert(plain(name)).train(training)
    expected = before(images())
    assert torch.equal(after(images()), expected)
    with branch(after, "clean"):
        assert torch.equal(after(images()), expected)
    for module in after.modules():
        if isinstance(module, SplitNorm):
            pairs = zip(module.adversarial.parameters(), module.clean.parameters(), strict=True)
            assert all(a.data_ptr() != c.data_ptr() for a, c in pairs)


LAYERS = [nn.BatchNorm1d(4), nn.BatchNorm2d(4), nn.BatchNorm3d(4), nn.SyncBatchNorm(4), nn.LayerNorm(4)]
LAYERS += [nn.GroupNorm(2, 4), branches.SyncBatchNorm(4)]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
def test_every_kind_of_norm_layer_is_split(layer: nn.Module) -> None:
    assert branches.is_norm(layer)
    assert branches.has_norm(nn.Sequential(nn.ReLU(), nn.Sequential(layer)))
    split = convert(copy.deepcopy(layer))
    assert isinstance(split, SplitNorm)
    assert type(split.clean) is type(split.adversarial) is type(layer)
    assert type(deployed(split)) is type(layer)


def test_what_is_split_already_stays_as_it_is() -> None:
    model = split()
    before = model.state_dict()
    assert convert(model).state_dict().keys() == before.keys()
    assert convert(convert(nn.LayerNorm(3))).state_dict().keys() == convert(nn.LayerNorm(3)).state_dict().keys()


def test_a_network_without_norm_layers_has_nothing_to_split() -> None:
    model = Tiny(width=2, norm="none").build((1, 8, 8), 4)
    assert not branches.has_norm(model)
    before = model.state_dict()
    assert convert(model).state_dict().keys() == before.keys()
    assert all(branches.has_norm(plain(name)) and branches.has_norm(split(name)) for name in MODELS)


def test_the_branches_of_group_norms_are_chosen_and_folded_like_those_of_batch_norms() -> None:
    model = convert(grouped()).train()
    with torch.no_grad():
        for key, value in model.named_parameters():
            if ".clean." in key:
                value.add_(torch.rand_like(value))
    with branch(model, "clean"):
        clean = model(images())
    adversarial = model(images())
    assert not torch.allclose(clean, adversarial)
    assert torch.equal(adversarial, grouped()(images()))
    assert torch.equal(deployed(model)(images()), adversarial)


def test_the_adversarial_branch_serves_again_after_the_block_and_after_an_exception() -> None:
    model = split()
    adversarial = model.eval()(images())
    with branch(model, "clean"):
        clean = model(images())
    assert not torch.allclose(clean, adversarial)
    assert torch.equal(model(images()), adversarial)
    with pytest.raises(KeyboardInterrupt), branch(model, "clean"):
        raise KeyboardInterrupt
    assert torch.equal(model(images()), adversarial)


def test_choosing_a_branch_of_a_plain_network_changes_nothing() -> None:
    model = plain().eval()
    expected = model(images())
    with branch(model, "clean"):
        assert torch.equal(model(images()), expected)


@pytest.mark.parametrize("name", list(MODELS))
def test_the_deployed_network_is_a_plain_one_with_the_adversarial_logits(name: str) -> None:
    model = split(name).eval()
    folded = deployed(model)
    assert not any(isinstance(module, SplitNorm) for module in folded.modules())
    assert folded.state_dict().keys() == plain(name).state_dict().keys()
    assert torch.equal(folded(images()), model(images()))
    loaded = plain(name, seed=9).eval()
    loaded.load_state_dict(folded.state_dict())
    assert torch.equal(loaded(images()), model(images()))


def test_the_deployed_network_shares_nothing_with_the_one_it_was_taken_from() -> None:
    model = split().eval()
    kept, before = copy.deepcopy(model.state_dict()), model(images())
    folded = deployed(model)
    with torch.no_grad():
        for value in folded.state_dict().values():
            value.zero_()
    folded.train()
    folded.get_submodule("conv1").register_forward_hook(lambda module, inputs, output: output + 1)
    folded.get_submodule("avgpool").register_forward_hook(lambda module, inputs, output: output + 1)
    assert all(torch.equal(value, kept[key]) for key, value in model.state_dict().items())
    assert torch.equal(model(images()), before)
    assert any(isinstance(module, SplitNorm) for module in model.modules())


def test_a_split_networks_state_is_saved_and_loaded_with_both_branches() -> None:
    model, other = split(seed=0).eval(), split(seed=1).eval()
    other.load_state_dict(model.state_dict())
    for name in ("adversarial", "clean"):
        with branch(model, name), branch(other, name):
            assert torch.equal(model(images()), other(images()))


# norm layers while an attack runs


@pytest.mark.parametrize("split_norm", [False, True])
@pytest.mark.parametrize(
    ("mode", "batch_statistics", "moves"),
    [("train", True, True), ("train_frozen_stats", True, False), ("eval", False, False)],
)
def test_each_mode_uses_and_moves_the_statistics_it_says(
    mode: branches.AttackNorm, batch_statistics: bool, moves: bool, split_norm: bool
) -> None:
    model = (split() if split_norm else plain()).train()
    model(images(10))  # running statistics that are not those of the batch
    expected = copy.deepcopy(model).train(batch_statistics)(images())
    before = copy.deepcopy(model.state_dict())
    with attack_norm(model, mode):
        assert torch.equal(model(images()), expected)
    moved = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert any("running_mean" in key for key in moved) == moves
    assert not any(".clean." in key for key in moved)
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("mode", ["train", "train_frozen_stats", "eval"])
def test_training_goes_on_as_before_after_an_exception_in_the_attack(mode: branches.AttackNorm) -> None:
    model = plain().train()
    with pytest.raises(KeyboardInterrupt), attack_norm(model, mode):
        raise KeyboardInterrupt
    assert all(module.training for module in model.modules())
    model(images())
    assert all(int(norm.num_batches_tracked or 0) == 1 for norm in norms(model))


@pytest.mark.parametrize("mode", ["train", "train_frozen_stats", "eval"])
def test_norms_without_statistics_compute_the_same_in_all_modes(mode: branches.AttackNorm) -> None:
    for model in (grouped().train(), plain("vit").train()):
        expected, before = model(images()), copy.deepcopy(model.state_dict())
        with attack_norm(model, mode):
            torch.testing.assert_close(model(images()), expected, rtol=0, atol=0)
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
        assert all(module.training for module in model.modules())


@pytest.mark.parametrize("mode", ["train", "train_frozen_stats", "eval"])
def test_a_batch_norm_built_without_running_statistics_keeps_none(mode: branches.AttackNorm) -> None:
    model = nn.Sequential(nn.BatchNorm1d(3, track_running_stats=False), nn.BatchNorm1d(3)).train()
    with attack_norm(model, mode):
        model(torch.rand(4, 3))
    assert [norm.track_running_stats for norm in model] == [False, True]
