"""Between two networks: soups of their weights, mixtures of their probabilities."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from arat_ray.evaluation.records import network_sha256
from arat_ray.training import checkpoint, pairs
from arat_ray.training.checkpoint import Checkpoint
from arat_ray.training.pairs import Mixture, TwoNetworks, Way
from tests.training.export.exports import untrained
from tests.training.runs import make, run, validate

CPU = torch.device("cpu")


def trained(folder: Path, **fields: Any) -> Checkpoint:
    run(make(**({"batch_size": 200, "epochs": 1} | fields)), validate(100), folder)
    return checkpoint.load(folder / "last.pt")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, Checkpoint]:
    """PGD-AT and ARAT of one architecture and one data set."""
    folder = tmp_path_factory.mktemp("two")
    arat = {"name": "arat", "invariance_weight": 3, "layers": ["avgpool"]}
    return trained(folder / "a"), trained(folder / "b", method=arat, seed=6)


def at(two: tuple[Checkpoint, Checkpoint], way: Way, t: float) -> nn.Module:
    return pairs.network(TwoNetworks(way, *two), t, averaged=True, device=CPU)


def images() -> Tensor:
    return torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("way", ["soup", "mix"])
def test_the_ends_are_the_networks_bit_for_bit(two: tuple[Checkpoint, Checkpoint], way: Way) -> None:
    for t, state in enumerate(two):
        assert torch.equal(at(two, way, t)(images()), checkpoint.network(state)(images()))


def test_a_soup_has_the_weights_between_and_statistics_of_its_own(two: tuple[Checkpoint, Checkpoint]) -> None:
    soup, again = at(two, "soup", 0.25), at(two, "soup", 0.25)
    a, b = (checkpoint.network(state).state_dict() for state in two)
    statistics = 0
    for name, value in soup.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), "the same each time"
        if name.rpartition(".")[2] in ("running_mean", "running_var"):
            statistics += not torch.allclose(value, 0.75 * a[name] + 0.25 * b[name], rtol=1e-3)
        elif value.is_floating_point():
            torch.testing.assert_close(value, 0.75 * a[name] + 0.25 * b[name])
    assert statistics
    assert not soup.training


def test_a_mixture_answers_with_the_mixed_probabilities_by_hand() -> None:
    class Says(nn.Module):
        def __init__(self, *shares: float) -> None:
            super().__init__()
            self.logits = torch.tensor([shares]).log() + 3

        def forward(self, x: Tensor) -> Tensor:
            return self.logits.expand(len(x), -1)

    mixed = Mixture(Says(0.5, 0.5), Says(0.9, 0.1), 0.25)(torch.zeros(2, 1))
    torch.testing.assert_close(mixed.exp(), torch.tensor([[0.6, 0.4]] * 2))
    torch.testing.assert_close(mixed.softmax(1), mixed.exp(), msg="logarithms of shares are their own logits")


def test_gradients_of_a_mixture_go_through_both_networks(two: tuple[Checkpoint, Checkpoint]) -> None:
    x = images().requires_grad_()
    label = torch.arange(12) % 10
    a, b = (checkpoint.network(state) for state in two)

    def gradient(logits: Tensor) -> Tensor:
        return torch.autograd.grad(nn.functional.nll_loss(logits, label), x)[0]

    mixed = gradient(at(two, "mix", 0.3)(x))
    by_hand = gradient((0.7 * a(x).softmax(1) + 0.3 * b(x).softmax(1)).log())
    torch.testing.assert_close(mixed, by_hand, atol=1e-6, rtol=1e-3)
    for one in (a, b):
        assert not torch.allclose(mixed, gradient(one(x).log_softmax(1)), rtol=1e-2)


def test_mixtures_of_other_shares_are_other_networks(two: tuple[Checkpoint, Checkpoint]) -> None:
    assert network_sha256(at(two, "mix", 0.25)) != network_sha256(at(two, "mix", 0.5))


def test_mistakes_are_refused_with_both_names(two: tuple[Checkpoint, Checkpoint], tmp_path: Path) -> None:
    wider = untrained(tmp_path / "wider.pt", model={"name": "tiny", "width": 4})
    names = ("a.pt", "b.pt")
    with pytest.raises(
        ValueError, match=r"--soup: a\.pt and b\.pt are of two architectures, .*width=2.*width=4.*--mix"
    ):
        pairs.check(TwoNetworks("soup", two[0], wider), names, [0.5])
    pairs.check(TwoNetworks("mix", two[0], wider), names, [0, 0.5, 1])
    with pytest.raises(ValueError, match=r"dial 1\.5: between two networks it goes from 0 to 1"):
        pairs.check(TwoNetworks("mix", *two), names, [0.5, 1.5])
    assert wider.content is None
    other = Checkpoint(**(vars(two[1]) | {"content": {"train": {"shape": [3, 32, 32], "classes": 10}}}))
    with pytest.raises(ValueError, match=r"--mix: a\.pt is for images \[1, 8, 8\] of 10 classes and b\.pt for \[3, 32"):
        pairs.check(TwoNetworks("mix", two[0], other), names, [0.5])
