"""The diagnostics against independent computations in float64, and what they must leave alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from arat_ray.training import split_norm
from arat_ray.training.attacks import Pgd
from arat_ray.training.diagnostics import PREDICTED, Diagnostics, divergence, group_of, measure
from arat_ray.training.methods import METHODS, Arat, Method, MethodSpec, Task
from arat_ray.training.models import Tiny
from arat_ray.training.randomness import Noise

SHAPE = (1, 8, 8)
ATTACK = Pgd(norm="linf", epsilon=0.1, step_size=0.05, steps=2)
NEEDED: dict[str, dict[str, Any]] = {
    "arat": {"invariance_weight": 5, "layers": ["bn2", "bn3"]},
    "arrest": {"standard_epochs": 1},
}


def build(name: str, **fields: Any) -> Method:
    """A small method in float64 train mode, in its second epoch."""
    torch.manual_seed(0)
    spec: Any = TypeAdapter(MethodSpec).validate_python({"name": name, **NEEDED.get(name, {}), **fields})
    model = Tiny(width=3)
    task = Task(model, SHAPE, 4)
    method: Method = spec.build(task.network(), task).double().train()
    method.start_epoch(2, lambda model, images, fresh: 0.4)
    return method


def batches(count: int = 2, size: int = 6) -> list[tuple[Tensor, Tensor]]:
    draws = torch.Generator().manual_seed(1)
    return [
        (torch.rand(size, *SHAPE, dtype=torch.float64, generator=draws), torch.arange(size) % 4) for _ in range(count)
    ]


def diagnose(method: Method, **changes: Any) -> tuple[Any, dict[str, Tensor]]:
    fields: dict[str, Any] = {
        "attack": ATTACK,
        "noise": torch.Generator().manual_seed(2),
        "watched": Diagnostics().watched(method, "avgpool"),
        "previous": {},
    } | changes
    return measure(method, fields.pop("batches", batches()), **fields)


def weights(method: Method) -> dict[str, Tensor]:
    return {
        name: module.weight
        for name, module in method.model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }


def losses_of_one_batch(method: Method) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Gradients of classification and invariance loss by two backward passes, without an attack."""
    ((x, y),) = batches(1)
    found = []
    for term in ("classification", "invariance"):
        method.zero_grad()
        getattr(method(x, x, y), term).backward()
        found.append({k: w.grad.clone() for k, w in weights(method).items() if w.grad is not None})
    return found[0], found[1]


def test_cosine_conflict_and_norms_are_those_of_the_two_gradients() -> None:
    row, _ = diagnose(build("arat"), batches=batches(1), attack=None)
    classification, invariance = losses_of_one_batch(build("arat"))
    shared = [layer for layer in classification if layer in invariance]
    assert shared == ["conv1", "conv2", "conv3"]  # the classifier has no invariance gradient
    a = torch.cat([classification[layer].flatten() for layer in shared])
    b = torch.cat([invariance[layer].flatten() for layer in shared])
    assert row["gradient_cosine"] == pytest.approx(float(a @ b / (a.norm() * b.norm())))
    assert row["conflict_fraction"] == pytest.approx(float(((a > 0) & (b < 0) | (a < 0) & (b > 0)).double().mean()))
    one = float(torch.dot(classification["conv2"].flatten(), invariance["conv2"].flatten()))
    one /= float(classification["conv2"].norm() * invariance["conv2"].norm())
    assert row["gradient_cosine_by_layer"]["conv2"] == pytest.approx(one)
    everything = torch.cat([gradient.flatten() for gradient in classification.values()])
    assert row["gradient_norm_classification"] == pytest.approx(float(everything.norm()))
    assert row["gradient_norm_invariance"] == pytest.approx(float(b.norm()))
    both = {k: g + invariance.get(k, torch.zeros_like(g)) for k, g in classification.items()}
    assert row["gradient_norm"] == pytest.approx(float(torch.cat([g.flatten() for g in both.values()]).norm()))


def test_opposite_losses_conflict_everywhere() -> None:
    """An invariance loss that undoes the clean cross-entropy: cosine -1 and every weight in conflict."""

    class Undoing(type(build("trades"))):  # type: ignore[misc]
        def forward(self, x: Tensor, x_adv: Tensor, y: Tensor) -> Any:
            losses = super().forward(x, x_adv, y)
            return losses._replace(invariance=-0.5 * losses.clean)

    method = build("trades")
    method.__class__ = Undoing
    row, _ = diagnose(method, attack=None)
    assert row["gradient_cosine"] == pytest.approx(-1)
    assert row["conflict_fraction"] == pytest.approx(1)


def test_the_divergence_of_two_normal_distributions_is_the_mean_of_both_kl() -> None:
    def kl(mean_a: float, var_a: float, mean_b: float, var_b: float) -> float:
        a = torch.distributions.Normal(torch.tensor(mean_a).double(), torch.tensor(var_a).double().sqrt())
        b = torch.distributions.Normal(torch.tensor(mean_b).double(), torch.tensor(var_b).double().sqrt())
        return float(torch.distributions.kl_divergence(a, b))

    first, second = (0.5, 2.0), (-1.0, 0.7)
    expected = (kl(*first, *second) + kl(*second, *first)) / 2
    a, b = (torch.tensor(moments, dtype=torch.float64)[:, None] for moments in (first, second))
    assert divergence((a[0], a[1]), (b[0], b[1]), eps=0) == pytest.approx(expected)
    assert divergence((a[0], a[1]), (a[0], a[1])) == 0


@pytest.mark.parametrize("split", [True, False])
def test_running_statistics_are_compared_with_the_inputs_that_they_serve(split: bool) -> None:
    method = build("arat", split_norm=split)
    ((x, y),) = batches(1)
    with torch.no_grad():
        for _ in range(30):
            method(x, (x + 0.3).clamp(0, 1), y)
        inputs = method.model.get_submodule("conv1")(x)  # what bn1 sees of x, in both branches
    moments = inputs.mean((0, 2, 3)), inputs.var((0, 2, 3), correction=0)
    bn1 = method.model.get_submodule("bn1")
    serving: list[Any] = [bn1.clean, bn1.adversarial] if isinstance(bn1, split_norm.SplitNorm) else [bn1, bn1]
    expected = [divergence((norm.running_mean, norm.running_var), moments) for norm in serving]
    row, _ = diagnose(method, batches=[(x, y)], attack=None)
    assert row["bn_divergence_by_layer"]["bn1"] == pytest.approx(0, abs=1e-12)  # x' is x here
    assert row["bn_mismatch_by_layer"]["bn1"] == pytest.approx(sum(expected) / 2)


def test_a_norm_that_serves_two_distributions_fits_neither() -> None:
    """The mixture problem: shared running statistics lie between those of clean and adversarial inputs."""
    mismatch = {}
    for split in (True, False):
        method = build("arat", split_norm=split, attack_norm="train_frozen_stats")
        wide = Pgd(norm="linf", epsilon=0.5, step_size=0.5, steps=1)
        given = batches(8, 24)
        noise = torch.Generator().manual_seed(3)
        for _ in range(6):
            for x, y in given:
                clean, x_adv = method.perturb(x, y, wide, Noise(noise, len(y)))
                with torch.no_grad():
                    method(clean, x_adv, y)
        row, _ = diagnose(method, batches=given, attack=wide)
        mismatch[split] = row["bn_mismatch_by_layer"]["bn1"]
        assert row["bn_divergence_by_layer"]["bn1"] > 0.05
    assert mismatch[True] < mismatch[False]


def test_drift_is_the_cosine_distance_to_the_features_of_the_measurement_before() -> None:
    method = build("arat")
    first, features = diagnose(method, attack=None)
    assert "representation_drift" not in first
    assert set(features) == {"bn2", "bn3", f"bn2{PREDICTED}", f"bn3{PREDICTED}"}
    assert features["bn2"].shape == (12, 6)
    again, _ = diagnose(method, attack=None, previous=features)
    assert again["representation_drift"] == pytest.approx(0, abs=1e-12)
    assert again["predicted_drift"] == pytest.approx(0, abs=1e-12)
    turned = {name: values.flip(1) for name, values in features.items()}
    row, _ = diagnose(method, attack=None, previous=turned)
    z = features["bn2"]
    cosine = (z * z.flip(1)).sum(1) / z.square().sum(1)
    assert row["representation_drift_by_layer"]["bn2"] == pytest.approx(float((1 - cosine).mean()))


def test_the_distance_between_representations_is_taken_with_and_without_the_predictor() -> None:
    method = build("arat")
    assert isinstance(method, Arat)
    row, features = diagnose(method, batches=batches(1))
    losses = row["predicted_distance_by_layer"]
    assert set(losses) == {"bn2", "bn3"}
    assert 0 < row["representation_distance"] < 2
    assert features[f"bn3{PREDICTED}"].shape == features["bn3"].shape


@pytest.mark.parametrize("name", list(METHODS))
def test_measuring_changes_nothing_in_the_method(name: str) -> None:
    method = build(name)
    before = {key: value.clone() for key, value in method.state_dict().items()}
    row, features = diagnose(method)
    assert all(torch.equal(value, before[key]) for key, value in method.state_dict().items())
    assert all(parameter.grad is None for parameter in method.parameters())
    assert row["diagnostics_s"] > 0
    assert features[Diagnostics().watched(method, "avgpool")[0]].shape[0] == 12
    again, _ = diagnose(method)
    assert {k: v for k, v in again.items() if k != "diagnostics_s"} == {
        k: v for k, v in row.items() if k != "diagnostics_s"
    }


def test_groups_are_stages_and_blocks() -> None:
    names = ["conv1.weight", "layer4.1.conv2.weight", "block3.layer.0.conv1.weight", "blocks.3.mlp.0.weight"]
    assert list(map(group_of, names)) == ["conv1", "layer4", "block3", "blocks.3"]


def test_watched_layers_can_be_chosen_and_must_exist() -> None:
    assert Diagnostics(layers=("bn?",)).watched(build("trades"), "avgpool") == ["bn1", "bn2", "bn3"]
    with pytest.raises(ValueError, match="'bn9' matches no layer"):
        Diagnostics(layers=("bn9",)).watched(build("trades"), "avgpool")
