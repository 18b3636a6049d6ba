"""The comparison with the authors' code finds what differs: this project's step against itself, one thing changed."""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import equivalence
import pytest
import torch
import torch.nn.functional as F
from reference import authors, checkout, ours
from reference.baselines import BASELINES, Loss
from reference.cases import CASES, CONTROLS, Case
from reference.records import TOLERANCE, Finding, Record, compare, difference
from torch import Tensor, nn

from arat_ray.training.methods import Arat


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def records(method: Mapping[str, Any]) -> list[Record]:
    """Two steps of a very narrow ResNet-18 from the same weights on the same images."""
    spec = ours.spec("arat/resnet18", batch_size=3, method=method, model={"width": 1})
    spec = spec.model_copy(update={"attack": spec.attack.model_copy(update={"steps": 2})})  # type: ignore[union-attr]
    built = ours.built(spec, torch.float64)
    assert isinstance(built, Arat)
    data = ours.half_right(built, equivalence.batches(2, 3))
    return ours.run(spec, built, data, noise_seed=3)


@pytest.fixture(scope="module")
def published() -> list[Record]:
    return records({})


def exceeding(found: list[Finding]) -> set[str]:
    return {each.quantity for each in found if each.exceeds}


def test_two_runs_of_one_spec_differ_in_nothing(published: list[Record]) -> None:
    found = compare(records({}), published)
    assert {each.difference for each in found} == {0.0}
    assert {"adversarial images", "loss, invariance", "gradients, network", "momentum", "average of the weights"} <= {
        each.quantity for each in found
    }


def test_an_invariance_weight_that_is_off_by_a_hair_is_found_in_its_term_and_behind_it(published: list[Record]) -> None:
    found = exceeding(compare(records({"invariance_weight": 30.001})[:1], published[:1]))
    assert {"loss, invariance", "loss, total", "gradients, network", "weights, network", "momentum"} <= found
    before_it = {"clean input", "adversarial images", "logits", "predictions", "loss, clean cross-entropy"}
    assert not found & before_it


@pytest.mark.parametrize("case", CONTROLS, ids=lambda case: case.title)
def test_every_control_is_found_out(case: Case, published: list[Record]) -> None:
    assert exceeding(compare(records(case.method), published))


def test_every_case_but_the_published_ones_computes_something_else(published: list[Record]) -> None:
    switched = [case for case in CASES if case.method and case.network == "resnet18"]
    assert len(switched) >= 6
    for case in switched:
        assert exceeding(compare(records(case.method), published)), case.title


def test_branches_that_change_places_are_found_in_the_norm_statistics(published: list[Record]) -> None:
    """Statistics of the two branches are told apart, and start differently."""
    last = published[-1]
    clean = last["norm statistics, clean branch"]["model.bn1.clean.running_mean"]
    adversarial = last["norm statistics, adversarial branch"]["model.bn1.adversarial.running_mean"]
    assert difference(clean, adversarial) > 1000 * TOLERANCE


def test_what_one_side_lacks_differs_by_infinity(published: list[Record]) -> None:
    without = [{name: parts for name, parts in record.items() if name != "predictions"} for record in published]
    assert exceeding(compare(without, published)) == {"predictions"}
    (lacking,) = [each for each in compare(published, without) if each.exceeds]
    assert lacking.difference == math.inf


def test_the_largest_difference_is_told_with_its_step_and_part() -> None:
    a: list[Record] = [{"q": {"one": torch.tensor([1.0, 2.0]), "two": torch.tensor([0.0])}} for _ in range(2)]
    b: list[Record] = [{"q": {name: value.clone() for name, value in record["q"].items()}} for record in a]
    b[1]["q"]["one"][0] = 1.5
    assert compare(a, b) == [Finding("q", 0.25, 2, "one")]


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([1.0, -4.0], [1.0, -5.0], 0.2),
        ([0.0], [0.0], 0.0),
        ([1e-3], [0.0], 1e-3),
        ([math.nan], [math.nan], math.inf),
        ([1.0, 1.0], [1.0], math.inf),
    ],
)
def test_a_difference_is_over_the_largest_entry(a: list[float], b: list[float], expected: float) -> None:
    assert difference(torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)) == expected


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("model.conv1.weight", "net.conv1.weight"),
        ("model.layer4.1.bn2.adversarial.running_var", "net.layer4.1.bn2.adv.running_var"),
        ("model.layer2.0.shortcut.0.weight", "net.layer2.0.shortcut.weight"),
        ("model.layer2.0.shortcut.1.clean.bias", "net.layer2.0.shortcut_bn.clean.bias"),
        ("model.block2.layer.0.shortcut.weight", "net.block2.layer.0.convShortcut.weight"),
        ("predictors.3.1.running_mean", "predictors.3.1.running_mean"),
    ],
)
def test_layers_are_found_by_the_authors_names(name: str, theirs: str) -> None:
    assert authors.their_name(name) == theirs


def test_a_folder_that_is_no_checkout_is_refused_with_the_way_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no train_ARAT.py there; .*git clone https://github.com/futakw/AR-AT"):
        checkout.load(tmp_path)


def trades_by_the_paper(slip: float) -> Loss:
    """Algorithm 1 of https://arxiv.org/abs/1901.08573 as its authors call it; `slip` is added to beta."""

    def loss(model: nn.Module, x_natural: Tensor, y: Tensor, beta: float, epsilon: float, **attack: Any) -> Tensor:
        def divergence(x: Tensor) -> Tensor:
            q, p = model(x).softmax(1), model(x_natural).softmax(1)
            total: Tensor = (p * (p / q).log()).sum()
            return total

        model.eval()
        x_adv = x_natural + 0.001 * torch.randn(x_natural.shape).cuda()
        for _ in range(attack["perturb_steps"]):
            x_adv.requires_grad_()
            (gradient,) = torch.autograd.grad(divergence(x_adv), x_adv)
            x_adv = x_adv.detach() + attack["step_size"] * gradient.sign()
            x_adv = torch.clamp(x_adv, x_natural - epsilon, x_natural + epsilon).clamp(0, 1)
        model.train()
        attack["optimizer"].zero_grad()
        return F.cross_entropy(model(x_natural), y) + (beta + slip) * divergence(x_adv) / len(y)

    return loss


@pytest.mark.parametrize("slip", [0.0, 1.0])
def test_a_baseline_is_compared_with_a_loss_function_and_a_slip_of_its_weight_is_found(slip: float) -> None:
    options = Namespace(width=1, batch_size=3, steps=1)
    found = exceeding(equivalence.baseline_findings("trades", 6.0, trades_by_the_paper(slip), options))
    assert found == ({"loss, total", "gradients, network", "weights, network", "momentum"} if slip else set())


@pytest.mark.parametrize("name", BASELINES)
def test_a_folder_without_a_baselines_code_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"--{name} .*: no {name}.py there; .*git clone https://github.com/.+/.+"):
        BASELINES[name].load(name, tmp_path)


def test_norms_start_differently_in_every_branch_and_statistic() -> None:
    spec = ours.spec("pgd_at/resnet18", batch_size=3, method={}, model={"width": 1})
    method = ours.built(spec, torch.float64)
    statistics = method.state_dict()["model.layer4.0.bn1.running_var"]
    assert statistics.dtype == torch.float64
    assert 0.5 <= statistics.min() < statistics.max() <= 1.5
