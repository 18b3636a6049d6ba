"""Batch norm over two real processes, and in which order a network is split and synchronised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from arat_ray.training import split_norm
from arat_ray.training.models import Tiny, Vit
from arat_ray.training.split_norm import SplitNorm, attack_norm, convert, is_norm, synchronize
from tests.training.two_workers import group, started

CPU = torch.device("cpu")


def tiny() -> nn.Module:
    torch.manual_seed(0)
    return Tiny(width=2).build((1, 8, 8), 4).double()


ROWS = (slice(0, 3), slice(3, 8))  # of 8 images: workers need not have equally many
CASES = ("train", "train_frozen_stats", "eval", "features", "constant", "cumulative")


def norm_layer(case: str) -> nn.Module:
    torch.manual_seed(0)
    layer = nn.BatchNorm1d(4) if case == "features" else nn.BatchNorm2d(4)
    layer = layer.to(torch.float32 if case == "constant" else torch.float64)
    for name, value in layer.state_dict().items():
        if name != "num_batches_tracked":
            value.copy_(torch.rand_like(value) + 0.5)
    if case == "cumulative":  # the average over all batches, of which this is the third
        layer.momentum = None
        layer.state_dict()["num_batches_tracked"].fill_(2)
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
    mode: Any = case if case in ("train_frozen_stats", "eval") else "train"
    with attack_norm(layer.train(), mode):
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
    with group(rank, folder):
        layers = {case: synchronize(norm_layer(case), CPU) for case in CASES}
        outcomes = {case: outcome(layers[case], case, ROWS[rank]) for case in CASES}
    torch.save(outcomes, folder / f"{rank}.pt")
    return outcomes


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Each case's outcome in this process and in another."""
    folder = tmp_path_factory.mktemp("workers")
    other = started(worker, 1, folder)
    mine = worker(0, folder)
    other.join(60)
    return [mine, torch.load(folder / "1.pt")]


@pytest.mark.parametrize("case", ["train", "train_frozen_stats", "eval", "features", "cumulative"])
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
    x = torch.rand(6, 1, 8, 8, dtype=torch.float64)
    before, after = tiny().train(), synchronize(tiny(), CPU).train()
    assert not any(type(module) is nn.BatchNorm2d for module in after.modules())
    torch.testing.assert_close(after(x), before(x))
    torch.testing.assert_close(dict(after.named_buffers()), dict(before.named_buffers()))
    assert after.state_dict().keys() == before.state_dict().keys()


def test_a_cumulative_average_weighs_all_batches_alike(two_workers: list[Any]) -> None:
    before = norm_layer("cumulative").state_dict()["0.running_mean"]
    expected = (2 * before + batch("cumulative")[0].mean((0, 2, 3))) / 3
    for workers in two_workers:
        statistics = workers["cumulative"]["statistics"]
        torch.testing.assert_close(statistics["0.running_mean"], expected)
        assert statistics["0.num_batches_tracked"] == 3


@pytest.mark.parametrize("order", ["convert, synchronize", "synchronize, convert"])
def test_synchronising_reaches_both_branches_before_and_after_conversion(order: str) -> None:
    model = tiny()
    for step in order.split(", "):
        model = convert(model) if step == "convert" else synchronize(model, CPU)
    found = [module for module in model.modules() if isinstance(module, SplitNorm)]
    assert len(found) == 3
    assert all(type(norm.clean) is type(norm.adversarial) is split_norm.SyncBatchNorm for norm in found)
    assert all(norm.clean.weight is not norm.adversarial.weight for norm in found)
    assert not any(type(module) is nn.BatchNorm2d for module in model.modules())
    assert model.state_dict().keys() == convert(tiny()).state_dict().keys()


@pytest.mark.parametrize("order", ["convert, synchronize", "synchronize, convert"])
def test_on_a_gpu_both_orders_give_torchs_own_synchronised_norm(order: str) -> None:
    model, device = tiny(), torch.device("cuda")
    for step in order.split(", "):
        model = convert(model) if step == "convert" else synchronize(model, device)
    found = [module for module in model.modules() if isinstance(module, SplitNorm)]
    assert len(found) == 3
    assert all(type(norm.clean) is type(norm.adversarial) is nn.SyncBatchNorm for norm in found)


@pytest.mark.parametrize("spec", [Tiny(width=4, norm="group"), Vit(patch=2, width=8, depth=1, heads=2)])
def test_synchronising_leaves_norms_without_statistics_alone(spec: Tiny | Vit) -> None:
    model = convert(spec.build((1, 8, 8), 4))
    before = [module for module in model.modules() if is_norm(module)]
    assert [module for module in synchronize(model, CPU).modules() if is_norm(module)] == before
