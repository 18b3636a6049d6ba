"""PGD against hand-worked steps and an independent implementation in float64; what it may and may not touch."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from arat_ray.training.attacks import Pgd
from arat_ray.training.models import Tiny
from arat_ray.training.randomness import Noise, generator

Norm = Literal["linf", "l2"]
NORMS: tuple[Norm, ...] = ("linf", "l2")
Start = Literal["uniform", "normal", "center"]
STARTS: tuple[Start, ...] = ("uniform", "normal", "center")


def network() -> nn.Module:
    torch.manual_seed(0)
    return Tiny(width=4).build((1, 8, 8), 3).eval()


def batch(images: int = 9, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    x = torch.rand(images, 1, 6, 6, dtype=dtype)
    x[0], x[1] = 0, 1
    return x, torch.arange(images) % 3


def noise(images: int, rows: slice = slice(None)) -> Noise:
    return Noise(generator("cpu", 7), images, rows)


def indifferent(x: Tensor) -> Tensor:
    """Logits that no pixel changes, so that an attack stays where it starts."""
    return x.flatten(1)[:, :3] * 0


def three_minus_four(x: Tensor) -> Tensor:
    """logits = (3 a - 4 b, 0) of the two pixels (a, b): for y = 0 the loss rises along (-3, 4)."""
    a, b = x[:, 0, 0, 0], x[:, 0, 0, 1]
    return torch.stack([3 * a - 4 * b, torch.zeros_like(a)], 1)


def lengths(delta: Tensor, norm: Norm) -> Tensor:
    flat = delta.flatten(1)
    return flat.abs().amax(1) if norm == "linf" else flat.square().sum(1).sqrt()


@pytest.mark.parametrize(
    ("norm", "start", "step_size", "steps", "expected"),
    [
        ("linf", (0.5, 0.5), 0.04, 1, (0.46, 0.54)),  # x + step_size * sign
        ("linf", (0.5, 0.5), 0.04, 2, (0.42, 0.58)),
        ("linf", (0.5, 0.5), 0.04, 3, (0.40, 0.60)),  # back onto the ball of 0.1
        ("linf", (0.02, 0.99), 0.04, 1, (0.00, 1.00)),  # back into [0, 1]
        ("l2", (0.5, 0.5), 0.05, 1, (0.47, 0.54)),  # x + step_size * (-3, 4) / 5
        ("l2", (0.5, 0.5), 0.05, 2, (0.44, 0.58)),
        ("l2", (0.5, 0.5), 0.05, 3, (0.44, 0.58)),
        ("l2", (0.02, 0.99), 0.05, 1, (0.00, 1.00)),
    ],
)
def test_a_step_equals_the_one_worked_by_hand(
    norm: Norm, start: tuple[float, float], step_size: float, steps: int, expected: tuple[float, float]
) -> None:
    attack = Pgd(norm=norm, epsilon=0.1, step_size=step_size, steps=steps)
    x = torch.tensor(start, dtype=torch.float64).view(1, 1, 1, 2)
    x_adv = attack(three_minus_four, x, torch.tensor([0]), noise=None)
    torch.testing.assert_close(x_adv.flatten(), torch.tensor(expected, dtype=torch.float64))


def reference(model: nn.Module, x: Tensor, y: Tensor, start: Tensor, attack: Pgd) -> Tensor:
    """PGD image by image: the cross-entropy's gradient as its definition has it, then step, ball and cube."""
    rows = []
    for one, label, point in zip(x, y, start, strict=True):
        for _ in range(attack.steps):
            point = point.clone().requires_grad_()
            (-torch.log(torch.softmax(model(point[None])[0], 0)[label])).backward()
            assert point.grad is not None
            gradient, point = point.grad, point.detach()
            if attack.norm == "linf":
                point = point + attack.step_size * gradient.sign()
                point = one + (point - one).clamp(-attack.epsilon, attack.epsilon)
            else:
                point = point + attack.step_size * gradient / gradient.square().sum().sqrt()
                radius = (point - one).square().sum().sqrt()
                if radius > attack.epsilon:
                    point = one + (point - one) / radius * attack.epsilon
            point = point.clamp(0, 1)
        rows.append(point)
    return torch.stack(rows)


@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize(("norm", "epsilon", "step_size"), [("linf", 0.05, 0.02), ("l2", 0.5, 0.2)])
def test_the_attack_equals_an_independent_implementation(
    norm: Norm, epsilon: float, step_size: float, steps: int
) -> None:
    attack = Pgd(norm=norm, epsilon=epsilon, step_size=step_size, steps=steps)
    model, x, y = network().double(), *(rows[2:] for rows in batch(6))  # those with a gradient
    torch.testing.assert_close(attack(model, x, y, noise=None), reference(model, x, y, x, attack))
    start = attack(indifferent, x, y, noise=noise(len(y)))
    assert (start != x).any()
    ours = attack(model, x, y, noise=noise(len(y)))
    torch.testing.assert_close(ours, reference(model, x, y, start, attack))
    assert (ours != start).any()


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 8 / 255), ("linf", 0.5), ("l2", 0.5), ("l2", 4.0)])
def test_adversarial_images_stay_in_the_ball_and_in_the_unit_cube(norm: Norm, epsilon: float, start: Start) -> None:
    attack = Pgd(norm=norm, epsilon=epsilon, step_size=epsilon / 2, steps=4, start=start)
    x, y = batch(30, torch.float32)
    x_adv = attack(network(), x, y, noise=noise(30))
    assert x_adv.dtype == x.dtype
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    radii = lengths(x_adv - x, norm)
    assert radii.max() <= epsilon * (1 + 1e-5)
    assert radii.max() > 0.9 * min(epsilon, 1)


@pytest.mark.parametrize("norm", NORMS)
def test_the_attack_raises_the_loss(norm: Norm) -> None:
    model, (x, y) = network().double(), batch(30)
    attack = Pgd(norm=norm, epsilon=0.1, step_size=0.02, steps=10)
    x_adv = attack(model, x, y, noise=noise(30))
    before, after = (nn.functional.cross_entropy(model(images), y, reduction="none") for images in (x, x_adv))
    assert (after > before).all()


@pytest.mark.parametrize("norm", NORMS)
def test_the_attack_touches_neither_its_input_nor_any_gradient(norm: Norm) -> None:
    model, (x, y) = network().double(), batch()
    first, *rest = model.parameters()
    first.grad = torch.ones_like(first)
    kept = x.clone()
    x.requires_grad_()
    with torch.no_grad():  # an attack needs gradients, and takes care of that itself
        x_adv = Pgd(norm=norm, epsilon=0.1, step_size=0.05, steps=3)(model, x, y, noise=noise(len(y)))
    assert torch.equal(x, kept)
    assert x.grad is None
    assert not x_adv.requires_grad
    assert torch.equal(first.grad, torch.ones_like(first))
    assert all(parameter.grad is None and parameter.requires_grad for parameter in rest)


@pytest.mark.parametrize("norm", NORMS)
def test_a_vanished_gradient_gives_no_step_and_no_nan(norm: Norm) -> None:
    x, y = batch()
    attack = Pgd(norm=norm, epsilon=0.1, step_size=0.1, steps=3)
    assert torch.equal(attack(indifferent, x, y, noise=None), x)


@pytest.mark.parametrize("norm", NORMS)
def test_one_seed_gives_one_attack_and_another_seed_another(norm: Norm) -> None:
    model, (x, y) = network().double(), batch()
    attack = Pgd(norm=norm, epsilon=0.1, step_size=0.01, steps=2)
    first, again = (attack(model, x, y, noise=noise(len(y))) for _ in range(2))
    other = attack(model, x, y, noise=Noise(generator("cpu", 8), len(y)))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("norm", NORMS)
def test_from_the_center_noise_is_not_used(norm: Norm) -> None:
    model, (x, y) = network().double(), batch()
    fields: dict[str, Any] = {"norm": norm, "epsilon": 0.1, "step_size": 0.01, "steps": 2}
    settled = Pgd(**fields, start="center")(model, x, y, noise=noise(len(y)))
    assert torch.equal(settled, Pgd(**fields)(model, x, y, noise=None))
    attack = Pgd(**fields, start="center")
    assert torch.equal(attack(indifferent, x, y, noise=noise(len(y))), x)


@pytest.mark.parametrize("norm", NORMS)
def test_a_normal_start_is_a_thousandth_of_white_noise_away(norm: Norm) -> None:
    x, y = batch()
    attack = Pgd(norm=norm, epsilon=0.4, step_size=0.1, steps=1, start="normal")
    draws = torch.empty(x.shape, dtype=x.dtype).normal_(generator=generator("cpu", 7))
    expected = (x + 0.001 * draws).clamp(0, 1)
    torch.testing.assert_close(attack(indifferent, x, y, noise=noise(len(y))), expected)


@pytest.mark.parametrize("norm", NORMS)
def test_a_neighbour_is_a_random_image_in_the_ball_whatever_the_start(norm: Norm) -> None:
    x, _ = batch(40)
    neighbours = [
        Pgd(norm=norm, epsilon=0.3, step_size=0.1, steps=1, start=start).neighbour(x, noise(40)) for start in STARTS
    ]
    for neighbour in neighbours:
        assert torch.equal(neighbour, neighbours[0])
    radii = lengths(neighbours[0] - x, norm)
    assert (radii > 0).all()
    assert 0.2 < radii.max() <= 0.3 + 1e-12
    assert neighbours[0].min() >= 0
    assert neighbours[0].max() <= 1


@pytest.mark.parametrize("norm", NORMS)
def test_an_attack_climbs_the_loss_that_it_is_given(norm: Norm) -> None:
    """Down the cross-entropy of y is the opposite step."""
    x = torch.tensor((0.5, 0.5), dtype=torch.float64).view(1, 1, 1, 2)
    attack = Pgd(norm=norm, epsilon=0.1, step_size=0.05, steps=1)
    y = torch.tensor([0])
    up = attack(three_minus_four, x, y, noise=None)
    down = attack(three_minus_four, x, y, noise=None, loss=lambda logits: -nn.functional.cross_entropy(logits, y))
    torch.testing.assert_close(down - x, x - up)


def test_the_linf_start_is_uniform_in_the_cube_and_clamped_to_images() -> None:
    attack = Pgd(norm="linf", epsilon=0.4, step_size=0.1, steps=1)
    x = torch.full((2000, 1, 5, 5), 0.5, dtype=torch.float64)
    y = torch.zeros(2000, dtype=torch.int64)
    share = (attack(indifferent, x, y, noise=noise(2000)) - x) / 0.4  # 50,000 draws
    assert share.abs().max() <= 1 + 1e-12
    assert abs(share.mean()) < 5 * (1 / 3) ** 0.5 / 50_000**0.5
    assert abs(share.square().mean() - 1 / 3) < 5 * (4 / 45) ** 0.5 / 50_000**0.5
    quarters = ((share + 1) * 2).floor().long().flatten().bincount()
    assert (quarters - 12_500).abs().max() < 5 * (50_000 * 3 / 16) ** 0.5

    from_black = attack(indifferent, x - 0.5, y, noise=noise(2000))
    torch.testing.assert_close(from_black, (0.4 * share).clamp(min=0))


def test_the_l2_start_has_a_uniform_radius_and_no_preferred_direction() -> None:
    attack = Pgd(norm="l2", epsilon=0.4, step_size=0.1, steps=1)
    x = torch.full((20_000, 1, 2, 2), 0.5, dtype=torch.float64)
    y = torch.zeros(20_000, dtype=torch.int64)
    delta = attack(indifferent, x, y, noise=noise(20_000)) - x
    share = lengths(delta, "l2") / 0.4
    assert share.max() <= 1 + 1e-12
    quarters = (share * 4).floor().long().bincount()
    assert (quarters - 5000).abs().max() < 5 * (20_000 * 3 / 16) ** 0.5
    direction = (delta / delta.flatten(1).norm(dim=1).view(-1, 1, 1, 1)).flatten(1)
    assert direction.mean(0).abs().max() < 5 * 0.5 / 20_000**0.5  # each coordinate has variance 1/4
    covariance = direction.T @ direction / 20_000
    assert (covariance - torch.eye(4) / 4).abs().max() < 0.02


@pytest.mark.parametrize("norm", NORMS)
def test_two_workers_together_make_the_attack_that_one_makes(norm: Norm) -> None:
    model, (x, y) = network().double(), batch()
    attack = Pgd(norm=norm, epsilon=0.1, step_size=0.05, steps=3)
    whole = attack(model, x, y, noise=noise(9))
    for rank in range(2):
        mine = slice(rank, None, 2)
        torch.testing.assert_close(attack(model, x[mine], y[mine], noise=noise(9, mine)), whole[mine])


@pytest.mark.parametrize(
    ("norm", "epsilon", "meant"),
    [("linf", 8, "8/255"), ("linf", 1, "1/255"), ("linf", 1.5, "1.5/255"), ("l2", 128, "128/255")],
)
def test_a_radius_that_was_not_divided_by_255_is_refused(norm: Norm, epsilon: float, meant: str) -> None:
    with pytest.raises(ValidationError, match=rf"epsilon is .*, but images lie in \[0, 1\]; did you mean {meant}\?"):
        Pgd(norm=norm, epsilon=epsilon, step_size=0.1, steps=1)


def test_a_step_that_was_not_divided_by_255_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"step_size is 2, but images lie in \[0, 1\]; did you mean 2/255\?"):
        Pgd(norm="linf", epsilon=8 / 255, step_size=2, steps=1)


@pytest.mark.parametrize("bad", [{"epsilon": 0}, {"step_size": -0.1}, {"steps": 0}, {"norm": "l1"}, {"epsilon": "8/0"}])
def test_impossible_attacks_are_refused_by_field(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(bad))):
        Pgd.model_validate({"norm": "linf", "epsilon": 0.1, "step_size": 0.1, "steps": 1} | bad)


def test_radius_and_step_may_be_written_as_fractions() -> None:
    written = {"name": "pgd", "norm": "linf", "epsilon": "8/255", "step_size": " 2 / 255", "steps": 20}
    attack = Pgd.model_validate(written)
    assert attack.epsilon == 8 / 255
    assert attack.step_size == 2 / 255
    assert attack.label == "pgd-20"
    assert str(attack) == "pgd-20 linf 8/255"
