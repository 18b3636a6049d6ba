"""Presets: whole training runs as published, by name; what a file says itself goes before them.

`<method>/<network>` is the run of the method's source: attack, norm mode, optimiser, schedule and constants. Radii and
steps are those of the source, too (TRADES and its kin: 0.031 and 0.007, which are not 8/255 and 2/255), and epochs of
decays are written as shares of the run.

What still differs from the published code: no preset normalises its input (Rice's and AWP's do, inside the model); the
rate changes between epochs (Rice's one step before); a ragged last batch is left out; a normal start is clamped to
[0, 1] before the first gradient; ARAT's SWA takes 20 snapshots from step 250 of epoch 76 (the authors' 19 from step
284). All batch losses and gradients are the source's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_core import PydanticCustomError

from arat_ray.spec import merge
from arat_ray.text import did_you_mean

Settings = Mapping[str, Any]


def _sgd(learning_rate: float, weight_decay: float) -> Settings:
    return {"name": "sgd", "learning_rate": learning_rate, "momentum": 0.9, "weight_decay": weight_decay}


def _pgd(epsilon: str, step_size: str, start: str) -> Settings:
    return {"name": "pgd", "norm": "linf", "epsilon": epsilon, "step_size": step_size, "steps": 10, "start": start}


def _decays(*epochs: int, of: int, warmup: bool = False) -> Settings:
    """A tenth of the rate from the start of each of `epochs` (from 1) of so many; 0.2 of it in epoch 1."""
    shares = [(epoch - 1) / of for epoch in epochs]
    return {"name": "piecewise", "warmup_epochs": int(warmup), "decays": shares}


RESNET18 = {"name": "resnet18"}
PREACT_RESNET18 = {"name": "preact_resnet18"}
WRN34_10 = {"name": "wide_resnet", "depth": 34, "width": 10}

OURS = _pgd("8/255", "2/255", "uniform")
TRADES_ATTACK = _pgd("0.031", "0.007", "normal")


def _standard(model: Settings) -> Settings:
    """The clean end of the trade-off, on ARAT's optimiser and schedule: no source of its own."""
    return {
        "model": model,
        "method": {"name": "standard"},
        "epochs": 100,
        "batch_size": 128,
        "optimizer": _sgd(0.1, 5e-4),
        "schedule": _decays(77, 92, of=100, warmup=True),
    }


def _pgd_at(model: Settings) -> Settings:
    """Rice et al., https://arxiv.org/abs/2002.11569, `train_cifar.py` of locuslab/robust_overfitting."""
    return {
        "model": model,
        "method": {"name": "pgd_at", "attack_norm": "train"},
        "attack": OURS,
        "epochs": 200,
        "batch_size": 128,
        "optimizer": _sgd(0.1, 5e-4),
        "schedule": _decays(101, 151, of=200),
    }


def _pgd_at_tricks(model: Settings) -> Settings:
    """Pang et al., https://arxiv.org/abs/2010.00467: 110 epochs, decays at 100 and 105, norms in eval mode."""
    return {
        **_pgd_at(model),
        "method": {"name": "pgd_at", "attack_norm": "eval"},
        "epochs": 110,
        "schedule": _decays(101, 106, of=110),
    }


def _trades(model: Settings) -> Settings:
    """`train_trades_cifar10.py` and `trades.py` of yaodongyu/TRADES: 76 epochs, of which the last two at a tenth."""
    return {
        "model": model,
        "method": {"name": "trades", "beta": 6.0, "attack_norm": "eval", "repeat_clean_forward": True},
        "attack": TRADES_ATTACK,
        "epochs": 76,
        "batch_size": 128,
        "optimizer": _sgd(0.1, 2e-4),
        "schedule": _decays(75, of=76),
    }


def _mart(model: Settings, beta: float, rate: float, decay: float, epochs: int, *decays: int) -> Settings:
    """`train_resnet.py` and `train_wrn.py` of YisenWang/MART, whose constants differ a lot."""
    return {
        "model": model,
        "method": {"name": "mart", "beta": beta, "attack_norm": "eval"},
        "attack": TRADES_ATTACK,
        "epochs": epochs,
        "batch_size": 128,
        "optimizer": _sgd(rate, decay),
        "schedule": _decays(*decays, of=epochs),
    }


def _lbgat(model: Settings) -> Settings:
    """`lbgat.py` and `sh/train_lbgat0_cifar100.sh` of dvlab-research/LBGAT, which has no script for CIFAR-10: beta 0,
    the natural network a ResNet-18."""
    return {
        "model": model,
        "method": {
            "name": "lbgat",
            "beta": 0.0,
            "teacher": {"name": "resnet18", "strides": [1, 1, 2, 2]},
            "attack_norm": "eval",
        },
        "attack": TRADES_ATTACK,
        "epochs": 100,
        "batch_size": 128,
        "optimizer": _sgd(0.1, 2e-4),
        "schedule": _decays(76, 91, of=100, warmup=True),
    }


def _arrest(model: Settings) -> Settings:
    """Suzuki et al., https://arxiv.org/abs/2308.16454; no code is published, so all constants are this project's."""
    return {
        "model": model,
        "method": {"name": "arrest", "standard_epochs": 50},
        "attack": OURS,
        "epochs": 150,
        "batch_size": 128,
        "optimizer": _sgd(0.1, 5e-4),
        "schedule": _decays(126, 141, of=150, warmup=True),
    }


def _arat(model: Settings, weight: float, layers: list[str], **more: Any) -> Settings:
    """`scripts/ARAT` of futakw/AR-AT: what the authors' code trains, its noisy center included."""
    return {
        "model": model,
        "method": {"name": "arat", "preset": "official", "invariance_weight": weight, "layers": layers},
        "attack": OURS,
        "epochs": 100,
        "batch_size": 128,
        "optimizer": _sgd(0.1, 5e-4),
        "schedule": _decays(77, 92, of=100, warmup=True),
        **more,
    }


ARAT_SWA = {"name": "swa", "start": 0.75, "every": 500, "norm_images": 50_000}
RESNET18_LAYERS = ["layer4.*.bn?"]
WRN34_10_LAYERS = ["block3.layer.*.relu?", "avgpool"]
AWP_SCHEDULE = _decays(100, 150, of=200)

PRESETS: dict[str, Settings] = {
    "standard/resnet18": _standard(RESNET18),
    "standard/wrn34_10": _standard(WRN34_10),
    "pgd_at/resnet18": _pgd_at(RESNET18),
    "pgd_at/preact_resnet18": _pgd_at(PREACT_RESNET18),
    "pgd_at/wrn34_10": _pgd_at(WRN34_10),
    "pgd_at_tricks/resnet18": _pgd_at_tricks(RESNET18),
    "pgd_at_tricks/wrn34_10": _pgd_at_tricks(WRN34_10),
    "pgd_at_awp/preact_resnet18": {**_pgd_at(PREACT_RESNET18), "weight_perturbation": {"gamma": 0.01}},
    "pgd_at_awp/wrn34_10": {**_pgd_at(WRN34_10), "weight_perturbation": {"gamma": 0.01}},
    "trades/resnet18": _trades(RESNET18),
    "trades/wrn34_10": _trades(WRN34_10),
    "trades_awp/wrn34_10": {
        **_trades(WRN34_10),
        "attack": _pgd("8/255", "2/255", "normal"),
        "epochs": 200,
        "optimizer": _sgd(0.1, 5e-4),
        "schedule": AWP_SCHEDULE,
        "weight_perturbation": {"gamma": 0.005, "warmup_epochs": 9},
    },
    "mart/resnet18": _mart(RESNET18, 5.0, 0.01, 3.5e-3, 120, 75, 90, 100),
    "mart/wrn34_10": _mart(WRN34_10, 6.0, 0.1, 7e-4, 90, 75, 90),
    "lbgat/resnet18": _lbgat(RESNET18),
    "lbgat/wrn34_10": _lbgat(WRN34_10),
    "arrest/resnet18": _arrest(RESNET18),
    "arrest/wrn34_10": _arrest(WRN34_10),
    "arat/resnet18": _arat(RESNET18, 30, RESNET18_LAYERS),
    "arat/wrn34_10": _arat(WRN34_10, 100, WRN34_10_LAYERS),
    "arat_swa/resnet18": _arat(RESNET18, 30, RESNET18_LAYERS, averaging=ARAT_SWA),
    "arat_swa/wrn34_10": _arat(WRN34_10, 100, WRN34_10_LAYERS, averaging=ARAT_SWA),
}


def apply(given: Settings) -> dict[str, Any]:
    """What `given` says under `train:`, completed by the preset that it names, if it names one.

    Raises pydantic's error for an unknown name.
    """
    name = given.get("preset")
    if name is None:
        return dict(given)
    if not isinstance(name, str) or name not in PRESETS:
        raise PydanticCustomError("preset", "no preset {name}", {"name": f"{name!r}{did_you_mean(str(name), PRESETS)}"})
    return merge(PRESETS[name], given)
