"""Rows: every column of every table, with its type, its meaning, its unit and when it is null.

The text below a column is for docs/results.md: the meaning, its unit, when it is null.
A row is made piece by piece, so every column may be missing; what is missing or None is null in the table.
"""

from __future__ import annotations

from datetime import datetime
from typing import TypedDict

from arat_ray.results.statuses import Status


class TrialRow(TypedDict, total=False):
    """A row of `trials`: one attempt at a trial. After `seed` come the columns `param_<path>` of the search space."""

    trial_id: str
    """`<study>-<number>`, as in `checkpoints/`."""
    attempt: int
    """From 1; another one where a worker was lost. The highest counts."""
    study: str
    """Name of the study."""
    number: int
    """Of the trial in the study, from 0."""
    status: Status
    """running, complete, stopped (it may go on), failed, or pruned by early stopping."""
    stop_reason: str
    """Why it was stopped or pruned. Null: it never was."""
    error: str | None
    """Why it failed. Null: it did not."""
    config: str
    """The whole run, resolved, as JSON."""
    config_hash: str
    """Of `config`."""
    seed: int
    """`train.seed` of this run."""
    clean_accuracy: float | None
    """On the validation images, at the last measurement; with `choose: best` at the most robust. Unit: share. Null:
    before the first measurement."""
    robust_accuracy: float | None
    """The same, right clean and under the attack. Unit: share. Null: before the first measurement."""
    dial_hypervolume: float | None
    """Area above (0, 0) that the network dominates with both accuracies at the settings `validate.dials` and as
    deployed. Unit: share of the unit square. Null: before the first measurement, or there are no such settings."""
    images: int
    """Validation images behind these numbers. Unit: images. Null: before the first measurement."""
    attack: str
    """Its short name, such as pgd-20."""
    norm: str
    """linf or l2."""
    epsilon: float
    """Radius of the attack, in pixel units of [0, 1]. Unit: pixel units."""
    split: str
    """validation or test."""
    epochs_done: int
    """Epochs trained so far. Unit: epochs."""
    is_full_fidelity: bool
    """Whether it was measured after its last epoch."""
    on_front: bool
    """Whether no other complete trial beats it in all goals."""
    feasible: bool
    """Whether it keeps all constraints. Null: it is not complete, or there are no constraints."""
    broken_constraints: str | None
    """Those that it breaks, in words. Null: it breaks none."""
    proposed_by: str
    """first (a known point of the file), default (what `train` says), start (quasi-random), random, gain (what it was
    expected to add to the front), or the sampler's name. Null: nobody proposed it, or a study of before."""
    proposed_expected: dict[str, float]
    """Its goals' values at its end as expected when it was proposed, by name. Null: not proposed by gain."""
    proposed_deviation: dict[str, float]
    """Standard deviations of these. Null: not proposed by gain."""
    proposed_gain: float
    """Hypervolume that it was expected to add to the front, the running trials believed. Null: not proposed by gain."""
    workers: int
    """Workers of the trial. Unit: workers."""
    device: str
    """Name of the GPU or CPU trained on. Null: before the first epoch's end."""
    train_s: float
    """Wall time of the attempt. Unit: s."""
    device_s: float
    """Time of devices that the attempt held: its time by GPUs, or by workers where there are none. Unit: s."""
    cost_usd: float | None
    """By `resources.price`. Unit: US dollars. Null: no price is given."""
    peak_memory_gib: float
    """Most memory held. Unit: GiB. Null: before the first epoch's end."""
    checkpoint: str
    """Of the measured network, within the study. Null: before the first measurement."""
    started_at: datetime | None
    """When the attempt began. Unit: UTC."""
    ended_at: datetime | None
    """When it ended. Unit: UTC. Null: it runs."""


class EpochRow(TypedDict, total=False):
    """A row of `epochs`: what one epoch of one trial measured."""

    trial_id: str
    """As in `trials`."""
    attempt: int
    """As in `trials`."""
    epoch: int
    """From 1."""
    loss_adversarial: float
    """Weighted loss on adversarial images, mean over the epoch's steps. Unit: nats."""
    loss_clean: float
    """Likewise on clean images. Unit: nats."""
    loss_invariance: float
    """Likewise of the method's third term: ARAT's invariance, TRADES' KL, LBGAT's logits."""
    balance: float | None
    """Weight of the adversarial cross-entropy. Unit: share. Null: the method does not balance two."""
    learning_rate: float
    """Of the epoch's last step."""
    train_clean_accuracy: float | None
    """On augmented images, as training went. Unit: share. Null: the method does not compute it."""
    train_robust_accuracy: float | None
    """Likewise under the training attack. Unit: share. Null: the method does not compute it."""
    train_images: int
    """Training images seen in the epoch. Unit: images."""
    validation_clean_accuracy: float
    """On the validation images. Unit: share. Null: not measured in this epoch."""
    validation_robust_accuracy: float
    """Likewise right clean and under the attack. Unit: share. Null: not measured in this epoch."""
    validation_dial_hypervolume: float
    """Area above (0, 0) that the network dominates with both accuracies at the settings `validate.dials` and as
    deployed. Unit: share of the unit square. Null: not measured in this epoch, or there are no such settings."""
    validation_dial_clean_accuracy: dict[str, float]
    """Clean accuracy at each of these settings, by its number; 0 is deployed. A setting at which the network is not
    defined is left out. Unit: share. Null: likewise."""
    validation_dial_robust_accuracy: dict[str, float]
    """Likewise right clean and under the attack. Unit: share. Null: likewise."""
    validation_images: int
    """Images behind them. Unit: images. Null: not measured in this epoch."""
    gradient_norm: float
    """Length of the whole gradient. Null: `diagnostics` did not measure in this epoch."""
    gradient_norm_classification: float
    """Length of the gradient of adversarial and clean loss. Null: `diagnostics` did not measure in this epoch."""
    gradient_norm_classification_by_layer: dict[str, float]
    """The same of each layer, or group of layers, by name. Null: `diagnostics` did not measure in this epoch."""
    gradient_norm_invariance: float
    """Length of the gradient of the invariance loss. Null: `diagnostics` did not measure in this epoch."""
    gradient_norm_invariance_by_layer: dict[str, float]
    """The same of each layer, or group of layers, by name. Null: `diagnostics` did not measure in this epoch."""
    gradient_cosine: float
    """Cosine between these two gradients; below 0 they conflict. Null: `diagnostics` did not measure in this epoch, or
    the method has no third term."""
    gradient_cosine_by_layer: dict[str, float]
    """The same of each layer, or group of layers, by name. Null: `diagnostics` did not measure in this epoch, or the
    method has no third term."""
    conflict_fraction: float
    """Share of the weights where their signs differ. Unit: share. Null: `diagnostics` did not measure in this epoch, or
    the method has no third term."""
    conflict_fraction_by_layer: dict[str, float]
    """The same of each layer, or group of layers, by name. Unit: share. Null: `diagnostics` did not measure in this
    epoch, or the method has no third term."""
    bn_divergence: float
    """Symmetrised KL between clean and adversarial inputs of a norm layer. Unit: nats. Null: `diagnostics` did not
    measure in this epoch, or there is no norm layer."""
    bn_divergence_by_layer: dict[str, float]
    """The same of each layer, or group of layers, by name. Unit: nats. Null: `diagnostics` did not measure in this
    epoch."""
    bn_mismatch: float
    """The same between the running statistics of a batch norm and the inputs that it serves. Unit: nats. Null:
    `diagnostics` did not measure in this epoch, or there is no batch norm."""
    bn_mismatch_by_layer: dict[str, float]
    """The same of each layer, or group of layers, by name. Unit: nats. Null: `diagnostics` did not measure in this
    epoch."""
    representation_distance: float
    """1 - cosine of clean and adversarial features. Null: `diagnostics` did not measure in this epoch."""
    representation_distance_by_layer: dict[str, float]
    """The same of each layer, or group of layers, by name. Null: `diagnostics` did not measure in this epoch."""
    representation_drift: float
    """1 - cosine of the adversarial features now and at the measurement before. Null: `diagnostics` did not measure in
    this epoch, or for the first time."""
    representation_drift_by_layer: dict[str, float]
    """The same of each layer, or group of layers, by name. Null: `diagnostics` did not measure in this epoch, or for
    the first time."""
    predicted_distance: float
    """1 - cosine of clean features and predicted adversarial ones. Null: `diagnostics` did not measure in this epoch,
    or there is no predictor."""
    predicted_distance_by_layer: dict[str, float]
    """The same of each layer, or group of layers, by name. Null: `diagnostics` did not measure in this epoch, or there
    is no predictor."""
    predicted_drift: float
    """1 - cosine of the predictor's outputs now and at the measurement before. Null: `diagnostics` did not measure in
    this epoch, or for the first time, or there is no predictor."""
    predicted_drift_by_layer: dict[str, float]
    """The same of each layer, or group of layers, by name. Null: `diagnostics` did not measure in this epoch, or for
    the first time, or there is no predictor."""
    diagnostics_s: float
    """Time that the diagnostics took. Unit: s. Null: `diagnostics` did not measure in this epoch."""
    epoch_s: float
    """Time of the epoch's training. Unit: s."""
    attack_s: float
    """Of it, time in attacks. Unit: s."""
    images_per_s: float
    """Training images a second. Unit: 1/s."""


class DecisionRow(TypedDict, total=False):
    """A row of `decisions`: what early stopping decided on a trial. Its peers are those of the rung up to its order."""

    trial_id: str
    """As in `trials`."""
    rung: int
    """The epoch at which was decided."""
    order: int
    """In which the study's decisions were made, from 0."""
    number: int
    """Of the trial."""
    goals: dict[str, float | None]
    """Its goals' values then, by name; a value is null where it was not measured."""
    goes_on: bool
    """The decision."""
    rank: int | None
    """From 1, of as many as `of`. Null: a goal was missing, or it is no ranking that decides."""
    of: int
    """Trials that had reached the rung, this one among them; for expected_gain those complete or past the first rung.
    Unit: trials."""
    keep: int | None
    """How many of them go on. Unit: trials. Null: it is no ranking that decides."""
    front: int | None
    """From 1: the non-dominated front it lies on among them. Null: a goal was missing, or it is no ranking that
    decides."""
    beaten_by: list[int]
    """Numbers of the trials that dominate it there."""
    behind: list[int]
    """Numbers of those on the same front that come first, by spread."""
    expected: dict[str, float] | None
    """Its goals' values at its end as expected then, by name. Null: expected_gain had compared nothing."""
    deviation: dict[str, float] | None
    """Standard deviations of these. Null: expected_gain had compared nothing."""
    gain: float | None
    """Hypervolume that it was expected to add, an epoch that was left. Null: expected_gain had compared nothing."""
    gain_of_new: float | None
    """Hypervolume that the best new trial was expected to add, an epoch. Null: expected_gain had compared nothing."""
    why: str
    """In words."""
    decided_at: datetime
    """When. Unit: UTC."""


class EvaluationRow(TypedDict, total=False):
    """A row of `evaluations`: a network's accuracy on the images of a split, without an attack or under one."""

    evaluation_id: str
    """Of a row: one for clean, one for each attack."""
    trial_id: str | None
    """Of the network's trial."""
    checkpoint: str | None
    """last, best, swa or ema; fitted-last where `dial --fit` gave it a clean branch; soup-layers-00007-last and
    mix-layers-00007-last of two networks, this trial's and another's."""
    checkpoint_sha256: str
    """Of the checkpoint's file."""
    dial: float | None
    """Setting between the norm branches: 0 adversarial, 1 clean; of a soup or mixture the other's share. Null: as
    deployed, not measured by `dial`."""
    split: str | None
    """Measured on."""
    attack: str
    """Its name; none for the clean accuracy."""
    attack_version: str
    """Whose code attacked, and in which mode."""
    norm: str | None
    """linf or l2. Null: there is no attack."""
    epsilon: float | None
    """Radius, in pixel units of [0, 1]. Unit: pixel units. Null: there is no attack."""
    images: int
    """Measured on. Unit: images."""
    correct: int
    """Of them, right clean and under the attack. Unit: images."""
    accuracy: float
    """correct / images. Unit: share."""
    ci_low: float
    """Lower end of Wilson's 95 % interval. Unit: share."""
    ci_high: float
    """Its upper end. Unit: share."""
    batch_size: int
    """Images attacked at a time; it belongs to the result. Unit: images."""
    seed: int
    """Of the attack's random numbers; it belongs to the result."""
    indices_sha256: str
    """Of which images of the split."""
    wall_s: float
    """Time of the measurement. Unit: s."""
    warnings: str | None
    """Why the accuracy may be too high: signs of masked gradients. Null: there is no sign."""
    epoch: int | None
    """That the checkpoint had come to. Null: it is of no run."""


class ExampleRow(TypedDict, total=False):
    """A row of `examples`: the verdict on one image of an evaluation."""

    evaluation_id: str
    """Of a row of `evaluations` that has an attack."""
    index: int
    """Of the image in the data set's file; train's for the splits train and validation."""
    label: int
    """Its class."""
    clean_correct: bool
    """Whether it is right without an attack."""
    broken_by: str | None
    """The first attack that succeeded. Null: none did, or it is wrong anyway."""
    margin: float
    """True logit less the highest other, where the verdict was made. Unit: logits."""


ROWS: dict[str, type] = {
    "trials": TrialRow,
    "epochs": EpochRow,
    "decisions": DecisionRow,
    "evaluations": EvaluationRow,
    "examples": ExampleRow,
}
