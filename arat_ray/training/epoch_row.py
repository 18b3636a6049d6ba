"""The row of an epoch: losses, training accuracies and seconds, from the sums over its steps."""

from __future__ import annotations

import math

from arat_ray.results.rows import EpochRow
from arat_ray.training.mid_epoch import EpochState
from arat_ray.training.run import Train


class DivergenceError(ValueError):
    """The loss is no number any more."""


def training_row(state: EpochState, train: Train, *, steps: int, rate: float, balance: float | None) -> EpochRow:
    """What was measured on the images of `steps` steps, over all workers, which must all call it.

    `rate` is the last step's learning rate. Raises DivergenceError where a loss or a weight is NaN or infinite.
    """
    adversarial, clean, invariance, right_clean, right_adv, broken = state.context.sum(state.sums).tolist()
    seconds = state.seconds()
    losses = [value / (steps * state.context.world_size) for value in (adversarial, clean, invariance)]
    what = "the weights became infinite or nan" if broken else ""
    if not all(math.isfinite(loss) for loss in losses):
        what = f"the loss became {sum(losses)}"
    if what:
        raise DivergenceError(
            f"{what} in epoch {state.epoch}; lower optimizer.learning_rate "
            f"({train.optimizer.learning_rate:g}), set gradient_clipping or lower the method's invariance term"
        )
    images = steps * train.batch_size
    clean_accuracy, robust_accuracy = (None if math.isnan(n) else n / images for n in (right_clean, right_adv))
    return {
        "epoch": state.epoch,
        "loss_adversarial": losses[0],
        "loss_clean": losses[1],
        "loss_invariance": losses[2],
        "balance": balance,
        "learning_rate": rate,
        "train_images": images,
        "train_clean_accuracy": clean_accuracy,
        "train_robust_accuracy": robust_accuracy,
        "epoch_s": seconds,
        "attack_s": state.watch.seconds(),
        "images_per_s": images / seconds,
    }
