"""Train: combinations of parts that cannot work are refused, with the reason and the way out."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from arat_ray.training.run import Train, Validate

PGD = {"name": "pgd", "norm": "linf", "epsilon": "8/255", "step_size": "2/255", "steps": 2}
ARAT = {"name": "arat", "invariance_weight": 3, "layers": ["conv3"]}
L2 = {"name": "pgd", "norm": "l2", "epsilon": 0.5, "step_size": 0.1, "steps": 2}


def make(**fields: Any) -> Train:
    defaults: dict[str, Any] = {
        "dataset": {"name": "digits"},
        "model": {"name": "tiny", "width": 4},
        "method": {"name": "pgd_at"},
        "attack": PGD,
        "epochs": 3,
        "batch_size": 32,
        "seed": 5,
    }
    return Train.model_validate(defaults | fields)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"attack": None}, "method 'pgd_at' needs `attack:`"),
        ({"method": ARAT, "attack": None}, "method 'arat' needs `attack:`"),
        ({"method": {"name": "trades"}, "attack": PGD | {"start": "center"}}, "no gradient at x' = x; use normal"),
        ({"method": {"name": "lbgat"}, "attack": PGD | {"start": "center"}}, r"attack\.start: center with .*'lbgat'"),
        ({"method": {"name": "arrest", "standard_epochs": 3}}, r"standard_epochs 3 leaves none of 3 epochs"),
        ({"method": {"name": "arrest", "standard_epochs": 9}}, r"standard_epochs 9 leaves none of 3 epochs"),
        ({"method": ARAT | {"noisy_center": True}, "attack": L2}, "linf only; set noisy_center: false"),
        ({"method": ARAT | {"preset": "official", "noisy_center": True}, "attack": L2}, "set noisy_center: false"),
        ({"weight_perturbation": {"warmup_epochs": 3}}, r"warmup_epochs 3 leaves none of 3 epochs"),
        ({"label_smoothing": 1}, "label_smoothing"),
        ({"gradient_clipping": 0}, "gradient_clipping"),
        ({"precision": "fp16"}, "precision"),
        ({"optimizer": {"name": "sgd", "momentum": 0, "nesterov": True}}, "nesterov needs a momentum above 0"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused_with_a_reason(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        make(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"method": {"name": "standard"}, "attack": None},
        {"method": {"name": "mart"}, "attack": PGD | {"start": "center"}},
        {"method": {"name": "trades"}, "attack": PGD | {"start": "normal"}},
        {"method": {"name": "lbgat"}, "attack": L2 | {"start": "uniform"}},
        {"method": {"name": "arrest", "standard_epochs": 2}},
        {"method": ARAT | {"preset": "official"}, "attack": L2},
        {"method": ARAT | {"preset": "official", "noisy_center": False}, "attack": L2},
        {"weight_perturbation": {"warmup_epochs": 2}},
        {"method": ARAT | {"split_norm": False}, "model": {"name": "tiny", "norm": "none"}},
    ],
)
def test_their_neighbours_that_can_work_are_built(fields: dict[str, Any]) -> None:
    make(**fields).check()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"method": ARAT, "model": {"name": "tiny", "norm": "none"}}, r"no norm layer to split; set split_norm: false"),
        ({"method": ARAT | {"layers": ["layer9.*"]}}, r"layer pattern 'layer9\.\*' matches no layer"),
        ({"diagnostics": {"layers": ["layer9"]}}, "layer pattern 'layer9' matches no layer"),
    ],
)
def test_what_only_the_network_can_tell_is_told_by_a_check_without_data(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        make(**fields).check()


def test_one_seed_builds_one_network_whatever_torch_drew_before() -> None:
    first, again, other = make().build(), make().build(), make(seed=6).build()
    for (name, a), b, c in zip(first.named_parameters(), again.parameters(), other.parameters(), strict=True):
        assert a.equal(b)
        assert name.startswith("model.bn") or not a.equal(c)


def test_test_images_cannot_choose_the_best_state() -> None:
    with pytest.raises(ValidationError, match="would choose on the test images"):
        Validate.model_validate({"every": 1, "images": 5, "split": "test", "choose": "best", "attack": PGD})
