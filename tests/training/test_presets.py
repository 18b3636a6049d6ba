"""Presets: complete, valid, and with the constants of their sources, written out here once more by hand."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from arat_ray.training.attacks import Pgd
from arat_ray.training.methods import METHODS, AratSpec, ArrestSpec, LbgatSpec, MartSpec, PgdAtSpec, TradesSpec
from arat_ray.training.methods.arat import AutoBalance
from arat_ray.training.models import Resnet18
from arat_ray.training.optimizers import Sgd
from arat_ray.training.presets import PRESETS
from arat_ray.training.run import Train

MODELS = {"resnet18": "resnet18", "preact_resnet18": "preact_resnet18", "wrn34_10": "wide_resnet"}


def complete(preset: str, **given: Any) -> Train:
    return Train.model_validate({"preset": preset, "dataset": {"name": "cifar10"}, "seed": 0} | given)


def rates(train: Train) -> list[float]:
    """The learning rate of each epoch, epoch 1 first, at its first step and at its last."""
    found = []
    for epoch in range(train.epochs):
        first, last = (
            train.schedule.factor(epoch=epoch, epochs=train.epochs, progress=(epoch + share) / train.epochs)
            for share in (0, 389 / 390)
        )
        assert first == last
        found.append(train.optimizer.learning_rate * first)
    return found


@pytest.mark.parametrize("preset", list(PRESETS))
def test_every_preset_completes_a_data_set_and_a_seed_to_a_run_that_can_be_built(preset: str) -> None:
    train = complete(preset)
    train.check()
    method, network = preset.split("/")
    assert train.model.name == MODELS[network]
    assert train.method.name == next(name for name in sorted(METHODS, key=len)[::-1] if method.startswith(name))
    assert train.batch_size == 128
    assert isinstance(train.optimizer, Sgd)
    assert train.optimizer.momentum == 0.9
    assert not train.optimizer.nesterov
    assert (train.attack is None) == (method == "standard")


@pytest.mark.parametrize("preset", list(PRESETS))
def test_applying_what_a_preset_gave_changes_nothing(preset: str) -> None:
    train = complete(preset)
    assert Train.model_validate(train.model_dump(mode="json")) == train


SCHEDULES: dict[str, tuple[float, list[tuple[int, float]]]] = {
    # learning rate of each stretch of epochs, by its last epoch; weight decay first
    "pgd_at/preact_resnet18": (5e-4, [(100, 0.1), (150, 0.01), (200, 0.001)]),
    "pgd_at_awp/preact_resnet18": (5e-4, [(100, 0.1), (150, 0.01), (200, 0.001)]),
    "pgd_at_tricks/wrn34_10": (5e-4, [(100, 0.1), (105, 0.01), (110, 0.001)]),
    "trades/wrn34_10": (2e-4, [(74, 0.1), (76, 0.01)]),
    "trades_awp/wrn34_10": (5e-4, [(99, 0.1), (149, 0.01), (200, 0.001)]),
    "mart/resnet18": (3.5e-3, [(74, 0.01), (89, 1e-3), (99, 1e-4), (120, 1e-5)]),
    "mart/wrn34_10": (7e-4, [(74, 0.1), (89, 0.01), (90, 0.001)]),
    "lbgat/wrn34_10": (2e-4, [(1, 0.02), (75, 0.1), (90, 0.01), (100, 0.001)]),
    "arat/resnet18": (5e-4, [(1, 0.02), (76, 0.1), (91, 0.01), (100, 0.001)]),
    "arat_swa/wrn34_10": (5e-4, [(1, 0.02), (76, 0.1), (91, 0.01), (100, 0.001)]),
    "standard/resnet18": (5e-4, [(1, 0.02), (76, 0.1), (91, 0.01), (100, 0.001)]),
}


@pytest.mark.parametrize("preset", list(SCHEDULES))
def test_the_learning_rate_is_that_of_the_source_in_every_epoch(preset: str) -> None:
    weight_decay, stretches = SCHEDULES[preset]
    train = complete(preset)
    expected: list[float] = []
    for last, rate in stretches:
        expected += [rate] * (last - len(expected))
    assert rates(train) == pytest.approx(expected, rel=1e-12)
    assert train.optimizer.weight_decay == weight_decay


TRADES_ATTACK = Pgd(norm="linf", epsilon=0.031, step_size=0.007, steps=10, start="normal")
UNIFORM = Pgd(norm="linf", epsilon=8 / 255, step_size=2 / 255, steps=10, start="uniform")
ATTACKS = {
    "pgd_at": UNIFORM,
    "pgd_at_tricks": UNIFORM,
    "pgd_at_awp": UNIFORM,
    "trades": TRADES_ATTACK,
    "trades_awp": Pgd(norm="linf", epsilon=8 / 255, step_size=2 / 255, steps=10, start="normal"),
    "mart": TRADES_ATTACK,
    "lbgat": TRADES_ATTACK,
    "arrest": UNIFORM,
    "arat": UNIFORM,
    "arat_swa": UNIFORM,
}


@pytest.mark.parametrize("preset", [name for name in PRESETS if not name.startswith("standard")])
def test_the_attack_is_that_of_the_source(preset: str) -> None:
    assert complete(preset).attack == ATTACKS[preset.split("/")[0]]


def test_the_methods_constants_are_those_of_the_sources() -> None:
    for network in ("resnet18", "wrn34_10"):
        pgd_at, tricks = complete(f"pgd_at/{network}").method, complete(f"pgd_at_tricks/{network}").method
        assert (pgd_at, tricks) == (PgdAtSpec(attack_norm="train"), PgdAtSpec(attack_norm="eval"))
        trades, lbgat = complete(f"trades/{network}").method, complete(f"lbgat/{network}").method
        assert trades == TradesSpec(beta=6, attack_norm="eval", repeat_clean_forward=True)
        assert isinstance(lbgat, LbgatSpec)
        assert (lbgat.beta, lbgat.attack_norm) == (0, "eval")
        assert lbgat.teacher is not None
        assert lbgat.teacher == Resnet18(strides=(1, 1, 2, 2))
    assert complete("mart/resnet18").method == MartSpec(beta=5, attack_norm="eval")
    assert complete("mart/wrn34_10").method == MartSpec(beta=6, attack_norm="eval")
    for network, weight, layers in (
        ("resnet18", 30, ("layer4.*.bn?",)),
        ("wrn34_10", 100, ("block3.layer.*.relu?", "avgpool")),
    ):
        arat = complete(f"arat/{network}").method
        assert isinstance(arat, AratSpec)
        assert (arat.invariance_weight, arat.layers, arat.noisy_center, arat.attack_norm) == (
            weight,
            layers,
            True,
            "train",
        )
        assert arat.balance.model_dump() == {"name": "auto", "exponent": 1, "images": 1024, "sample": "fresh"}
        assert (arat.stop_gradient, arat.distance, arat.split_norm) == ("clean", "cosine", True)
        assert complete(f"arat_swa/{network}").method == arat
        assert complete(f"arat/{network}").averaging is None
        assert complete(f"arat_swa/{network}").averaging is not None
    assert isinstance(complete("arrest/resnet18").method, ArrestSpec)


@pytest.mark.parametrize(
    ("preset", "gamma", "warmup_epochs"),
    [("pgd_at_awp/preact_resnet18", 0.01, 0), ("pgd_at_awp/wrn34_10", 0.01, 0), ("trades_awp/wrn34_10", 0.005, 9)],
)
def test_weight_perturbation_starts_where_its_source_starts_it(preset: str, gamma: float, warmup_epochs: int) -> None:
    perturbation = complete(preset).weight_perturbation
    assert perturbation is not None
    assert (perturbation.gamma, perturbation.warmup_epochs) == (gamma, warmup_epochs)


def test_what_a_file_says_goes_before_the_preset_key_by_key() -> None:
    train = complete("trades/resnet18", method={"beta": 1}, attack={"steps": 7}, optimizer={"learning_rate": 0.05})
    assert isinstance(train.method, TradesSpec)
    assert (train.method.beta, train.method.repeat_clean_forward) == (1, True)
    assert train.attack == TRADES_ATTACK.model_copy(update={"steps": 7})
    assert (train.optimizer.learning_rate, train.optimizer.weight_decay) == (0.05, 2e-4)
    assert train.epochs == 76
    assert train.preset == "trades/resnet18"


def test_another_name_replaces_a_whole_mapping_of_the_preset() -> None:
    train = complete("trades/resnet18", method={"name": "mart"}, model={"name": "tiny"}, schedule={"name": "cosine"})
    assert train.method == MartSpec()
    assert train.model.model_dump() == {"name": "tiny", "width": 16, "norm": "batch"}
    assert train.schedule.model_dump() == {"name": "cosine", "warmup": 0, "final": 0}
    assert train.attack == TRADES_ATTACK


@pytest.mark.parametrize("field", ["averaging", "weight_perturbation"])
def test_null_takes_out_what_the_preset_has(field: str) -> None:
    preset = {"averaging": "arat_swa/resnet18", "weight_perturbation": "trades_awp/wrn34_10"}[field]
    assert getattr(complete(preset), field) is not None
    assert getattr(complete(preset, **{field: None}), field) is None


def test_presets_are_not_changed_by_what_is_put_over_them() -> None:
    before = repr(PRESETS)
    complete("arat/resnet18", method={"layers": ["avgpool"], "balance": {"name": "fixed", "adversarial": 0.5}})
    assert repr(PRESETS) == before


@pytest.mark.parametrize(
    ("name", "hint"), [("trades/resnet8", "did you mean 'trades/resnet18'"), ("xyzzy", "known: "), (7, "known: ")]
)
def test_an_unknown_preset_is_refused_with_the_one_probably_meant(name: Any, hint: str) -> None:
    with pytest.raises(ValidationError, match=f"no preset {name!r}.*{hint}"):
        complete(name)


L2 = {"norm": "l2", "epsilon": "128/255", "step_size": "32/255"}


@pytest.mark.parametrize("preset", [name for name in PRESETS if name.startswith("arat")])
def test_in_l2_arat_attacks_in_eval_mode_and_has_no_noisy_center_by_itself(preset: str) -> None:
    run = complete(preset, attack=L2)
    assert isinstance(run.method, AratSpec)
    assert (run.method.noisy_center, run.method.attack_norm) == (False, "eval")
    assert run.method.balance == complete(preset).method.balance  # type: ignore[union-attr]
    assert Train.model_validate(run.model_dump()) == run
    given = complete(preset, attack=L2, method={"attack_norm": "train"})
    assert isinstance(given.method, AratSpec)
    assert (given.method.noisy_center, given.method.attack_norm) == (False, "train")
    linf = complete(preset)
    assert isinstance(linf.method, AratSpec)
    assert (linf.method.noisy_center, linf.method.attack_norm) == (True, "train")


def test_what_a_file_says_deep_in_a_method_leaves_the_rest_of_both_presets() -> None:
    run = complete("arat/resnet18", method={"balance": {"images": 256}})
    assert isinstance(run.method, AratSpec)
    assert run.method.balance == AutoBalance(images=256, sample="fresh")
    lbgat = complete("lbgat/resnet18", method={"teacher": {"strides": [1, 2, 2, 2]}})
    assert lbgat.method.teacher.name == "resnet18"  # type: ignore[union-attr]
