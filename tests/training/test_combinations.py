"""Every method on every network with every norm: built, trained, saved, interrupted, resumed, deployed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from arat_ray.training import checkpoint
from arat_ray.training.methods import METHODS
from arat_ray.training.models import MODELS
from tests.training.runs import assert_same_bits, assert_same_rows, few_digits, last, make, run, run_in_parts, validate

SMALL: dict[str, dict[str, Any]] = {
    "resnet18": {"width": 1},
    "preact_resnet18": {"width": 1},
    "wide_resnet": {"depth": 10, "width": 1},
    "vit": {"patch": 4, "width": 4, "depth": 1, "heads": 1},
    "tiny": {"width": 1},
}
NEEDED: dict[str, dict[str, Any]] = {
    "arat": {"invariance_weight": 5, "layers": ["avgpool"]},
    "arrest": {"standard_epochs": 1},
    "lbgat": {"beta": 1},
}
NETWORKS = [(name, norm) for name, model in MODELS.items() for norm in get_args(model.model_fields["norm"].annotation)]


def test_the_menu_of_norms_is_read_from_the_specs() -> None:
    assert ("tiny", "none") in NETWORKS
    assert {name for name, _ in NETWORKS} == set(MODELS) == set(SMALL)


@pytest.mark.parametrize(("model", "norm"), NETWORKS, ids=["-".join(network) for network in NETWORKS])
@pytest.mark.parametrize("method", list(METHODS))
def test_every_combination_trains_resumes_bit_for_bit_and_is_deployed(
    method: str, model: str, norm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few_digits(monkeypatch, 24)
    split = {"split_norm": False} if method == "arat" and norm == "none" else {}
    spec = make(
        model={"name": model, "norm": norm, **SMALL[model]},
        method={"name": method, **NEEDED.get(method, {}), **split},
        optimizer={"name": "sgd", "learning_rate": 0.01},
    )
    measured = validate(4)
    whole = run(spec, measured, tmp_path / "whole")
    parts = run_in_parts(spec, measured, tmp_path / "parts", 1)
    assert [row["replayed"] for row in parts] == [True, False]
    assert_same_rows(parts, whole)
    state, wanted = last(tmp_path / "parts"), last(tmp_path / "whole")
    assert_same_bits(state.method, wanted.method)
    assert_same_bits(state.optimizer, wanted.optimizer)
    assert state.epoch == 2
    network = checkpoint.network(state)
    assert set(network.state_dict()) == set(spec.model.build((1, 8, 8), 10).state_dict())
    logits = network(torch.rand(3, 1, 8, 8))
    assert logits.shape == (3, 10)
    assert logits.isfinite().all()
