"""The state of a study: what its record adds up to, event by event.

A trial is asked (what it has sampled is known), then runs, and ends complete, pruned by early stopping, or failed by
its own fault; or it is interrupted and runs again, when its study does. One whose worker was lost runs on as another
attempt.

    asked --> running --> complete, pruned, failed
               ^   |
               |   +---> interrupted --+
               |   +---> lost ---------+   (the next attempt)
               +-----------------------+

`apply` is all that changes a state, of a study that runs and of one that is read, and it refuses what cannot follow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, cast

from arat_ray.experiment.spec import Sampled
from arat_ray.frontier.eligibility import competes
from arat_ray.frontier.growing_front import GrowingFront
from arat_ray.results.rows import DecisionRow, EpochRow, TrialRow
from arat_ray.results.segments import Event
from arat_ray.results.statuses import ENDED

Phase = Literal["asked", "running", "interrupted", "lost", "complete", "pruned", "failed"]
MAY_START: tuple[Phase, ...] = ("asked", "running", "interrupted", "lost")
"""`running`: of a driver that was killed."""


class ImpossibleError(ValueError):
    """An event that cannot follow what has happened before it."""


class Change(NamedTuple):
    """A row of a table that is new, or is another one now."""

    table: Literal["trials", "epochs", "decisions"]
    row: Mapping[str, Any]


@dataclass
class TrialState:
    """One trial."""

    number: int
    sampled: Sampled
    point: int | None = None
    """Which of the points that were given in advance it is."""
    attrs: dict[str, Any] = field(default_factory=dict)
    """What the sampler keeps of it."""
    proposal: Mapping[str, Any] = field(default_factory=dict)
    """Why it was proposed."""
    phase: Phase = "asked"
    attempt: int = 0
    row: TrialRow | None = None
    """Of its last attempt, until it has ended."""
    epochs: dict[int, int] = field(default_factory=dict)
    """Epoch -> the attempt that its row is stored under, until it has ended."""
    goals: list[float] | None = None
    """What it reached, where it is complete."""
    violations: dict[str, float] = field(default_factory=dict)
    """How far it violates each constraint, where it is complete."""
    curve: dict[str, list[Any]] = field(default_factory=dict)
    """What was measured of it, column by column, where it was pruned."""
    reason: str | None = None
    """Why it was pruned or has failed."""
    times: tuple[Any, Any] = (None, None)
    """When it was started and when it ended, where it has."""

    @property
    def has_ended(self) -> bool:
        return self.phase in ENDED


class StudyState:
    """What is known of a study."""

    def __init__(self, goals: Sequence[str]) -> None:
        self.goals = tuple(goals)
        self.trials: dict[int, TrialState] = {}
        self.starts: list[dict[str, Any]] = []
        """How the study was described, each time that it was started."""
        self.learned: list[dict[str, Any]] = []
        """What was learned from earlier studies, one by one."""
        self.decisions: list[DecisionRow] = []
        self.front = GrowingFront()
        """Of the complete trials that keep the constraints, by trial_id."""
        self.since_growth = 0
        """How many trials have ended since the hypervolume of the front has grown."""
        self.spent: dict[tuple[str, int], tuple[float, float | None]] = {}
        """Of each attempt, its device-seconds and what they cost."""

    def apply(self, event: Event) -> list[Change]:
        """Take an event in; what it changes in the tables. ImpossibleError where it cannot follow: nothing changes."""
        kind = next(iter(event))
        if kind not in _APPLY:
            raise ImpossibleError(f"an event {kind!r}, which this arat-ray does not know: a newer one wrote it")
        changes: list[Change] = getattr(self, _APPLY[kind])(event, event[kind])
        return changes

    def ended(self) -> list[TrialState]:
        """The trials that need not run again."""
        return [trial for trial in self.trials.values() if trial.has_ended]

    def unfinished(self) -> list[TrialState]:
        """Those that go on, by number."""
        return [trial for _, trial in sorted(self.trials.items()) if not trial.has_ended]

    def _start_of_study(self, event: Event, what: dict[str, Any]) -> list[Change]:
        self.starts.append(what)
        return []

    def _learn(self, event: Event, what: dict[str, Any]) -> list[Change]:
        self.learned.append(what)
        return []

    def _ask(self, event: Event, what: dict[str, Any]) -> list[Change]:
        number = what["number"]
        if number in self.trials:
            raise ImpossibleError(f"trial {number} is asked for a second time")
        attrs, proposal = (what.get(name) or {} for name in ("attrs", "proposal"))
        self.trials[number] = TrialState(number, what["sampled"], what.get("point"), attrs, proposal)
        return []

    def _start(self, event: Event, row: TrialRow) -> list[Change]:
        trial, attempt = self._trial(row["number"], "started"), row["attempt"]
        if trial.phase not in MAY_START:
            raise ImpossibleError(f"trial {trial.number} is started, which is {trial.phase}")
        if attempt != trial.attempt + (trial.phase in ("asked", "lost")):
            raise ImpossibleError(f"attempt {attempt} at trial {trial.number} is started, which is at {trial.attempt}")
        trial.phase, trial.attempt, trial.row = "running", attempt, cast(TrialRow, dict(row))
        return [self._changed(trial.row)]

    def _epoch(self, event: Event, row: EpochRow) -> list[Change]:
        trial = self._running(row, "reports")
        if trial.epochs.get(row["epoch"]) == row["attempt"]:
            raise ImpossibleError(f"trial {trial.number} reports epoch {row['epoch']} for a second time")
        trial.epochs[row["epoch"]] = row["attempt"]
        changes = [Change("epochs", row)]
        if "trial" in event:
            changes.append(self._update(trial, event["trial"]))
        return changes

    def _decide(self, event: Event, row: DecisionRow) -> list[Change]:
        self.decisions.append(row)
        return [Change("decisions", row)]

    def _lose(self, event: Event, row: TrialRow) -> list[Change]:
        trial = self._running(row, "loses its worker")
        trial.phase = "lost"
        return [self._update(trial, row)]

    def _end(self, event: Event, row: TrialRow) -> list[Change]:
        trial = self._running(row, "ends")
        change = self._update(trial, row)
        whole, status = change.row, row["status"]
        trial.phase = "interrupted" if status == "stopped" else cast(Phase, status)
        if not trial.has_ended:
            return [change]
        trial.reason = whole.get("error") or whole.get("stop_reason")
        trial.violations, trial.curve = event.get("violations") or {}, event.get("curve") or {}
        trial.times = whole.get("started_at"), whole.get("ended_at")
        if status == "complete":
            trial.goals = [whole[goal] for goal in self.goals]
        before = self.front.hypervolume
        if competes(whole, self.goals):
            self.front.add(whole["trial_id"], [whole[goal] for goal in self.goals])
        self.since_growth = 0 if self.front.hypervolume > before else self.since_growth + 1
        trial.row, trial.epochs = None, {}
        return [change]

    def _trial(self, number: int, what: str) -> TrialState:
        if number not in self.trials:
            raise ImpossibleError(f"trial {number} is {what}, and was never asked for")
        return self.trials[number]

    def _running(self, row: TrialRow | EpochRow, what: str) -> TrialState:
        trial = self._trial(number_of(row["trial_id"]), what)
        if trial.phase != "running" or row["attempt"] != trial.attempt:
            raise ImpossibleError(
                f"attempt {row['attempt']} at trial {trial.number} {what}; it is at {trial.attempt}, {trial.phase}"
            )
        return trial

    def _update(self, trial: TrialState, changes: TrialRow) -> Change:
        assert trial.row is not None
        trial.row.update(changes)
        return self._changed(trial.row)

    def _changed(self, row: TrialRow) -> Change:
        self.spent[row["trial_id"], row["attempt"]] = row.get("device_s") or 0.0, row.get("cost_usd")
        return Change("trials", dict(row))


_APPLY = {
    "study": "_start_of_study",
    "learned": "_learn",
    "asked": "_ask",
    "started": "_start",
    "epoch": "_epoch",
    "decision": "_decide",
    "lost": "_lose",
    "ended": "_end",
}
KINDS = tuple(_APPLY)


def trial_id(study: str, number: int) -> str:
    """The name of a trial in all tables."""
    return f"{study}-{number:05d}"


def number_of(trial: str) -> int:
    """The number of a trial of that name; ValueError where it is no name that `trial_id` gives."""
    number = trial.rpartition("-")[2]
    if not number.isdecimal():
        raise ValueError(f"{trial!r} is no trial_id of a study: it does not end in a number, as in layers-00007")
    return int(number)
