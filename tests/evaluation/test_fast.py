"""Fast mode: the reference code's iterates on a folded network, and no verdict but the network's own."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pyautoattack.fab_projections import projection_l2, projection_linf
from torch import Tensor, nn

from arat_ray.evaluation import autoattack, fast
from arat_ray.evaluation.attack_classes import Step, perturb
from arat_ray.evaluation.ensembles import Ensemble
from arat_ray.evaluation.fast.fab import step_to_plane
from arat_ray.training.models import MODELS
from tests.evaluation.nets import digits, nearest_mean, plan, unit
from tests.evaluation.test_autoattack import assert_same, attacker, shuffled, trained

__all__ = ["trained"]  # the fixture

STEPS = [
    Step(name="apgd-ce", steps=30),
    Step(name="apgd-ce", steps=20, restarts=3),
    Step(name="apgd-dlr", steps=30),
    Step(name="apgd-t", steps=20, targets=4),
    Step(name="fab-t", steps=20, targets=4),
    Step(name="square", steps=150),
    Step(name="square", steps=100, rescaled=True),
]
EPSILON = {"linf": 0.16, "l2": 0.7}


class Watched(nn.Module):
    """Keeps what a network is shown."""

    def __init__(self, network: nn.Module, x: Tensor) -> None:
        super().__init__()
        self.network, self.x, self.shown = network, x, list[Tensor]()

    def forward(self, x: Tensor) -> Tensor:
        if not torch.equal(x, self.x):
            self.shown.append(x.detach().clone())
        logits: Tensor = self.network(x)
        return logits


def right(model: nn.Module, images: int) -> tuple[Tensor, Tensor]:
    """Test digits that the model knows, and their labels."""
    data = digits(images)
    with torch.no_grad():
        rows = model(unit(data)).argmax(1) == data.labels
    return unit(data)[rows], data.labels[rows]


def broken(model: nn.Module, x_adv: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        wrong: Tensor = model(x_adv).argmax(1) != y
    return wrong


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("step", STEPS, ids=lambda step: f"{step.name}-{step.steps}")
def test_the_network_is_shown_what_the_reference_shows_it_query_by_query(
    step: Step, norm: str, trained: nn.Module
) -> None:
    """Among images that do not fall, up to what sign() and a comparison of margins make of a rounding error."""
    x, y = right(trained, 24)
    ball: dict[str, Any] = {"norm": norm, "epsilon": EPSILON[norm] / 4, "seed": 5}
    firm = ~broken(trained, perturb(step, trained, x, y, **ball), y)
    x, y = x[firm], y[firm]
    assert len(y) >= 12
    if step.name == "fab-t":
        step = step.model_copy(update={"targets": 1})  # after each target the reference looks at its result again
    theirs, ours = Watched(trained, x), Watched(trained, x)
    perturb(step, theirs, x, y, **ball)
    fast.perturb(step, ours, trained, x, y, **ball)
    assert len(ours.shown) >= 20
    for a, b in zip(theirs.shown, ours.shown, strict=False):  # the reference ends on gradients and verdicts of its own
        assert (a - b).abs().gt(1e-4).float().mean() < 0.03
    assert len(theirs.shown) - len(ours.shown) <= step.restarts * (step.targets or 1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("step", STEPS, ids=lambda step: f"{step.name}-{step.steps}")
def test_the_same_images_fall_and_none_leaves_the_ball(step: Step, norm: str, trained: nn.Module) -> None:
    x, y = right(trained, 70)
    ball: dict[str, Any] = {"norm": norm, "epsilon": EPSILON[norm], "seed": 5}
    theirs = broken(trained, perturb(step, trained, x, y, **ball), y)
    before = [value.clone() for value in trained.state_dict().values()]
    x_adv = fast.perturb(step, fast.fold(trained, x), trained, x, y, **ball)
    ours = broken(trained, x_adv, y)
    assert 5 < int(ours.sum()) < len(y) - 5
    assert int((ours != theirs).sum()) <= 1
    assert torch.equal(x_adv[~ours], x[~ours])
    distance = torch.linalg.vector_norm((x_adv - x).flatten(1), ord=torch.inf if norm == "linf" else 2, dim=1)
    assert distance.max() <= EPSILON[norm] * (1 + 1e-5)
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    assert all(torch.equal(a, b) for a, b in zip(before, trained.state_dict().values(), strict=True))


class Pessimist(nn.Module):
    """Finds everything wrong: the highest logit is never the first class's."""

    def forward(self, x: Tensor) -> Tensor:
        scores = x.flatten(1)[:, :10]
        return torch.cat([scores.amin(1, keepdim=True) - 1, scores[:, 1:]], dim=1)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: f"{step.name}-{step.steps}")
def test_nothing_falls_that_the_network_itself_does_not_confirm(step: Step) -> None:
    class Certain(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.eye(10)[torch.zeros(len(x), dtype=torch.long)]

    x, y = unit(digits(6)), torch.zeros(6, dtype=torch.long)
    x_adv = fast.perturb(step, Pessimist(), Certain(), x, y, norm="linf", epsilon=0.3, seed=0)
    assert torch.equal(x_adv, x)


NARROW: dict[str, dict[str, Any]] = {
    "resnet18": {"width": 4},
    "preact_resnet18": {"width": 4},
    "wide_resnet": {"depth": 10, "width": 1},
    "vit": {"width": 16, "heads": 2, "depth": 2},
    "tiny": {"width": 4},
}


def some_network(name: str, **settings: Any) -> nn.Module:
    """With norm statistics of its own, in eval mode."""
    torch.manual_seed(0)
    model = MODELS[name].model_validate({"name": name, **NARROW[name], **settings}).build((3, 32, 32), 10)
    for _ in range(3):
        model(torch.rand(8, 3, 32, 32))
    return model.eval()


def folded_network(name: str, **settings: Any) -> nn.Module:
    return fast.fold(some_network(name, **settings), torch.rand(4, 3, 32, 32))


@pytest.mark.parametrize("name", MODELS)
def test_a_folded_network_computes_the_same_logits_and_gradients(name: str) -> None:
    model = some_network(name)
    x = torch.rand(4, 3, 32, 32)
    folded = fast.fold(model, x)
    results = []
    for network in (model, folded):
        leaf = x.clone().requires_grad_()
        logits = network(leaf)
        results.append((logits.detach(), torch.autograd.grad(logits[:, 3].sum(), leaf)[0]))
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-5)
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_every_norm_that_follows_a_convolution_is_folded_into_it() -> None:
    left = {
        name: sum(isinstance(module, nn.BatchNorm2d) for module in folded_network(name).modules())
        for name in ("resnet18", "preact_resnet18", "wide_resnet", "tiny")
    }
    assert left["resnet18"] == 0
    assert left["preact_resnet18"] == 9  # the first of each block, and the last, follow a sum
    assert left["wide_resnet"] == 4
    assert any(isinstance(module, nn.GroupNorm) for module in folded_network("resnet18", norm="group").modules())


class Odd(nn.Module):
    """What tracing changes, or does not survive."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.convolution, self.norm = how, nn.Conv2d(1, 1, 3, padding=1), nn.BatchNorm2d(1)
        self.inner = nearest_mean()
        self.norm.running_var = torch.full((1,), 0.3)
        if how == "hooked":
            self.register_forward_pre_hook(lambda _, args: (1 - args[0],))

    def forward(self, x: Tensor) -> Tensor:
        match self.how:
            case "branching":
                x = x if x.mean() > -1 else -x
            case "resized":  # what it draws does not depend on its input
                x = x * (0.5 + random.random())
            case "noisy":
                x = x + 0.01 * torch.rand(1)
            case "counting":
                x = x.view(len(x), 1, 8, 8)
            case "shared":
                x = self.norm(self.convolution(self.norm(self.convolution(x))))
        logits: Tensor = self.inner(x)
        return logits


@pytest.mark.parametrize("how", ["branching", "resized", "noisy", "counting", "shared", "hooked"])
@pytest.mark.parametrize("make", [fast.lean, fast.fold])
def test_a_network_that_tracing_changes_is_attacked_as_it_is(
    make: Callable[[nn.Module, Tensor], nn.Module], how: str
) -> None:
    torch.manual_seed(0)
    model, x = Odd(how).eval(), unit(digits(4))
    copied = make(model, x)
    logits = []
    for network in (model, copied, copied):
        random.seed(0)
        torch.manual_seed(0)
        logits.append(network(x))
        if network is model and how in ("resized", "noisy"):
            assert not torch.equal(model(x), logits[0])
    torch.testing.assert_close(logits[1], logits[0], rtol=1e-4, atol=1e-4)
    if how in ("resized", "noisy"):
        assert not torch.equal(copied(x), copied(x)), "it draws each time"
    assert not any(parameter.requires_grad for parameter in copied.parameters())


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_step_to_a_plane_is_the_reference_codes_projection(norm: str) -> None:
    draw = torch.Generator().manual_seed(0)
    z = torch.rand(200, 3, 4, 4, generator=draw, dtype=torch.float64)
    normal = torch.randn(z.shape, generator=draw, dtype=torch.float64)
    normal[::5, 0] = 0
    height = torch.randn(200, generator=draw, dtype=torch.float64) * torch.logspace(-3, 2, 200)  # the last out of reach
    step = step_to_plane(z, normal, height, norm)
    project = {"linf": projection_linf, "l2": projection_l2}[norm]
    points, w = z.flatten(1), normal.flatten(1)
    expected = project(points.clone(), w.clone(), (points * w).sum(1) - height)
    torch.testing.assert_close(step.flatten(1), expected, rtol=1e-4, atol=1e-6)


def test_fast_mode_is_named_and_finds_what_exact_mode_finds(trained: nn.Module) -> None:
    data = digits(40)
    exact = plan("autoattack", 0.14, steps=12)
    quick = exact.model_copy(update={"mode": "fast"})
    assert quick.version.startswith("arat-ray ")
    assert quick.version.endswith(", fast")
    assert str(quick) == "autoattack linf 0.14, fast mode"
    assert Ensemble(name="apgd", norm="l2", epsilon=0.5, mode="fast").plan(10).mode == "fast"
    one = autoattack.run(attacker(trained, exact, data), batch_size=16)
    other = autoattack.run(attacker(trained, quick, data), batch_size=16)
    assert int((one.robust != other.robust).sum()) <= 1
    assert torch.equal(one.clean_correct, other.clean_correct)
    assert_same(autoattack.run(attacker(trained, quick, data), batch_size=16, runner=shuffled), other)
