"""PGD that ends with an image's first broken iterate, against PGD image by image and iterate by iterate."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from arat_ray.training.accuracy_counts import count
from arat_ray.training.attacks import Pgd, PgdAny
from arat_ray.training.data.images import ImageSet
from arat_ray.training.randomness import Noise, generator
from tests.training.runs import make

Norm = Literal["linf", "l2"]
SETTINGS: dict[Norm, dict[str, Any]] = {
    "linf": {"norm": "linf", "epsilon": 0.05, "step_size": 0.02, "steps": 5},
    "l2": {"norm": "l2", "epsilon": 0.3, "step_size": 0.12, "steps": 5},
}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 3)).double()


def batch(images: int = 60) -> tuple[Tensor, Tensor]:
    """Images with the labels that the network gives them."""
    x = torch.rand(images, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return x, network()(x).argmax(1)


def noise(images: int) -> Noise:
    return Noise(generator("cpu", 7), images)


def iterates(model: nn.Module, x: Tensor, y: Tensor, settings: dict[str, Any]) -> list[Tensor]:
    """All iterates of PGD, the start first: k steps from one start lead to the k-th."""
    whole = [Pgd.model_validate(settings | {"steps": k}) for k in range(1, settings["steps"] + 1)]
    start = whole[0].project(x + whole[0].uniform(x, noise(len(x))), x)
    return [start, *(attack(model, x, y, noise=noise(len(x))) for attack in whole)]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_each_image_comes_back_as_its_first_broken_iterate_or_its_last(norm: Norm) -> None:
    model, (x, y) = network(), batch()
    path = iterates(model, x, y, SETTINGS[norm])
    expected = []
    for i in range(len(x)):
        broken = [each[i] for each in path if model(each[i : i + 1]).argmax(1) != y[i]]
        expected.append(broken[0] if broken else path[-1][i])
    attack = PgdAny.model_validate(SETTINGS[norm])
    x_adv = attack(model, x, y, noise=noise(len(x)))
    torch.testing.assert_close(x_adv, torch.stack(expected), rtol=0, atol=1e-12)
    fallen = model(x_adv).argmax(1) != y
    assert 5 < int(fallen.sum()) < len(x) - 5
    assert all(bool(fallen[model(each).argmax(1) != y].all()) for each in path)  # whatever breaks PGD breaks it, too


def test_it_breaks_what_pgd_lets_go_again() -> None:
    """A network that is wrong only near x itself: PGD's last iterate has walked out of the hole."""

    class Hole(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            height = (x.flatten(1)[:, 0] - 0.5) * 50  # the loss rises towards lower values
            is_hole = ((x.flatten(1)[:, 0] - 0.45).abs() < 0.02).to(x)
            return torch.stack([height + 10 - 40 * is_hole, torch.zeros_like(height)], 1)

    x, y = torch.full((1, 1, 1, 1), 0.5), torch.tensor([0])
    settings = {"norm": "linf", "epsilon": 0.2, "step_size": 0.05, "steps": 3, "start": "center"}
    model = Hole()
    assert model(Pgd.model_validate(settings)(model, x, y, noise=None)).argmax(1) == y
    assert model(PgdAny.model_validate(settings)(model, x, y, noise=None)).argmax(1) != y


def test_an_image_that_has_fallen_is_shown_no_more() -> None:
    model, (x, y) = network(), batch()
    path = iterates(model, x, y, SETTINGS["linf"])
    stands = torch.ones(len(x), dtype=torch.bool)
    expected = []
    for each in path[:-1]:
        if not stands.any():
            break
        expected.append(int(stands.sum()))
        stands &= model(each).argmax(1) == y
    shown: list[int] = []
    model.register_forward_pre_hook(lambda _model, inputs: shown.append(len(inputs[0])))
    PgdAny.model_validate(SETTINGS["linf"])(model, x, y, noise=noise(len(x)))
    assert shown == expected
    assert shown[-1] < len(x)


def test_a_measurement_counts_it_and_leaves_its_input_alone() -> None:
    model, (x, y) = network().float(), batch()
    data = ImageSet((255 * x).to(torch.uint8), y, ())
    before = data.images.clone()
    counts = [
        count(model, data, attack=kind.model_validate(SETTINGS["linf"]), seed=3, batch_size=25)
        for kind in (Pgd, PgdAny)
    ]
    assert counts[0].clean == counts[1].clean
    assert counts[1].robust <= counts[0].robust
    assert torch.equal(data.images, before)


def test_no_method_trains_against_it() -> None:
    attack = {"name": "pgd-any", **SETTINGS["linf"]}
    with pytest.raises(ValidationError, match=r"attack\.name 'pgd-any' is for `validate:` and `arat-ray evaluate`"):
        make(attack=attack)
    model, (x, y) = network(), batch()
    with pytest.raises(ValueError, match="climbs the cross-entropy alone"):
        PgdAny.model_validate(SETTINGS["linf"])(model, x, y, noise=None, loss=lambda logits: logits.sum())
