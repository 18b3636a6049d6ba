"""What a study has spent, and whether that is all it may.

A device is a GPU, or a CPU worker where trials take no GPU. Every attempt at a trial counts, also one that failed or
was interrupted; what earlier sessions spent is read from the tables.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from arat_ray.experiment.spec import Experiment
from arat_ray.study.state import StudyState


class Over(NamedTuple):
    """A budget that is spent: its key under `budget:`, the reason in words, and how to go on nevertheless."""

    budget: str
    reason: str
    more: str


class Watch:
    """Watches the budgets of a study but for the number of its trials."""

    def __init__(self, experiment: Experiment, state: StudyState) -> None:
        self.budget, self.price, self.state = experiment.budget, experiment.resources.price, state
        self.deadline = time.monotonic() + self.budget.hours * 3600 if self.budget.hours else None
        self.device_s = 0.0
        """Device-seconds spent by all attempts at all trials."""
        self._usd, self._unpriced_s = 0.0, 0.0
        self._spent: dict[tuple[str, int], tuple[float, float | None]] = {}
        self._enough: Over | None = None
        self._failures: list[str] = []
        """Why the last trials failed that ended since this start, all in a row."""
        for (trial_id, attempt), (device_s, usd) in state.spent.items():
            self._count(trial_id, attempt, device_s, usd)

    @property
    def usd(self) -> float:
        """What all attempts cost; those from before there was a price count at the price of now."""
        return self._usd + (self.cost(self._unpriced_s) or 0.0)

    def cost(self, device_s: float) -> float | None:
        """What so many device-seconds cost; None where no price is given."""
        return None if self.price is None else device_s / 3600 * self.price.usd_per_device_hour

    def attempt(self, trial_id: str, attempt: int, device_s: float) -> float | None:
        """An attempt has taken so many device-seconds so far; what that costs.

        A price that changed in between counts from now on.
        """
        before_s, before_usd = self._spent.get((trial_id, attempt), (0.0, 0.0))
        added = self.cost(device_s - before_s)
        usd = None if added is None else added + (self.cost(before_s) or 0.0 if before_usd is None else before_usd)
        self._count(trial_id, attempt, device_s, usd)
        return usd

    def _count(self, trial_id: str, attempt: int, device_s: float, usd: float | None) -> None:
        """Keep the totals: the study asks for them with every step, of however many trials."""
        before_s, before_usd = self._spent.get((trial_id, attempt), (0.0, 0.0))
        self._spent[trial_id, attempt] = (device_s, usd)
        self.device_s += device_s - before_s
        self._usd += (usd or 0.0) - (before_usd or 0.0)
        self._unpriced_s += (device_s if usd is None else 0.0) - (before_s if before_usd is None else 0.0)

    def ended(self, error: str | None) -> None:
        """A trial ended and will not run again; `error` where it failed."""
        self._failures = [*self._failures, error] if error is not None else []

    def wants(self, promise: float | None, *, running: int, spanned: Callable[[], float]) -> bool:
        """Whether another trial is to begin that is expected to add so much to the hypervolume; None: nobody knows.

        Where it promises too little and none is running that could change this, the budget is spent. As long as no
        trial meets the constraints, and there is no front, a gain is compared with what all of them have `spanned`.
        """
        share, volume = self.budget.gain, self.state.front.hypervolume
        if share is None or promise is None:
            return True
        whole = volume or spanned()
        if promise >= share * whole:
            return True
        if not running:
            of = "it" if volume else "that of the trials that broke a constraint: none met them"
            added = f"{promise:.1e} to the hypervolume, {100 * promise / whole:.2g} % of {of}"
            reason = f"another trial is expected to add {added}, less than {100 * share:g} %"
            self._enough = Over("gain", reason, "a smaller --gain")
        return False

    def over(self) -> Over | None:
        """The first budget that is spent, if one is."""
        budget = self.budget
        if self.deadline is not None and time.monotonic() >= self.deadline:
            return Over("hours", f"{budget.hours:g} hours are over", "--hours")
        if budget.max_failures is not None and len(self._failures) >= budget.max_failures:
            reason = f"{len(self._failures)} trials in a row have failed, the last one with: {self._failures[-1]}"
            return Over("max_failures", reason, "that mended, or a larger --max-failures")
        if budget.device_hours is not None and (hours := self.device_s / 3600) >= budget.device_hours:
            reason = f"{hours:.4g} of {budget.device_hours:g} device-hours are spent"
            return Over("device_hours", reason, "a larger --device-hours")
        if budget.usd is not None and self.usd >= budget.usd:
            return Over("usd", f"{self.usd:.2f} of {budget.usd:g} usd are spent", "a larger --budget-usd")
        if budget.stall is not None and self.state.since_growth >= budget.stall:
            reason = f"the hypervolume of the front has not grown for {self.state.since_growth} trials"
            return Over("stall", reason, "a larger --stall")
        return self._enough
