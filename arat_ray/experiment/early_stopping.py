"""What `early_stopping:` may say: which epochs decide on a trial, and how many trials go on there."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from arat_ray.spec import Spec
from arat_ray.training.run import Validate


class ParetoAsha(Spec):
    """Asynchronous successive halving on all goals at once; the rule is `frontier.halving`'s."""

    name: Literal["pareto_asha"]
    min_epochs: int = Field(ge=1)
    """The first rung; no trial stops before."""
    reduction_factor: int = Field(3, ge=2)
    """One in so many goes on at a rung, and the next rung is so many times as late."""

    def rungs(self, epochs: int) -> list[int]:
        """The epochs at which a run of `epochs` epochs may be stopped."""
        rungs, epoch = [], self.min_epochs
        while epoch < epochs:
            rungs.append(epoch)
            epoch *= self.reduction_factor
        return rungs

    def survival(self, epochs: int) -> Iterator[tuple[int, float]]:
        """(epoch, share of trials expected to end there) if one in `reduction_factor` goes on at each rung."""
        there = 1.0
        for rung in self.rungs(epochs):
            yield rung, there * (1 - 1 / self.reduction_factor)
            there /= self.reduction_factor
        yield epochs, there

    def problems(self, epochs: int, validate: Validate) -> Iterator[str]:
        """Why trials of `epochs` epochs, measured as `validate` says, cannot be stopped at these rungs."""
        key, every = "early_stopping.min_epochs", validate.every
        fitting = range(every, epochs, every)
        if not fitting:
            yield (
                f"{key}: no epoch before the last one ({epochs}) is measured, so no trial can be stopped early; "
                f"lower validate.every ({every}), or leave early_stopping out"
            )
            return
        use = ", ".join(map(str, fitting if len(fitting) <= 5 else fitting[:3]))
        use += "" if len(fitting) <= 5 else f", ... or {fitting[-1]}"
        if self.min_epochs >= epochs:
            yield f"{key}: {self.min_epochs} is not below train.epochs ({epochs}), so no trial would stop; use {use}"
        elif self.min_epochs % every:
            yield (
                f"{key}: {self.min_epochs} is no multiple of validate.every ({every}), so nothing is measured at the "
                f"rung; use {use}, or validate.every: {math.gcd(self.min_epochs, every)}"
            )
