"""Learning-rate schedules: pure functions of how far a run has come, so that resuming needs no scheduler state.

A factor in [0, 1] multiplies the optimiser's learning rate; `epoch` counts from 0 and `progress` in [0, 1) is the share
of all steps done.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from arat_ray.spec import Spec

Share = Annotated[float, Field(ge=0, le=1)]


class Piecewise(Spec):
    """Constant per epoch: a low first epoch, then a tenth after each decay (shares of the run).

    The defaults over 100 epochs are those that the authors of ARAT effectively use: 0.2 of the rate in epoch 1, the
    rate in 2-76, a tenth in 77-91, a hundredth in 92-100.
    """

    name: Literal["piecewise"] = "piecewise"
    warmup_epochs: int = Field(1, ge=0)
    warmup_factor: Share = 0.2
    decays: tuple[Share, ...] = (0.76, 0.91)
    decay_factor: Share = 0.1

    def factor(self, *, epoch: int, epochs: int, progress: float) -> float:
        del progress
        if epoch < self.warmup_epochs:
            return self.warmup_factor
        passed = sum(epoch / epochs >= decay for decay in self.decays)  # 0.55 * 100 is more than 55
        return float(self.decay_factor**passed)


class Cosine(Spec):
    """Half a cosine from 1 to `final`, after a linear warm-up (share of the run)."""

    name: Literal["cosine"] = "cosine"
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0
    final: Share = 0.0

    def factor(self, *, epoch: int, epochs: int, progress: float) -> float:
        del epoch, epochs
        if progress < self.warmup:
            return progress / self.warmup
        through = (progress - self.warmup) / (1 - self.warmup)
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * through)) / 2


class OneCycle(Spec):
    """Linear rise from `start` to 1 at `peak` (share of the run), then linear fall to `final`.

    Smith and Topin, https://arxiv.org/abs/1708.07120.
    """

    name: Literal["one_cycle"] = "one_cycle"
    peak: Annotated[float, Field(gt=0, lt=1)] = 0.3
    start: Share = 0.04
    final: Share = 0.0

    def factor(self, *, epoch: int, epochs: int, progress: float) -> float:
        del epoch, epochs
        if progress < self.peak:
            return self.start + (1 - self.start) * progress / self.peak
        return self.final + (1 - self.final) * (1 - progress) / (1 - self.peak)


Schedule = Annotated[Piecewise | Cosine | OneCycle, Field(discriminator="name")]
