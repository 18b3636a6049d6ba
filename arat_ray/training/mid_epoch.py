"""The middle of an epoch: what advances from step to step, and what a checkpoint needs of it to go on there.

At the end of an epoch all random streams are functions of the seed and the epoch. Within one they have advanced, so
their states are kept, with the sums measured so far, when a machine is about to be taken away. On the CPU a run that
goes on from here with one worker equals an uninterrupted one bit for bit.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from arat_ray.training.context import Context
from arat_ray.training.methods import Method
from arat_ray.training.methods.base import SampleAccuracy
from arat_ray.training.randomness import Noise, derive_seed, generator
from arat_ray.training.timing import Stopwatch

SUMS = 6
"""Adversarial, clean and invariance loss, images right clean and under attack, weights' tensors that are not finite."""
MEANS = 3
"""The first of the sums are of each worker's means, and grow with the number of workers; the others are counts."""


class PreemptedError(RuntimeError):
    """The machine is about to be taken away; the state is saved."""


@dataclass(frozen=True)
class Partway:
    """Before step `step` (from 0) of epoch `epoch`."""

    epoch: int
    step: int
    totals: Tensor
    """Sums over the steps and the workers, of float64; those of means divided by the number of workers."""
    epoch_s: float
    attack_s: float
    augment: Tensor
    noise: Tensor
    torch: Tensor
    """States of the random streams; torch's own is that of the first worker."""
    method: dict[str, Any]
    """What the method settled when the epoch began."""


class EpochState:
    """What advances within epoch `epoch` (from 1) on one worker: its random streams, sums and clocks.

    Ready for use after `begin` or `resume`.
    """

    def __init__(self, epoch: int, *, seed: int, batch_size: int, context: Context) -> None:
        self.epoch, self.seed, self.context = epoch, seed, context
        self.augment = generator("cpu", seed, "augment", epoch)
        self.noise = Noise(generator(context.device, seed, "attack", epoch), batch_size, context.rows)
        self.sums = torch.zeros(SUMS, dtype=torch.float64, device=context.device)
        self.watch = Stopwatch(context.device)
        """Of the attacks."""
        self.first_step = 0
        self._began = 0.0

    def begin(self, method: Method, accuracy: SampleAccuracy) -> None:
        """Seed torch's own stream and let the method settle what holds for the epoch."""
        torch.manual_seed(derive_seed(self.seed, "torch", self.epoch, self.context.rank))
        method.start_epoch(self.epoch, accuracy)
        self._began = time.perf_counter()

    def resume(self, partway: Partway, method: Method) -> None:
        """Put the random streams, the sums and the method where they were.

        Torch's own stream is another one on all workers but the first, and on a GPU: nothing but dropout draws from it.
        The first worker goes on from all sums, the others from nothing.
        """
        assert partway.epoch == self.epoch
        torch.manual_seed(derive_seed(self.seed, "torch", self.epoch, self.context.rank, partway.step))
        if self.context.rank == 0:
            torch.set_rng_state(partway.torch.cpu())
            self.sums.copy_(partway.totals)
            self.sums[:MEANS] *= self.context.world_size
        self.augment.set_state(partway.augment.cpu())
        self.noise.generator.set_state(partway.noise.cpu())
        method.resume_epoch(partway.method)
        self.first_step, self.watch.elapsed = partway.step, partway.attack_s
        self._began = time.perf_counter() - partway.epoch_s

    def seconds(self) -> float:
        """Since the epoch began, without what lay between two starts of the run."""
        return time.perf_counter() - self._began

    def capture(self, step: int, method: Method) -> dict[str, Any]:
        """The fields of a `Partway` before step `step`, to be stored. All workers must call it."""
        totals = self.sums.clone()
        totals[:MEANS] /= self.context.world_size
        totals = self.context.sum(totals).cpu()  # waits for a GPU, so that the clocks are read after it
        return vars(
            Partway(
                epoch=self.epoch,
                step=step,
                totals=totals,
                epoch_s=self.seconds(),
                attack_s=self.watch.seconds(),
                augment=self.augment.get_state(),
                noise=self.noise.generator.get_state(),
                torch=torch.get_rng_state(),
                method=method.epoch_state(),
            )
        )
