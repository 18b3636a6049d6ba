"""When each trial of a study had come how far, in hours since its first one began, and what had been spent by then."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from itertools import accumulate
from typing import Any

Row = Mapping[str, Any]
Knots = list[list[float]]
PLACES = 4
"""Decimal places of hours: a third of a second."""


def of(every: Sequence[Row]) -> tuple[dict[str, Knots], dict[str, float | None]]:
    """Of every attempt at each trial; by trial_id, what hours and epochs lie between, and when it ended, if it has.

    An attempt begins with the epochs of those before it; where it went back to a checkpoint, with more than it had.
    """
    began = _began(every)
    knots, ended = dict[str, Knots](), dict[str, float | None]()
    for row in sorted(every, key=lambda row: row["attempt"]):
        trial = knots.setdefault(row["trial_id"], [])
        ended[row["trial_id"]] = _hours(began, row["ended_at"]) if row["status"] not in ("running", "stopped") else None
        if began is None or row["started_at"] is None:
            continue
        start, epochs = _hours(began, row["started_at"]), row["epochs_done"] or 0
        trial.append([start, min(trial[-1][1] if trial else 0, epochs)])
        trial.append([round(start + (row["train_s"] or 0.0) / 3600, PLACES), epochs])
    return knots, ended


def spent(every: Sequence[Row]) -> Callable[[datetime | None], tuple[float, float, float | None]]:
    """Of a moment: hours, and device-hours and US dollars of the attempts that had ended; no dollars without prices."""
    began = _began(every)
    ended = sorted((row for row in every if row["ended_at"]), key=lambda row: row["ended_at"])
    moments = [row["ended_at"] for row in ended]
    hours = list(accumulate(((row["device_s"] or 0.0) / 3600 for row in ended), initial=0.0))
    usd = list(accumulate((row["cost_usd"] or 0.0 for row in ended), initial=0.0))
    is_priced = any(row["cost_usd"] is not None for row in every)

    def by(moment: datetime | None) -> tuple[float, float, float | None]:
        count = bisect_right(moments, moment) if moment else 0
        return _hours(began, moment), hours[count], usd[count] if is_priced else None

    return by


def _began(every: Sequence[Row]) -> datetime | None:
    return min((row["started_at"] for row in every if row["started_at"]), default=None)


def _hours(began: datetime | None, moment: datetime | None) -> float:
    """Between two moments; 0 where one is not known."""
    return round((moment - began).total_seconds() / 3600, PLACES) if began and moment else 0.0
