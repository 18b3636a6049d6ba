"""A rehearsal: a few training steps of a run as one of its workers takes them, and whether the workers agree.

The network, the data, the batch and the step are those of the training loop. Nothing is written.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from arat_ray.training.context import Context
from arat_ray.training.data.batches import EVERYTHING
from arat_ray.training.determinism import algorithms
from arat_ray.training.methods import Method
from arat_ray.training.precision import exact_convolutions
from arat_ray.training.randomness import generator
from arat_ray.training.run import Train, Validate
from arat_ray.training.timing import Stopwatch
from arat_ray.training.trainer import Trainer

STEPS_AT_MOST = 50
ROUNDING = 1e-3
"""Largest relative difference of two gradients that are the same up to float32 rounding, which depth amplifies."""


class Rehearsal(NamedTuple):
    """What was measured: seconds a step of the global batch, and how far the workers' gradient is from one worker's.

    Differences are relative, |a - b| / |b| over all parameters: `from_whole` from the gradient of the whole batch on
    one worker, `from_shares` from the mean over the workers' shares, each normalised by itself. None with one worker.
    """

    step_s: float
    steps: int
    batch_norm: bool
    from_whole: float | None = None
    from_shares: float | None = None


def rehearse(train: Train, validate: Validate, context: Context, *, seconds: float) -> Rehearsal:
    """Compare gradients on one batch, then take steps for about `seconds`; every worker calls it.

    `context.folder` holds no checkpoint, and none is written. Raises ValueError as `fit` does.
    """
    with algorithms(context.device, deterministic=train.deterministic):
        return _rehearse(Trainer(train, validate, context), seconds)


def _rehearse(trainer: Trainer, seconds: float) -> Rehearsal:
    train, context = trainer.train, trainer.context
    method = train.build().to(context.device)
    batch_norm = any(isinstance(module, _BatchNorm) for module in method.modules())
    differences = _compare(trainer, method) if context.world_size > 1 else (None, None)
    del method
    step_s, steps = _time(trainer, seconds)
    return Rehearsal(step_s, steps, batch_norm, *differences)


def _compare(trainer: Trainer, alone: Method) -> tuple[float, float]:
    """How far the workers' gradient is from that of the whole batch, and from the mean over their shares."""
    train, context = trainer.train, trainer.context
    x, y = trainer.images.batch(torch.arange(train.batch_size), generator("cpu", train.seed, "rehearsal"), EVERYTHING)
    x_adv = x
    if train.attack is not None:  # no attack: its signs would turn rounding into whole steps
        noise = torch.rand(x.shape, generator=generator("cpu", train.seed, "rehearsal-noise")).to(x)
        x_adv = (x + train.attack.epsilon * (2 * noise - 1)).clamp(0, 1)
    shares = [slice(rank, None, context.world_size) for rank in range(context.world_size)]
    with exact_convolutions():
        for method in (trainer.method, alone):
            method.train()
            method.start_epoch(train.epochs, lambda model, count, fresh: 0.5)
        mine = shares[context.rank]
        together = _gradient(trainer.step.replica, x[mine], x_adv[mine], y[mine])
        start = {name: value.clone() for name, value in alone.state_dict().items()}
        whole = _gradient(alone, x, x_adv, y)
        apart = torch.zeros_like(whole)
        for rows in shares:
            alone.load_state_dict(start)
            apart += _gradient(alone, x[rows], x_adv[rows], y[rows]) / len(shares)
    return _difference(together, whole), _difference(together, apart)


def _gradient(method: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor) -> Tensor:
    """Of the loss to all parameters, as one vector."""
    method.zero_grad(set_to_none=True)
    method(x, x_adv, y).total.backward()
    trained = [value for value in method.parameters() if value.requires_grad]
    parts = [torch.zeros_like(value) if value.grad is None else value.grad for value in trained]
    return torch.cat([part.flatten() for part in parts]).double()


def _difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def _time(trainer: Trainer, seconds: float) -> tuple[float, int]:
    """Seconds a step, after a first one that is not counted, and how many were; all workers take as many."""
    train, context = trainer.train, trainer.context
    trainer.method.train()
    trainer.method.start_epoch(train.epochs, lambda model, count, fresh: 0.5)
    order = torch.arange(trainer.steps * train.batch_size).view(trainer.steps, train.batch_size)
    draws, noise = generator("cpu", train.seed, "augment", 1), trainer.noise("attack", 1)

    def take(steps: int) -> float:
        began = time.perf_counter()
        for step in range(steps):
            x, y = trainer.images.batch(order[step % trainer.steps], draws)
            trainer.step(x, y, noise, Stopwatch(context.device), perturbs_weights=train.weight_perturbation is not None)
        if context.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    take(1)
    once = float(context.sum(torch.tensor([take(1)], device=context.device)).item()) / context.world_size
    steps = max(1, min(STEPS_AT_MOST, int(seconds / once)))
    return take(steps) / steps, steps
