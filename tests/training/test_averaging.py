"""Averaged weights by their formulas, and norm statistics by an independent pass over the inputs each branch serves."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from arat_ray.training import split_norm
from arat_ray.training.attacks import Pgd
from arat_ray.training.averaging import Average, Averaging, Ema, Swa
from arat_ray.training.methods import METHODS, Losses, Method, MethodSpec, Task
from arat_ray.training.models import Tiny
from arat_ray.training.randomness import Noise, generator
from tests.training.two_workers import both, group

SHAPE = (1, 8, 8)
BATCH = 6
NEEDED: dict[str, dict[str, Any]] = {
    "arat": {"invariance_weight": 5, "layers": ["bn2", "avgpool"], "balance": {"name": "fixed", "adversarial": 0.3}},
    "arrest": {"standard_epochs": 1},
}
ATTACK = Pgd(norm="linf", epsilon=0.2, step_size=0.1, steps=2)


def build(name: str = "pgd_at", norm: str = "batch", **fields: Any) -> Method:
    """A small method in float64 train mode, past the first epoch, its norm branches different."""
    torch.manual_seed(0)
    model = Tiny.model_validate({"width": 3, "norm": norm})
    spec: Any = TypeAdapter(MethodSpec).validate_python({"name": name, **NEEDED.get(name, {}), **fields})
    method: Method = spec.build(model.build(SHAPE, 4), Task(model, SHAPE, 4)).double()
    with torch.no_grad():
        for value in method.parameters():
            value.add_(0.1 * torch.randn_like(value))
    method.start_epoch(2, lambda network, images, fresh: 0.5)
    return method.train()


def average(method: Method, spec: Swa | Ema | None = None, steps_per_epoch: int = 1, epochs: int = 10) -> Average:
    return Average(spec or Swa(start=0), method, steps_per_epoch=steps_per_epoch, epochs=epochs)


def batches(count: int = 4) -> list[tuple[Tensor, Tensor]]:
    torch.manual_seed(1)
    return [(torch.rand(BATCH, *SHAPE, dtype=torch.float64), torch.arange(BATCH) % 4) for _ in range(count)]


def noise(seed: int = 3) -> Noise:
    return Noise(generator("cpu", seed), BATCH)


def step_on(method: Method, seed: int) -> dict[str, Tensor]:
    """Move the parameters as an optimiser would; where they are now."""
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in method.parameters():
            if value.requires_grad:
                value.add_(0.05 * torch.randn(value.shape, generator=draws, dtype=value.dtype))
    return {name: value.detach().clone() for name, value in method.named_parameters()}


def statistics(method: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in method.named_buffers() if "running" in name}


def assert_parameters(method: Method, expected: dict[str, Tensor]) -> None:
    for name, value in method.named_parameters():
        torch.testing.assert_close(value, expected[name])


@pytest.mark.parametrize("name", ["pgd_at", "arat", "lbgat"])
def test_swa_is_the_mean_of_the_snapshots(name: str) -> None:
    method = build(name)
    averaged = average(method, Swa(start=0.5, every=2), steps_per_epoch=3, epochs=4)
    snapshots = []
    for step in range(1, 13):
        weights = step_on(method, step)
        averaged.update(method, step=step)
        if step in (8, 10, 12):  # even, and after more than half of the twelve steps
            snapshots.append(weights)
        assert averaged.started == (step >= 8)
    mean = {name: torch.stack([weights[name] for weights in snapshots]).mean(0) for name in snapshots[0]}
    assert_parameters(averaged.method, mean)


def test_by_default_swa_takes_a_snapshot_at_the_end_of_each_epoch_after_the_first_decay() -> None:
    taken = [step for step in range(1, 1001) if Swa().takes(step, steps_per_epoch=10, steps=1000)]
    assert taken == [10 * epoch for epoch in range(77, 101)]


def test_ema_follows_its_formula_with_the_warm_up_of_the_decay() -> None:
    method = build()
    averaged = average(method, Ema(decay=0.3), steps_per_epoch=5, epochs=1)
    first, *rest = (step_on(method, seed) for seed in range(5))
    expected = first
    method.load_state_dict(first, strict=False)
    averaged.update(method, step=1)
    # (1 + n) / (10 + n) for n = 1, 2, 3 is 2/11, 3/12, 4/13, of which the last is above 0.3
    for step, (weights, decay) in enumerate(zip(rest, (2 / 11, 3 / 12, 0.3, 0.3), strict=True), start=2):
        method.load_state_dict(weights, strict=False)
        averaged.update(method, step=step)
        expected = {name: decay * expected[name] + (1 - decay) * weights[name] for name in weights}
    assert_parameters(averaged.method, expected)


def test_ema_starts_from_the_weights_after_its_start_not_from_the_initial_ones() -> None:
    method = build()
    averaged = average(method, Ema(start=0.5))
    for step in range(1, 7):
        weights = step_on(method, step)
        averaged.update(method, step=step)
        assert averaged.started == (step == 6)
    assert_parameters(averaged.method, weights)


def test_the_trained_method_is_not_touched_and_no_gradient_reaches_the_average() -> None:
    method = build("arat")
    before = copy.deepcopy(method.state_dict())
    averaged = average(method)
    averaged.update(method, step=1)
    averaged.estimate_norms(method, batches(), ATTACK, noise())
    for name, value in method.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(value.requires_grad and value.grad is None for value in method.parameters())
    assert not any(value.requires_grad for value in averaged.method.parameters())
    assert method.attack_norm == averaged.method.attack_norm == "train"


def keep_input(seen: list[Tensor]) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    return lambda module, given, out: seen.append(given[0].transpose(0, 1))


def independent(method: Method, inputs: dict[split_norm.Branch, list[Tensor]]) -> dict[str, Tensor]:
    """Mean over batches of batch means and unbiased variances of what enters each norm of the network."""
    method = copy.deepcopy(method)
    entering: dict[str, list[Tensor]] = {}
    for name, module in method.model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            entering[f"model.{name}"] = []
            module.register_forward_hook(keep_input(entering[f"model.{name}"]))
    with torch.no_grad():
        for branch, images in inputs.items():
            with split_norm.branch(method.model, branch):
                for x in images:
                    method.model(x)
    expected = {}
    for name, seen in entering.items():
        flat = [values.flatten(1) for values in seen]
        expected[f"{name}.running_mean"] = torch.stack([values.mean(1) for values in flat]).mean(0)
        expected[f"{name}.running_var"] = torch.stack([values.var(1, correction=1) for values in flat]).mean(0)
    return expected


def averaged_after_steps(method: Method) -> Average:
    averaged = average(method)
    for step in (1, 2, 3):
        step_on(method, step)
        averaged.update(method, step=step)
    return averaged


def attacked(averaged: Average, draws: Noise) -> tuple[list[Tensor], list[Tensor]]:
    """Clean images, and what the attack on the averaged network makes of them."""
    method = copy.deepcopy(averaged.method)
    x_advs = [method.perturb(x, y, ATTACK, draws)[1] for x, y in batches()]
    return [x for x, _ in batches()], x_advs


def test_a_shared_norm_of_pgd_at_sees_adversarial_images_only() -> None:
    method = build("pgd_at")
    averaged = averaged_after_steps(method)
    _, x_adv = attacked(averaged, noise())
    averaged.estimate_norms(method, batches(), ATTACK, noise())
    found = statistics(averaged.method)
    expected = independent(averaged.method, {"adversarial": x_adv})
    assert found.keys() == expected.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name])


def test_each_branch_of_arat_sees_the_images_that_it_serves() -> None:
    method = build("arat")
    averaged = averaged_after_steps(method)
    clean, x_adv = attacked(averaged, noise())
    averaged.estimate_norms(method, batches(), ATTACK, noise())
    found = statistics(averaged.method)
    expected = independent(averaged.method, {"adversarial": x_adv, "clean": clean})
    assert {name for name in found if name.startswith("model.")} == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)
    assert not torch.allclose(found["model.bn1.clean.running_var"], found["model.bn1.adversarial.running_var"])
    with torch.no_grad():  # and a predictor's norm sees features of adversarial images
        network = copy.deepcopy(averaged.method.model)
        pooled: list[Tensor] = []
        network.get_submodule("bn2").register_forward_hook(
            lambda module, given, out: pooled.append(F.relu(out).mean((2, 3)))
        )
        for x in x_adv:
            network(x)
        predictor = averaged.method.get_submodule("predictors.0.0")
        hidden = torch.stack([predictor(features).mean(0) for features in pooled]).mean(0)
    torch.testing.assert_close(found["predictors.0.1.running_mean"], hidden)


def test_without_an_attack_the_norms_see_clean_images() -> None:
    method = build("standard")
    averaged = averaged_after_steps(method)
    averaged.estimate_norms(method, batches(), None, noise())
    expected = independent(averaged.method, {"adversarial": [x for x, _ in batches()]})
    for name, value in statistics(averaged.method).items():
        torch.testing.assert_close(value, expected[name])


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("spec", [Swa(start=0), Ema()])
def test_every_method_is_averaged_and_its_attack_leaves_the_statistics_alone(name: str, spec: Swa | Ema) -> None:
    method = build(name)
    averaged = average(method, spec)
    step_on(method, 0)
    averaged.update(method, step=1)
    attack_norm = method.attack_norm
    moments: list[dict[str, Tensor]] = []
    averaged.estimate_norms(method, batches(3), ATTACK, noise())
    trained = averaged.method
    norms = [norm for norm in trained.model.modules() if isinstance(norm, nn.BatchNorm2d)]
    assert norms
    assert all(norm.momentum == 0.1 and norm.track_running_stats and norm.training for norm in norms)
    tracked = {int(norm.num_batches_tracked) for norm in norms if norm.num_batches_tracked is not None}
    passes = {"trades": 2, "mart": 2, "lbgat": 2}.get(name, 1)  # those send x and x' through one norm
    assert tracked == {3 * passes}
    assert trained.attack_norm == attack_norm
    moments.append(statistics(trained))
    averaged.estimate_norms(method, batches(3), ATTACK, noise())
    moments.append(statistics(averaged.method))
    if name != "arrest":  # whose replay asks the running statistics, those of the training in the first batch
        for key, value in moments[0].items():
            assert torch.equal(value, moments[1][key])


def test_the_state_of_the_epoch_comes_along() -> None:
    method = build("arat", balance={"name": "auto"})
    averaged = average(method)
    method.start_epoch(3, lambda network, images, fresh: 0.25)
    averaged.update(method, step=1)
    averaged.estimate_norms(method, batches(), ATTACK, noise())
    assert averaged.method.balance == 0.25


class Taught(Method):
    """A method with a frozen network, whose norms, too, stay as they are."""

    def __init__(self) -> None:
        super().__init__(build().model)
        self.teacher = build().model.requires_grad_(False)

    def forward(self, x: Tensor, x_adv: Tensor, y: Tensor) -> Losses:
        self.teacher.eval()
        logits, target = self.model(x_adv), self.teacher(x)
        zero = logits.new_zeros(())
        return Losses(F.mse_loss(logits, target), zero, zero)


def test_a_frozen_teacher_stays_as_it_is() -> None:
    method = Taught().train()
    averaged = averaged_after_steps(method)
    with torch.no_grad():
        for value in method.teacher.buffers():
            value.add_(1)
    averaged.estimate_norms(method, batches(), ATTACK, noise())
    for name, value in method.teacher.state_dict().items():
        assert torch.equal(averaged.method.get_submodule("teacher").state_dict()[name], value)


@pytest.mark.parametrize("norm", ["none", "group"])
def test_a_network_without_statistics_is_not_attacked(norm: str) -> None:
    def forbidden() -> Iterator[tuple[Tensor, Tensor]]:
        pytest.fail("asked for images")
        yield

    method = build("pgd_at", norm)
    averaged = average(method)
    weights = step_on(method, 0)
    averaged.update(method, step=1)
    averaged.estimate_norms(method, forbidden(), ATTACK, noise())
    assert_parameters(averaged.method, weights)


@pytest.mark.parametrize("spec", [Swa(start=0.2), Ema(decay=0.5)])
def test_a_resumed_average_equals_an_uninterrupted_one_bit_for_bit(spec: Swa | Ema) -> None:
    method, file = build("arat"), io.BytesIO()
    averaged = average(method, spec)
    for step in range(1, 11):
        step_on(method, step)
        averaged.update(method, step=step)
        if step == 5:
            averaged.estimate_norms(method, batches(2), ATTACK, noise(1))
            torch.save({"method": method.state_dict(), "average": averaged.state_dict()}, file)
    averaged.estimate_norms(method, batches(), ATTACK, noise(2))
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    again = build("arat")
    resumed = average(again, spec)
    again.load_state_dict(saved["method"])
    resumed.load_state_dict(saved["average"])
    for step in range(6, 11):
        step_on(again, step)
        resumed.update(again, step=step)
    resumed.estimate_norms(again, batches(), ATTACK, noise(2))
    assert resumed.taken == averaged.taken
    for name, value in averaged.method.state_dict().items():
        assert torch.equal(resumed.method.state_dict()[name], value)


def test_the_memory_layout_of_the_network_is_kept() -> None:
    method: Method = build("arat").to(memory_format=torch.channels_last)
    averaged = averaged_after_steps(method)
    averaged.estimate_norms(method, batches(), ATTACK, noise())
    weight = averaged.method.model.get_parameter("conv2.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last)


def one_worker(rank: int, folder: Path) -> None:
    with group(rank, folder):
        method = build("pgd_at")
        averaged = average(method)
        averaged.update(method, step=1)
        mine = [(x[rank::2], y[rank::2]) for x, y in batches()]
        averaged.estimate_norms(method, mine, None, noise())
        torch.save(statistics(averaged.method), folder / f"{rank}.pt")


def test_workers_agree_on_the_mean_of_their_statistics(tmp_path: Path) -> None:
    assert both(one_worker, tmp_path) == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    halves = [x[rank::2] for rank in range(2) for x, _ in batches()]
    expected = independent(build("pgd_at"), {"adversarial": halves})
    for name, value in first.items():
        torch.testing.assert_close(value, expected[name])
        assert torch.equal(value, second[name])


def test_an_average_that_would_take_no_snapshot_is_refused() -> None:
    with pytest.raises(ValueError, match=r"of the 100 steps of this run, none after the share averaging.start 0.9 is"):
        average(build(), Swa(start=0.9, every=60), steps_per_epoch=10)


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "swa", "start": 1},
        {"name": "swa", "start": -0.1},
        {"name": "swa", "every": 0},
        {"name": "ema", "decay": 1},
        {"name": "ema", "decay": 0},
        {"name": "ema", "norm_images": 0},
    ],
)
def test_impossible_values_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Averaging).validate_python(fields)
