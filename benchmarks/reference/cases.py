"""What is compared: ARAT as published and its switches, in both sides' words; and what is meant to differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Settings = Mapping[str, Any]
Network = Literal["resnet18", "wrn34_10"]


@dataclass(frozen=True)
class Case:
    """A run: `method` over the preset `arat/<network>` here, `authors` over the options of their scripts there."""

    title: str
    network: Network
    method: Settings = field(default_factory=dict)
    authors: Settings = field(default_factory=dict)


NO_PREDICTOR = {"is_use_predictor_xx": False}

CASES = [
    Case("ResNet-18, as published", "resnet18"),
    Case("WideResNet, as published", "wrn34_10"),
    Case(
        "ResNet-18, fixed weights of the cross-entropies",
        "resnet18",
        {"balance": {"name": "fixed", "adversarial": 0.7, "clean": 0.4}},
        {"is_auto_balance_ce_loss": False, "ce_loss_fxx_y_weight": 0.7, "ce_loss_gx_y_weight": 0.4},
    ),
    Case(
        "ResNet-18, balance with exponent 2",
        "resnet18",
        {"balance": {"name": "auto", "sample": "fresh", "exponent": 2}},
        {"auto_bal_prev_acc_weight": 2.0},
    ),
    Case("ResNet-18, no predictor", "resnet18", {"predictor": None}, NO_PREDICTOR),
    Case("ResNet-18, no stop-gradient", "resnet18", {"stop_gradient": "none"}, {"align_type": "y->x"}),
    Case(
        "ResNet-18, no stop-gradient, no predictor",
        "resnet18",
        {"stop_gradient": "none", "predictor": None},
        {**NO_PREDICTOR, "align_type": "x<->y"},
    ),
    Case(
        "ResNet-18, the adversarial side held, no predictor",
        "resnet18",
        {"stop_gradient": "adversarial", "predictor": None},
        {**NO_PREDICTOR, "align_type": "y->x"},
    ),
    Case(
        "ResNet-18, each side held in turn, no predictor",
        "resnet18",
        {"stop_gradient": "both", "predictor": None},
        {**NO_PREDICTOR, "align_type": "x->y,y->x"},
    ),
    Case("ResNet-18, distance mse", "resnet18", {"distance": "mse"}, {"feat_align_loss_metric": "mse"}),
    Case(
        "ResNet-18, distance kl",
        "resnet18",
        {"distance": "kl"},
        {"feat_align_loss_metric": "kl", "kd_temp": 1.0},
    ),
]

CONTROLS = [
    Case("the paper's clean input, x without noise (`noisy_center: false`)", "resnet18", {"noisy_center": False}),
    Case("an attack in eval mode (`attack_norm: eval`)", "resnet18", {"attack_norm": "eval"}),
    Case(
        "an attack that leaves running statistics alone (`attack_norm: train_frozen_stats`)",
        "resnet18",
        {"attack_norm": "train_frozen_stats"},
    ),
    Case("no stop-gradient (`stop_gradient: none`)", "resnet18", {"stop_gradient": "none"}),
    Case("an invariance weight of 30.001 for 30", "resnet18", {"invariance_weight": 30.001}),
]
"""Runs that compute something else than the authors' and must be found out."""

MEANT = [
    "`method.preset: official`, which all `arat/` presets have and so all cases above, does what the authors' code "
    "does: the clean input is x + U(-epsilon, epsilon), unclamped, the attack starts there, norms are in train mode "
    "while it runs, the balance is measured on new images each epoch. Without it the paper's equations hold.",
    "A ragged last batch of an epoch is left out; the authors train on it.",
    "Orders, crops and starts come from a stream each, seeded by seed and epoch; the authors' all from torch's own.",
    "Robust accuracy is measured around x, theirs around x + U(-epsilon, epsilon), up to 2 epsilon from x.",
    "AutoAttack is the standard one; theirs is torchattacks' with ten iterations.",
    "SWA takes other steps as snapshots, and norms are estimated anew in both branches on the final x'; theirs in the "
    "adversarial branch alone, on all iterates of the attack.",
    "A start of TRADES, MART and LBGAT is clamped to [0, 1] before the first gradient, theirs after it: compared on "
    "images in [0.2, 0.8], where neither clamps.",
    "A batch of two images: their hooks take the first image for the whole, see `len(f_out) == 2`.",
    "`stop_gradient: adversarial` holds the adversarial side; their `y->x` does so without a predictor alone, and with "
    "one lets both sides move, which is `none` here and compared as that.",
    "`stop_gradient: both` has one predictor for both sides; their `x->y,y->x` has one for one side, or calls one that "
    "is not there (`self.predictor`). It is compared without.",
]
"""Where this project differs from the authors' code by intent."""

NOT_COMPARED = [
    "PGD-AT, ARREST, standard training: no checkout has code of them.",
    "The networks and the optimisers of TRADES, MART and LBGAT: their loss functions ran on this project's.",
    "l2 attacks: theirs are torchattacks', which is no part of the checkout.",
    "The learning rate's schedule and the data pipeline: inside their `main()`, which downloads CIFAR and trains.",
    "bf16, several workers, GPUs: both sides run in float64 in one process on the CPU.",
]
