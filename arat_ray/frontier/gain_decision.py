"""A decision of early stopping by expected gain, as it is kept and told; made in `expected_gain`."""

from __future__ import annotations

import math
from dataclasses import dataclass

WHOLE = 3
"""Trials that are complete, or past the first decision, before one is stopped."""


@dataclass(frozen=True, kw_only=True)
class GainDecision:
    """What was decided on one trial at one epoch, and why.

    `expected` and `deviation` are of its goals at its end, `gain` what it is expected to add to the hypervolume an
    epoch, `gain_of_new` what the best new trial would. None where nothing was compared: too few trials had come so far,
    or a goal is missing.
    """

    number: int
    rung: int
    goals: tuple[float, ...]
    goes_on: bool
    of: int
    expected: tuple[float, ...] | None = None
    deviation: tuple[float, ...] | None = None
    gain: float | None = None
    gain_of_new: float | None = None

    @property
    def why(self) -> str:
        """`epoch 27, expected at the end 0.612 +- 0.008, 0.38 +- 0.011; adds 1.5e-05 an epoch, a new trial 2.2e-04`."""
        if self.expected is None or self.deviation is None:
            if not all(map(math.isfinite, self.goals)):
                return f"epoch {self.rung}, not judged: a goal is missing or no number"
            return f"epoch {self.rung}, not judged: fewer than {WHOLE} trials are complete or past the first epoch"
        ends = ", ".join(f"{m:.3f} +- {d:.3f}" for m, d in zip(self.expected, self.deviation, strict=True))
        return (
            f"epoch {self.rung}, expected at the end {ends}; adds {self.gain:.1e} an epoch, "
            f"a new trial {self.gain_of_new:.1e}"
        )
