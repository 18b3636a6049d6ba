"""Values that are valid and surely a slip: a learning rate of 1000, a weaker attack in validation than in training.

Nothing is refused for them. The bounds lie far outside of what is published, so that no sensible search meets them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from arat_ray.experiment.errors import shown
from arat_ray.experiment.probes import probes
from arat_ray.experiment.spec import Experiment
from arat_ray.pixels import format_pixels
from arat_ray.training.attacks import Attack
from arat_ray.training.data.images import Shape
from arat_ray.training.run import Train, Validate
from arat_ray.training.schedules import Piecewise

TOLD_AT_MOST = 10
USUAL = {  # of an optimiser: (most of a learning rate, of a weight decay), and what is usual
    "sgd": (2.0, 0.1, "0.01 to 0.5", "1e-4 to 1e-3"),
    "adamw": (0.1, 1.0, "1e-4 to 1e-2", "0.01 to 0.5"),
}
LEAST_RATE = 1e-6
MOST = {"beta": 100.0, "invariance_weight": 10_000.0, "distillation_weight": 10_000.0}
"""Of the weights of the methods' second terms."""
EPOCHS_AT_MOST, STEPS_AT_MOST, MOMENTUM_AT_MOST = 10_000, 1000, 0.9995
GREY_LEVEL, L2_AT_LEAST = 1 / 255, 0.05


def found(experiment: Experiment) -> Iterator[str]:
    """A line for each slip in `train:` and `validate:`, and for those that only values of the search make."""
    known = set(lines := list(_in_run(experiment.base, experiment.validation)))
    for where, sampled in probes(experiment):
        for slip in _in_run(experiment.resolve(sampled), experiment.validation):
            if slip not in known:
                known.add(slip)
                given = ", ".join(f"{path}: {shown(label)}" for path, label in sampled.items())
                lines.append(f"{where}: with {given}: {slip}")
    yield from lines[:TOLD_AT_MOST]
    if len(lines) > TOLD_AT_MOST:
        yield f"and {len(lines) - TOLD_AT_MOST} more like these"


def _in_run(train: Train, validation: Validate) -> Iterator[str]:
    yield from _in_optimizer(train)
    if train.epochs > EPOCHS_AT_MOST:
        yield f"train.epochs: {train.epochs} is far more than any run takes; 30 to 300 are usual"
    schedule = train.schedule
    if isinstance(schedule, Piecewise) and schedule.warmup_epochs >= train.epochs > 1:
        yield (
            f"train.schedule.warmup_epochs: {schedule.warmup_epochs} of {train.epochs} epochs leaves none for the full "
            "learning rate"
        )
    if train.label_smoothing > 0.5:
        yield f"train.label_smoothing: {train.label_smoothing:g} leaves the label less than its share; 0.1 is usual"
    if train.gradient_clipping is not None and train.gradient_clipping < 1e-3:
        yield f"train.gradient_clipping: {train.gradient_clipping:g} leaves next to no gradient; 1 is usual"
    for key, most in MOST.items():
        value = getattr(train.method, key, 0.0)
        if value > most:
            yield f"train.method.{key}: {value:g} drowns the cross-entropy; 1 to 300 are usual"
    if train.attack is not None:
        yield from _in_attack("train.attack", train.attack, train.dataset.shape)
        yield from _weaker(train.attack, validation.attack)
    yield from _in_attack("validate.attack", validation.attack, train.dataset.shape)


def _in_optimizer(train: Train) -> Iterator[str]:
    optimizer = train.optimizer
    most_rate, most_decay, rates, decays = USUAL[optimizer.name]
    rate, decay, momentum = optimizer.learning_rate, optimizer.weight_decay, getattr(optimizer, "momentum", 0.0)
    if rate > most_rate:
        yield f"train.optimizer.learning_rate: {rate:g} makes training diverge; {rates} is usual with {optimizer.name}"
    if rate < LEAST_RATE:
        yield f"train.optimizer.learning_rate: {rate:g} learns next to nothing; {rates} is usual with {optimizer.name}"
    if decay > most_decay:
        yield f"train.optimizer.weight_decay: {decay:g} leaves no weights; {decays} is usual with {optimizer.name}"
    if momentum > MOMENTUM_AT_MOST:
        yield f"train.optimizer.momentum: {momentum:g} averages over thousands of steps; 0.9 is usual"


def _in_attack(where: str, attack: Attack, shape: Shape) -> Iterator[str]:
    """Radii and steps that can hardly be meant for images [C, H, W] in [0, 1]."""
    epsilon, step, steps = attack.epsilon, getattr(attack, "step_size", None), getattr(attack, "steps", 1)
    to_grey = 0.5 if attack.norm == "linf" else 0.5 * math.sqrt(math.prod(shape))
    if epsilon >= to_grey:
        yield f"{where}.epsilon: {epsilon:g} in {attack.norm} makes any image plain grey; 8/255 in linf is usual"
    if attack.norm == "l2" and epsilon < L2_AT_LEAST:
        yield f"{where}.epsilon: {format_pixels(epsilon)} is a radius of linf; in l2 128/255 is usual"
    if attack.norm == "linf" and epsilon < GREY_LEVEL / 2:
        yield f"{where}.epsilon: {epsilon:g} is less than half a grey level, 1/510; 8/255 is usual"
    if step is not None and step > 4 * epsilon:
        yield (
            f"{where}.step_size: {format_pixels(step)} leaps to and fro over the ball, whose epsilon is "
            f"{format_pixels(epsilon)}; a quarter of that is usual"
        )
    if step is not None and steps * step < epsilon / 4:
        yield f"{where}.steps: {steps} of {step:.3g} go less than a quarter of the way to epsilon {epsilon:.3g}"
    if steps > STEPS_AT_MOST:
        yield f"{where}.steps: {steps} are far more than any attack takes; 10 to 100 are usual"


def _weaker(trained: Attack, measured: Attack) -> Iterator[str]:
    """Where the measurement is no test of what was trained for."""
    if measured.norm != trained.norm:
        yield (
            f"validate.attack.norm: {measured.norm} is not the norm that is trained against, {trained.norm}; what is "
            "reported is robustness of another kind"
        )
    steps, trained_steps = (getattr(attack, "steps", None) for attack in (measured, trained))
    if measured.name == trained.name and steps is not None and trained_steps is not None and steps < trained_steps:
        yield (
            f"validate.attack.steps: {steps} are fewer than the {trained_steps} trained with, so accuracies "
            f"look better than they are; use {2 * trained_steps}"
        )
