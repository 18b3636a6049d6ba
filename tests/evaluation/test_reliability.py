"""Networks whose robustness is false, each in a way that an attack alone would not tell."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor, nn

from arat_ray.attack_names import EnsembleName
from arat_ray.evaluation import autoattack
from arat_ray.evaluation.reliability import Signs, probe, warnings
from tests.evaluation.nets import digits, nearest_mean, plan
from tests.evaluation.test_autoattack import attacker


class Around(nn.Module):
    """The nearest-mean network behind or before something that hides its gradients."""

    def __init__(self, trick: str) -> None:
        super().__init__()
        self.inner, self.trick = nearest_mean(), trick

    def forward(self, x: Tensor) -> Tensor:
        match self.trick:
            case "rounded":  # to 16 grey levels: a step function, without slope
                x = (x * 15).round() / 15
            case "noisy":
                x = x + 0.01 * torch.randn_like(x)
            case "scaled":  # by a number that does not depend on x
                x = x * (1 - 0.1 * random.random())
        logits: Tensor = self.inner(x)
        return 1e4 * logits if self.trick == "steep" else logits


def found(trick: str, ensemble: EnsembleName, *, epsilon: float = 0.08, steps: int = 15) -> list[str]:
    who = attacker(Around(trick), plan(ensemble, epsilon, steps=steps), digits(60))
    outcome = autoattack.run(who, batch_size=25)
    broken_by = [outcome.attacks[place] if place > 0 else None for place in outcome.broken_by.tolist()]
    return warnings(outcome.signs, outcome.clean_correct, broken_by, outcome.attacks[1:])


def test_a_network_without_tricks_has_no_warning() -> None:
    assert found("none", "autoattack") == []


def test_rounded_inputs_are_seen_by_their_gradients_and_by_what_square_finds() -> None:
    told = found("rounded", "autoattack", steps=60)
    assert [each.split(":")[0] for each in told] == ["zero gradients", "masked gradients"]
    assert "none reaches the input on 5" in told[0]
    assert "Square broke" in told[1]


def test_huge_logits_blind_the_cross_entropy_but_not_the_ratio_of_differences() -> None:
    told = found("steep", "apgd")
    assert [each.split(":")[0] for each in told] == ["saturated", "masked gradients"]
    assert "PGD-20 leaves" in told[1]


@pytest.mark.parametrize("trick", ["noisy", "scaled"])
def test_random_outputs_are_seen(trick: str) -> None:
    assert any(
        each.startswith("randomised: two passes over the same image differ on 60 of 60")
        for each in found(trick, "apgd")
    )


def test_what_pgd_alone_broke_is_told() -> None:
    nothing = torch.zeros(400, dtype=torch.bool)
    right = torch.arange(400) < 300
    pgd = (torch.arange(400) >= 298) & (torch.arange(400) < 300)
    told = warnings(Signs(nothing, nothing, nothing, pgd), right, [None] * 400, ["square"])
    assert told == ["too weak: PGD-20 broke 2 of 400 images that square left unbroken"]
    one = torch.arange(400) == 298
    assert warnings(Signs(nothing, nothing, nothing, one), right, [None] * 400, ["square"]) == []


@pytest.mark.parametrize(("by_apgd", "by_pgd", "warned"), [(60, 20, False), (60, 18, True)])
def test_ten_points_between_pgd_and_apgd_are_far(by_apgd: int, by_pgd: int, warned: bool) -> None:
    nothing, order = torch.zeros(400, dtype=torch.bool), torch.arange(400)
    broken_by = [("apgd-ce" if i % 2 else "apgd-t") if i < by_apgd else None for i in range(400)]
    told = warnings(Signs(nothing, nothing, nothing, order < by_pgd), ~nothing, broken_by, ["apgd-ce", "apgd-t"])
    assert bool(told) == warned


def test_images_that_are_wrong_anyway_have_no_signs() -> None:
    model, data = Around("rounded"), digits(30)
    x, wrong = data.images.float() / 255, (data.labels + 1) % 10
    signs = probe(model, x, wrong, pgd=None)
    with torch.no_grad():
        right = model(x).argmax(1) == wrong
    assert torch.equal(signs.no_gradient, right)
