"""The training loop: one epoch after another in plain torch, the same code for every launcher.

A launcher passes a `Context`: where this worker stands among its fellows, where checkpoints go, and what to do with the
row of an epoch. `Trainer` holds the state and takes the steps.
"""

from __future__ import annotations

import torch

from arat_ray.training import checkpoint_writer
from arat_ray.training.context import Context
from arat_ray.training.determinism import algorithms
from arat_ray.training.memory import keep_freed_memory
from arat_ray.training.run import Train, Validate
from arat_ray.training.trainer import Trainer


def fit(train: Train, validate: Validate, context: Context) -> None:
    """Run `train` to its end, going on from the checkpoint in `context.folder` where there is one.

    Raises ValueError for a checkpoint of another run and for what `Train` cannot know without its data;
    `DivergenceError` where the loss becomes NaN or infinite; `NeverSavedError`, before anything is computed if that can
    be known, where `context.folder` takes no checkpoint; `PreemptedError` where `context.leaves()`.
    """
    if train.batch_size % context.world_size:
        raise ValueError(f"batch_size {train.batch_size} cannot be shared out over {context.world_size} workers")
    if context.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(context.device)  # a trial's own, where the process has run others
    else:
        keep_freed_memory()
    if context.rank == 0:
        checkpoint_writer.try_out(context.folder)
    with algorithms(context.device, deterministic=train.deterministic):
        _train(train, validate, context)


def _train(train: Train, validate: Validate, context: Context) -> None:
    trainer = Trainer(train, validate, context)
    trainer.alive()
    for row in trainer.history:
        if context.report(row, True):
            return
    for epoch in range(len(trainer.history) + 1, train.epochs + 1):
        row = trainer.epoch(epoch)
        if validate.is_due(epoch, train.epochs):
            robust = [past["validation_robust_accuracy"] for past in trainer.history if "validation_images" in past]
            row |= trainer.measure(epoch)
            is_best = row["validation_robust_accuracy"] > max(robust, default=-1)
            trainer.save(epoch, is_best=is_best, is_final=epoch == train.epochs)
        if context.report(row, False):
            return
