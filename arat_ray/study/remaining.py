"""How much longer a study will take, from the epochs that its trials have trained since it was started."""

from __future__ import annotations

import heapq
import time
from collections import Counter
from dataclasses import dataclass


@dataclass
class _Running:
    """A trial, since when it trains, the epoch that it began with, and the last that it reported, with its time."""

    began: float
    first: int
    epoch: int
    reported: float


class Remaining:
    """The seconds that are left, computed anew when something happens to a trial, and counted down in between.

    Running trials have the epochs before them that they have not reported yet; those that have not begun are taken to
    be as long as those that ended, and to follow each other in as many slots as were ever busy at once. An epoch is
    taken to last as long as those before, on average.
    """

    def __init__(self, *, waiting: int | None, epochs: int) -> None:
        self.waiting, self.epochs = waiting, epochs
        self._running: dict[int, _Running] = {}
        self._slots = 1
        self._busy_s, self._trained = 0.0, 0
        """Of the trials that ended."""
        self._lengths: Counter[int] = Counter()
        """Epochs of the trials that ended as they should, also early: how many there are of each."""
        self._at = time.monotonic()
        self._left: float | None = None

    def started(self, number: int, epoch: int = 0) -> None:
        """A trial begins, or goes on behind an epoch."""
        now = time.monotonic()
        self._running[number] = _Running(now, epoch, epoch, now)
        self._slots = max(self._slots, len(self._running))
        if self.waiting is not None:
            self.waiting = max(self.waiting - 1, 0)
        self._update()

    def reported(self, number: int, epoch: int) -> None:
        trial = self._running.get(number)
        if trial and epoch > trial.epoch:
            trial.epoch, trial.reported = epoch, time.monotonic()
            self._update()

    def ended(self, number: int, epoch: int, status: str) -> None:
        self.reported(number, epoch)
        trial = self._running.pop(number, None)
        if trial is None:
            return
        if trial.epoch > trial.first:
            self._busy_s += trial.reported - trial.began
            self._trained += trial.epoch - trial.first
        if status in ("complete", "pruned"):
            self._lengths[trial.epoch] += 1
        if status == "stopped" and self.waiting is not None:
            self.waiting += 1
        self._update()

    def seconds(self) -> float | None:
        """None where nobody knows: before the first epoch, and without a number of trials."""
        if self._left is None:
            return None
        return max(self._left - (time.monotonic() - self._at), 0.0)

    def _update(self) -> None:
        self._at = time.monotonic()
        self._left = None if self.waiting is None else self._estimate(self.waiting, self._at)

    def _estimate(self, waiting: int, now: float) -> float | None:
        running = self._running.values()
        moved = [trial for trial in running if trial.epoch > trial.first]
        trained = self._trained + sum(trial.epoch - trial.first for trial in moved)
        if not trained:
            return None
        epoch_s = (self._busy_s + sum(trial.reported - trial.began for trial in moved)) / trained
        slots = [0.0] * (self._slots - len(running))
        for trial in running:
            ahead = max(self._length(behind=trial.epoch) - trial.epoch, 0.0)
            under_way = min((now - trial.reported) / epoch_s, 1.0) if epoch_s else 0.0
            slots.append(epoch_s * max(ahead - under_way, 0.0))
        rounds, rest = divmod(waiting, len(slots))
        whole = epoch_s * self._length(behind=0)
        heapq.heapify(slots)
        for _ in range(rest):
            heapq.heapreplace(slots, slots[0] + whole)
        return max(slots) + rounds * whole

    def _length(self, *, behind: int) -> float:
        """The epochs of a trial that has come so far: the mean of those that came farther."""
        lengths = {length: count for length, count in self._lengths.items() if length > behind}
        trials = sum(lengths.values())
        return sum(length * count for length, count in lengths.items()) / trials if trials else float(self.epochs)
