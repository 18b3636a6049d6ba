"""A setting between two measured ones of one trial's dial that may do better than what was chosen from the front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

Trial = Mapping[str, Any]


class Proposal(NamedTuple):
    """A setting that is worth a measurement, and what a straight line between its neighbours says of one goal there."""

    trial: Trial
    """A neighbour, which has all but the setting."""
    dial: float
    between: tuple[float, float]
    goal: str
    expected: float


def propose(trials: Sequence[Trial], floors: Mapping[str, float], goal: str, *, chosen: Trial) -> Proposal | None:
    """The setting of the highest expected `goal`, if that is above the chosen member's.

    Of two neighbours on the dial of one trial, both on the front, of which one satisfies the floors and one does not,
    it is the one where a straight line reaches the floor. A line promises nothing: what is proposed is to be measured.
    """
    by_trial: dict[tuple[str, str], list[Trial]] = {}
    for trial in trials:
        by_trial.setdefault((trial["study"], trial["trial_id"]), []).append(trial)
    found = []
    for settings in by_trial.values():
        settings.sort(key=_at)
        for low, high in pairwise(settings):
            good, bad = (low, high) if _satisfies(low, floors) else (high, low)
            if not _satisfies(good, floors) or _satisfies(bad, floors):
                continue
            share = min((good[name] - floor) / (good[name] - bad[name]) for name, floor in _missed(bad, floors))
            dial = round(_at(good) + share * (_at(bad) - _at(good)), 3)
            expected = good[goal] + share * (bad[goal] - good[goal])
            if _at(low) < dial < _at(high) and expected > chosen[goal]:
                found.append(Proposal(good, dial, (_at(low), _at(high)), goal, expected))
    return max(found, key=lambda proposal: proposal.expected, default=None)


def _at(trial: Trial) -> float:
    return trial["dial"] or 0.0


def _missed(trial: Trial, floors: Mapping[str, float]) -> list[tuple[str, float]]:
    return [(name, floor) for name, floor in floors.items() if trial[name] < floor]


def _satisfies(trial: Trial, floors: Mapping[str, float]) -> bool:
    return not _missed(trial, floors)
