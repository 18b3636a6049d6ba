"""What `early_stopping:` may say: which epochs decide on a trial, and by which rule it goes on there."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from arat_ray.spec import Spec
from arat_ray.training.run import Validate

GO_ON = 7
"""Of ten trials at a rung, those that went on by expected gain in benchmarks/search: six at the first, eight or nine
later."""


class _Rungs(Spec):
    """Epochs, each so many times as late as the one before, at which trials may end."""

    name: str
    min_epochs: int = Field(ge=1)
    """The first rung; no trial stops before."""

    @property
    @abstractmethod
    def factor(self) -> int:
        """How many times as late the next rung is."""

    @property
    @abstractmethod
    def goes_on(self) -> float:
        """The share of the trials at a rung that is expected to go on."""

    @property
    @abstractmethod
    def share(self) -> str:
        """The same in words."""

    @abstractmethod
    def rule(self, goals: str) -> str:
        """Which trials go on at a rung, for people."""

    def rungs(self, epochs: int) -> list[int]:
        """The epochs at which a run of `epochs` epochs may be stopped."""
        rungs, epoch = [], self.min_epochs
        while epoch < epochs:
            rungs.append(epoch)
            epoch *= self.factor
        return rungs

    def survival(self, epochs: int) -> Iterator[tuple[int, float]]:
        """(epoch, share of trials expected to end there)."""
        there = 1.0
        for rung in self.rungs(epochs):
            yield rung, there * (1 - self.goes_on)
            there *= self.goes_on
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


class ParetoAsha(_Rungs):
    """Asynchronous successive halving on all goals at once; the rule is `frontier.halving`'s."""

    name: Literal["pareto_asha"]
    reduction_factor: int = Field(3, ge=2)
    """One in so many goes on at a rung, and the next rung is so many times as late."""

    @property
    def factor(self) -> int:
        return self.reduction_factor

    @property
    def goes_on(self) -> float:
        return 1 / self.reduction_factor

    @property
    def share(self) -> str:
        return f"1 in {self.reduction_factor} goes on"

    def rule(self, goals: str) -> str:
        return f"the best 1 in {self.reduction_factor} by {goals} goes on"


class ExpectedGain(_Rungs):
    """A trial goes on as long as what it is expected to add to the front is worth the epochs that are left; the rule is
    `frontier.expected_gain`'s."""

    name: Literal["expected_gain"]
    rung_factor: int = Field(3, ge=2)
    """How many times as late the next rung is."""
    slack: float = Field(0.4, ge=0, le=1)
    """It goes on with at least this share of the hypervolume an epoch that a new trial promises; 0 stops none."""

    @property
    def factor(self) -> int:
        return self.rung_factor

    @property
    def goes_on(self) -> float:
        return GO_ON / 10

    @property
    def share(self) -> str:
        return f"{GO_ON} in 10 go on"

    def rule(self, goals: str) -> str:
        return f"a trial goes on that adds {self.slack:g} of what a new one promises an epoch, in {goals}"


EarlyStopping = Annotated[ParetoAsha | ExpectedGain, Field(discriminator="name")]
