"""Split normalisation, the deployed network, and batch norm over two real processes."""

from __future__ import annotations

import copy
import multiprocessing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from arat_ray.training import branches
from arat_ray.training.branches import SplitNorm, attack_norm, branch, convert, deployed, synchronize
from arat_ray.training.models import MODELS, Tiny

SMALL: dict[str, dict[str, Any]] = {
    "resnet18": {"width": 2},
    "wide_resnet": {"depth": 10, "width": 1},
    "tiny": {"width": 2},
}


def plain(name: str = "tiny", seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    spec: Any = MODELS[name]
    model: nn.Module = spec(**SMALL[name]).build(1, 4).double()
    return model


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


def norms(model: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


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
    return isinstance(model.get_submodule(parameter.rpartition(".")[0]), nn.BatchNorm2d)


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


def test_a_lone_norm_layer_is_converted_too() -> None:
    assert isinstance(convert(nn.BatchNorm1d(3)), SplitNorm)


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


# statistics over all workers

ROWS = (slice(0, 3), slice(3, 8))  # of 8 images: workers need not have equally many
CASES = ("train", "train_frozen_stats", "eval", "features", "constant")


def norm_layer(case: str) -> nn.Module:
    torch.manual_seed(0)
    layer = nn.BatchNorm1d(4) if case == "features" else nn.BatchNorm2d(4)
    layer = layer.to(torch.float32 if case == "constant" else torch.float64)
    for name, value in layer.state_dict().items():
        if name != "num_batches_tracked":
            value.copy_(torch.rand_like(value) + 0.5)
    return nn.Sequential(layer)


def batch(case: str) -> tuple[Tensor, Tensor]:
    """All workers' inputs [8, 4, ...], and what each output weighs in the loss."""
    torch.manual_seed(1)
    shape = (8, 4) if case == "features" else (8, 4, 3, 2)
    x = 3 * torch.rand(shape, dtype=torch.float64) - 1
    if case == "constant":
        return torch.full(shape, 1000.1, dtype=torch.float32), torch.rand(shape)
    return x, torch.rand(shape, dtype=torch.float64)


def outcome(layer: nn.Module, case: str, rows: slice) -> dict[str, Any]:
    """Output, gradients and statistics after one step with some of the rows."""
    x, weight = batch(case)
    x = x[rows].clone().requires_grad_()
    with attack_norm(layer.train(), "train" if case in ("features", "constant") else case):  # type: ignore[arg-type]
        out = layer(x)
    (out * weight[rows]).sum().backward()
    return {
        "output": out.detach(),
        "input gradient": x.grad,
        "parameter gradients": [parameter.grad for parameter in layer.parameters()],
        "statistics": dict(layer.named_buffers()),
    }


def worker(rank: int, folder: Path) -> dict[str, Any]:
    """Each case's outcome with this worker's rows; kept as a file, too."""
    store = f"file://{folder / 'store'}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2, timeout=timedelta(minutes=3))
    try:
        layers = {case: synchronize(norm_layer(case), torch.device("cpu")) for case in CASES}
        outcomes = {case: outcome(layers[case], case, ROWS[rank]) for case in CASES}
    finally:
        dist.destroy_process_group()
    torch.save(outcomes, folder / f"{rank}.pt")
    return outcomes


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Each case's outcome in this process and in another."""
    folder = tmp_path_factory.mktemp("workers")
    other = multiprocessing.get_context("spawn").Process(target=worker, args=(1, folder), daemon=True)
    other.start()
    mine = worker(0, folder)
    other.join(60)
    return [mine, torch.load(folder / "1.pt")]


@pytest.mark.parametrize("case", ["train", "train_frozen_stats", "eval", "features"])
def test_two_workers_normalise_as_one_with_all_their_images(case: str, two_workers: list[Any]) -> None:
    expected = outcome(norm_layer(case), case, slice(None))
    first, second = (workers[case] for workers in two_workers)
    for what in ("output", "input gradient"):
        torch.testing.assert_close(torch.cat([first[what], second[what]]), expected[what])
    summed = [a + b for a, b in zip(first["parameter gradients"], second["parameter gradients"], strict=True)]
    torch.testing.assert_close(summed, expected["parameter gradients"])
    for found in (first, second):
        torch.testing.assert_close(found["statistics"], expected["statistics"])


def test_a_constant_channel_is_normalised_to_its_bias_and_not_to_nan(two_workers: list[Any]) -> None:
    layer = norm_layer("constant")
    bias = dict(layer.named_parameters())["0.bias"]
    for workers in two_workers:
        found = workers["constant"]
        assert found["input gradient"].isfinite().all()
        expected = bias.detach().view(1, 4, 1, 1).expand_as(found["output"])
        torch.testing.assert_close(found["output"], expected, atol=0.1, rtol=0)


def test_without_other_workers_a_synchronised_norm_is_a_batch_norm() -> None:
    before, after = plain().train(), synchronize(plain(), torch.device("cpu")).train()
    assert not any(type(module) is nn.BatchNorm2d for module in after.modules())
    torch.testing.assert_close(after(images()), before(images()))
    torch.testing.assert_close(dict(after.named_buffers()), dict(before.named_buffers()))
    assert after.state_dict().keys() == before.state_dict().keys()


def test_synchronising_reaches_both_branches_of_a_split_norm() -> None:
    model = synchronize(convert(Tiny(width=2).build(1, 4)), torch.device("cpu"))
    found = [module for module in model.modules() if isinstance(module, branches.SyncBatchNorm)]
    assert len(found) == 2 * 3
    assert not norms(model)
