"""Learning-rate schedules: pure functions of how far a run has come, so that resuming needs no scheduler state.

A factor in [0, 1] multiplies the optimiser's learning rate; `epoch` counts from 0 and `progress` in [0, 1) is the share
of all steps done.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from arat_ray.spec import Spec

SPELLED_AT_MOST = 8
Share = Annotated[float, Field(ge=0, le=1)]


class Piecewise(Spec):
    """Constant per epoch: a low first epoch, then a tenth after each decay (shares of the run).

    The defaults over 100 epochs are those that the authors of ARAT effectively use: 0.2 of the rate in epoch 1, the
    rate in 2-76, a tenth in 77-91, a hundredth in 92-100.
    """

    name: Literal["piecewise"] = "piecewise"
    warmup_epochs: int = Field(1, ge=0)
    """Low epochs at first."""
    warmup_factor: Share = 0.2
    """Their factor."""
    decays: tuple[Share, ...] = Field((0.76, 0.91), max_length=100)
    """Shares of the run after which the rate falls."""
    decay_factor: Share = 0.1
    """By what it falls each time."""

    def factor(self, *, epoch: int, epochs: int, progress: float) -> float:
        del progress
        if epoch < self.warmup_epochs:
            return self.warmup_factor
        passed = sum(epoch / epochs >= decay for decay in self.decays)  # 0.55 * 100 is more than 55
        return float(self.decay_factor**passed)

    def stretches(self, epochs: int) -> list[tuple[int, int, float]]:
        """(first epoch, last epoch, factor) wherever the factor changes, epochs counted from 1."""
        changes = {0, min(self.warmup_epochs, epochs)}
        for decay in self.decays:
            near = math.ceil(decay * epochs)
            changes |= {epoch for epoch in (near - 1, near, near + 1) if 0 <= epoch < epochs}  # where rounding may lie
        starts = sorted(changes - {epochs})
        found = list[tuple[int, int, float]]()
        for first, after in zip(starts, [*starts[1:], epochs], strict=True):
            factor = self.factor(epoch=first, epochs=epochs, progress=0)
            if found and found[-1][2] == factor:
                found[-1] = found[-1][0], after, factor
            else:
                found.append((first + 1, after, factor))
        return found

    def spelled(self, rate: float, epochs: int) -> str:
        """`0.1 in epochs 1-7, 0.01 in 8-9, 0.001 in 10`."""
        parts = [
            f"{rate * factor:.3g} in {first if first == last else f'{first}-{last}'}"
            for first, last, factor in self.stretches(epochs)
        ]
        parts[0] = parts[0].replace(" in ", " in epochs " if "-" in parts[0].split(" in ")[1] else " in epoch ")
        return ", ".join(parts if len(parts) <= SPELLED_AT_MOST else [*parts[: SPELLED_AT_MOST - 1], "...", parts[-1]])


class Cosine(Spec):
    """Half a cosine from 1 to `final`, after a linear warm-up (share of the run)."""

    name: Literal["cosine"] = "cosine"
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the run with a linear rise."""
    final: Share = 0.0
    """Factor at the end."""

    def factor(self, *, epoch: int, epochs: int, progress: float) -> float:
        del epoch, epochs
        if progress < self.warmup:
            return progress / self.warmup
        through = (progress - self.warmup) / (1 - self.warmup)
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * through)) / 2

    def spelled(self, rate: float, epochs: int) -> str:
        rise = f"0 rising to {rate:.3g} {_until(self.warmup, epochs)}" if self.warmup else f"{rate:.3g}"
        return f"{rise}, falling to {rate * self.final:.3g} {_until(1, epochs)} as half a cosine"


class OneCycle(Spec):
    """Linear rise from `start` to 1 at `peak` (share of the run), then linear fall to `final`.

    Smith and Topin, https://arxiv.org/abs/1708.07120.
    """

    name: Literal["one_cycle"] = "one_cycle"
    peak: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """Share of the run where the rate is largest."""
    start: Share = 0.04
    """Factor at the beginning."""
    final: Share = 0.0
    """Factor at the end."""

    def factor(self, *, epoch: int, epochs: int, progress: float) -> float:
        del epoch, epochs
        if progress < self.peak:
            return self.start + (1 - self.start) * progress / self.peak
        return self.final + (1 - self.final) * (1 - progress) / (1 - self.peak)

    def spelled(self, rate: float, epochs: int) -> str:
        return (
            f"{rate * self.start:.3g} rising to {rate:.3g} {_until(self.peak, epochs)}, "
            f"falling to {rate * self.final:.3g} {_until(1, epochs)}"
        )


def _until(share: float, epochs: int) -> str:
    return f"after {share * epochs:.4g} of {epochs} epochs" if share < 1 else "at the end"


Schedule = Annotated[Piecewise | Cosine | OneCycle, Field(discriminator="name")]
