"""The loop's options: each resumed bit for bit, and what best.pt, last.pt and the deployed network then are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from arat_ray.training import checkpoint
from arat_ray.training.accuracy_counts import to_unit
from arat_ray.training.data import splits
from arat_ray.training.run import Train
from arat_ray.training.trainer import Trainer
from tests.training.runs import (
    assert_same_bits,
    assert_same_rows,
    best,
    few_digits,
    last,
    make,
    run,
    run_in_parts,
    validate,
)

ARAT = {"name": "arat", "invariance_weight": 3, "layers": ["bn3"]}
METHODS = [{"name": "pgd_at"}, ARAT]
OPTIONS: dict[str, dict[str, Any]] = {
    "swa": {"averaging": {"name": "swa", "start": 0.3, "norm_images": 40}},
    "swa-every-step": {"averaging": {"name": "swa", "start": 0.5, "every": 1, "norm_images": 30}},
    "ema": {"averaging": {"name": "ema", "decay": 0.9, "norm_images": 40}},
    "weight-perturbation": {"weight_perturbation": {"gamma": 0.01, "warmup_epochs": 1}},
    "gradient-clipping": {"gradient_clipping": 0.5},
    "label-smoothing": {"label_smoothing": 0.1},
    "augmentation": {"augmentation": "trivial_augment"},
    "bf16": {"precision": "bf16"},
    "bf16-attack": {"precision": {"attack": "bf16", "update": "tf32"}},
    "diagnostics": {"diagnostics": {"every": 1, "images": 20}},
    "diagnostics-on-a-ragged-number": {"diagnostics": {"every": 1, "images": 21}},
    "fewer-norm-images-than-a-batch": {"averaging": {"name": "swa", "start": 0.3, "norm_images": 1}},
    "nesterov": {"optimizer": {"name": "sgd", "nesterov": True}},
    "everything": {
        "averaging": {"name": "ema", "decay": 0.9, "start": 0.4, "norm_images": 40},
        "weight_perturbation": {"gamma": 0.01},
        "gradient_clipping": 0.5,
        "label_smoothing": 0.1,
        "augmentation": "trivial_augment",
        "precision": "bf16",
        "diagnostics": {"every": 2, "images": 20},
    },
}


BYSTANDERS = {"averaging", "diagnostics"}
"""Options that do not touch the training itself."""


@pytest.fixture(autouse=True)
def _sixty_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    few_digits(monkeypatch, 60)  # 50 to train on


MEASURED = validate(10)


def small(**fields: Any) -> Train:
    defaults = {"epochs": 3, "optimizer": {"name": "sgd", "learning_rate": 0.05}}
    return make(**defaults | fields)


@pytest.mark.parametrize("option", list(OPTIONS))
@pytest.mark.parametrize("method", METHODS, ids=["pgd_at", "arat"])
def test_a_run_with_any_option_resumes_bit_for_bit(method: dict[str, Any], option: str, tmp_path: Path) -> None:
    spec = small(method=method, **OPTIONS[option])
    whole = run(spec, MEASURED, tmp_path / "whole")
    parts = run_in_parts(spec, MEASURED, tmp_path / "parts", 1, 2)
    assert [row["replayed"] for row in parts] == [True, True, False]
    assert_same_rows(parts, whole)
    mine, wanted = last(tmp_path / "parts"), last(tmp_path / "whole")
    for name in ("method", "optimizer", "average", "features", "epoch", "train", "validate", "validation_sha256"):
        assert_same_bits(getattr(mine, name), getattr(wanted, name))
    assert_same_bits(best(tmp_path / "parts").method, best(tmp_path / "whole").method)
    assert (mine.average is not None) == (spec.averaging is not None)
    assert bool(mine.features) == (spec.diagnostics is not None)


@pytest.mark.parametrize("option", [name for name, fields in OPTIONS.items() if not {*fields} <= BYSTANDERS])
def test_an_option_makes_a_difference_to_the_weights(option: str, tmp_path: Path) -> None:
    run(small(), MEASURED, tmp_path / "without")
    run(small(**OPTIONS[option]), MEASURED, tmp_path / "with")
    weight = "model.linear.weight"
    assert not torch.equal(last(tmp_path / "with").method[weight], last(tmp_path / "without").method[weight])


@pytest.mark.parametrize("option", ["swa", "ema", "diagnostics"])
@pytest.mark.parametrize("method", METHODS, ids=["pgd_at", "arat"])
def test_watching_and_averaging_leave_the_training_itself_alone(
    method: dict[str, Any], option: str, tmp_path: Path
) -> None:
    run(small(method=method), MEASURED, tmp_path / "without")
    run(small(method=method, **OPTIONS[option]), MEASURED, tmp_path / "with")
    assert_same_bits(last(tmp_path / "with").method, last(tmp_path / "without").method)
    assert_same_bits(last(tmp_path / "with").optimizer, last(tmp_path / "without").optimizer)


def test_perturbed_weights_come_back_only_after_the_warmup(tmp_path: Path) -> None:
    run(small(), MEASURED, tmp_path / "without")
    run(small(weight_perturbation={"warmup_epochs": 2}), MEASURED, tmp_path / "late", stop_after=2)
    run(small(), MEASURED, tmp_path / "two", stop_after=2)
    assert_same_bits(last(tmp_path / "late").method, last(tmp_path / "two").method)
    run(small(weight_perturbation={"warmup_epochs": 2}), MEASURED, tmp_path / "late")
    weight = "model.conv1.weight"
    assert not torch.equal(last(tmp_path / "late").method[weight], last(tmp_path / "without").method[weight])


def test_the_gradient_is_no_longer_than_it_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[float] = []
    step = torch.optim.SGD.step

    def watched(self: torch.optim.SGD, *arguments: Any) -> Any:
        gradients = [p.grad.flatten() for group in self.param_groups for p in group["params"]]
        lengths.append(torch.cat(gradients).norm().item())
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.SGD, "step", watched)
    run(small(epochs=1), MEASURED, tmp_path / "free")
    free, lengths[:] = list(lengths), []
    run(small(epochs=1, gradient_clipping=0.1), MEASURED, tmp_path / "clipped")
    assert min(free) > 0.1
    assert lengths == pytest.approx([0.1, 0.1], rel=1e-4)


def logits_of(network: nn.Module) -> Tensor:
    with torch.no_grad():
        return network(torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)))  # type: ignore[no-any-return]


@pytest.mark.parametrize("option", ["swa", "ema"])
@pytest.mark.parametrize("method", METHODS, ids=["pgd_at", "arat"])
def test_the_deployed_network_is_the_average_and_the_raw_weights_can_be_had(
    method: dict[str, Any], option: str, tmp_path: Path
) -> None:
    spec = small(method=method, **OPTIONS[option])
    rows = run(spec, MEASURED, tmp_path)
    state = last(tmp_path)
    assert state.average is not None
    assert state.weights == option
    averaged, raw = checkpoint.network(state), checkpoint.network(state, averaged=False)
    assert not torch.equal(logits_of(averaged), logits_of(raw))
    plain = spec.build()
    plain.load_state_dict(state.method)
    assert torch.equal(logits_of(raw), logits_of(plain.model.eval()))
    plain.load_state_dict(state.average["method"])
    assert torch.equal(logits_of(averaged), logits_of(plain.model.eval()))
    images = splits.load(spec.dataset, validate_on="validation", images=10, seed=0).validation
    right = (averaged(to_unit(images.images)).argmax(1) == images.labels).sum()
    assert rows[-1]["validation_clean_accuracy"] == int(right) / 10


def test_stochastic_weight_averaging_takes_the_plain_mean_of_its_snapshots(tmp_path: Path) -> None:
    """SWA with one snapshot an epoch, from the second of three: the mean of the raw weights of epochs 2 and 3."""
    spec = small(averaging={"name": "swa", "start": 0.4, "norm_images": 40})
    run(spec, MEASURED, tmp_path, stop_after=2)
    second = last(tmp_path).method
    run(spec, MEASURED, tmp_path)
    state = last(tmp_path)
    assert state.average is not None
    for name in ("model.conv1.weight", "model.linear.weight", "model.bn2.weight"):
        mean = (second[name] + state.method[name]) / 2
        torch.testing.assert_close(state.average["method"][name], mean)


def test_best_is_the_most_robust_measurement_and_last_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    robust = iter([0.25, 0.5, 0.5, 0.375])
    monkeypatch.setattr(
        Trainer,
        "measure",
        lambda self, epoch: {
            "validation_clean_accuracy": 0.5,
            "validation_robust_accuracy": next(robust),
            "validation_images": 8,
        },
    )
    kept: dict[int, dict[str, Tensor]] = {}
    for stop_after in (1, 2, 3, 4):
        run(small(epochs=4), MEASURED, tmp_path, stop_after=stop_after)
        kept[stop_after] = last(tmp_path).method
    assert best(tmp_path).epoch == 2  # the first of equals
    assert_same_bits(best(tmp_path).method, kept[2])
    assert last(tmp_path).epoch == 4
    assert_same_bits(last(tmp_path).method, kept[4])
    assert best(tmp_path).optimizer == {}
    assert logits_of(checkpoint.network(best(tmp_path))).shape == (4, 10)


def test_choosing_the_best_compares_with_measured_epochs_only(tmp_path: Path) -> None:
    rows = run(small(epochs=4), validate(10, every=2), tmp_path)
    measured = {row["epoch"]: row["validation_robust_accuracy"] for row in rows if "validation_images" in row}
    assert list(measured) == [2, 4]
    assert best(tmp_path).epoch == max(measured, key=lambda epoch: (measured[epoch], -epoch))
