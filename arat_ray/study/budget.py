"""What a study has spent, and whether that is all it may.

A device is a GPU, or a CPU worker where trials take no GPU. Every attempt at a trial counts, also one that failed or
was interrupted; what earlier sessions spent is read from the tables.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from arat_ray.experiment.spec import Experiment
from arat_ray.frontier.dominance import hypervolume, non_dominated
from arat_ray.frontier.eligibility import competes
from arat_ray.results import reader
from arat_ray.results.statuses import ENDED


class Over(NamedTuple):
    """A budget that is spent: its key under `budget:`, the reason in words, and how to go on nevertheless."""

    budget: str
    reason: str
    more: str


class Watch:
    """Watches the budgets of a study but for the number of its trials."""

    def __init__(self, folder: Path, experiment: Experiment) -> None:
        self.budget, self.price = experiment.budget, experiment.resources.price
        self.goals = experiment.maximize
        self.deadline = time.monotonic() + self.budget.hours * 3600 if self.budget.hours else None
        self.device_s = 0.0
        """Device-seconds spent by all attempts at all trials."""
        self._usd, self._unpriced_s = 0.0, 0.0
        self._spent: dict[tuple[str, int], tuple[float, float | None]] = {}
        self._front: list[list[float]] = []
        self._volume = 0.0
        self._since = 0
        self._failures: list[str] = []
        """Why the last trials failed that ended since this start, all in a row."""
        self._ended: set[str] = set()
        if reader.part_files(folder / "trials"):
            self._recall(folder)

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

    def ended(self, trial_id: str, goals: Sequence[float | None] | None, *, error: str | None = None) -> None:
        """A trial ended and will not run again; `goals` where it competes for the front, `error` where it failed.

        One that the tables have as ended ends once more where the driver was killed before Optuna got it.
        """
        self._failures = [*self._failures, error] if error is not None else []
        volume = self._volume
        if goals is not None and None not in goals:
            points = [*self._front, [float(goal) for goal in goals if goal is not None]]
            self._front = [point for point, on in zip(points, non_dominated(points), strict=True) if on]
            volume = hypervolume(self._front, [0.0] * len(self.goals))
        if volume > self._volume:
            self._since = 0
        elif trial_id not in self._ended:
            self._since += 1
        self._ended.add(trial_id)
        self._volume = max(volume, self._volume)

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
        if budget.stall is not None and self._since >= budget.stall:
            reason = f"the hypervolume of the front has not grown for {self._since} trials"
            return Over("stall", reason, "a larger --stall")
        return None

    def _recall(self, folder: Path) -> None:
        """Take up what the tables say, trial by trial in the order in which they ended."""
        columns = ["trial_id", "attempt", "status", "is_full_fidelity", "feasible", "device_s", "cost_usd", "ended_at"]
        table = reader.read(folder, "trials", list(dict.fromkeys([*columns, *self.goals])))
        rows = table.to_pylist()
        for row in rows:
            self._count(row["trial_id"], row["attempt"], row["device_s"] or 0.0, row["cost_usd"])
        is_latest = reader.latest_attempt(table)
        ended = [row for row, last in zip(rows, is_latest, strict=True) if last and row["status"] in ENDED]
        for row in sorted(ended, key=lambda row: (row["ended_at"] is None, row["ended_at"])):
            self.ended(row["trial_id"], [row[goal] for goal in self.goals] if competes(row, ()) else None)
