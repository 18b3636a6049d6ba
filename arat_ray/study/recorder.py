"""Recorder: what happens to the trials of a study becomes events of its record, and then results for Optuna.

The end of a trial is on disk before anybody acts on it, so a driver killed at any moment finds, when it is started
again, either how a trial has ended or one that has to go on.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from arat_ray.experiment import constraints
from arat_ray.experiment.spec import Experiment
from arat_ray.frontier import decisions
from arat_ray.frontier.decisions import Made
from arat_ray.results.rows import EpochRow, TrialRow
from arat_ray.results.schema import goals_of
from arat_ray.study.budget import Watch
from arat_ray.study.judges import open_judge
from arat_ray.study.progress import Progress
from arat_ray.study.record import StudyRecord
from arat_ray.study.trial_rows import described, proposed
from arat_ray.training.checkpoint import BEST, LAST
from arat_ray.training.run import Train

if TYPE_CHECKING:
    from arat_ray.frontier.curves import Curves


COUNT_S = 1.0
"""How often what the running trials have spent is counted."""


@dataclass
class Running:
    """A trial that this process has started, as far as its record does not say it."""

    row: TrialRow
    """As it is now; the record has it as it was last written."""
    started: TrialRow
    """As it was when the attempt was started."""
    train_s_before: float = 0.0
    device_s_before: float = 0.0
    """Of this attempt until it was interrupted, on the workers that it had then."""
    curve: dict[int, list[float | None]] = field(default_factory=dict)
    """Epoch -> the goals measured after it."""
    measured: dict[str, float] = field(default_factory=dict)
    """Column of `epochs` that is constrained -> its last number."""
    began: float | None = field(default_factory=lambda: time.monotonic())
    """When it was given workers; None while it waits for others than those that were lost."""
    failure: str | None = None
    workers: int | None = None
    """How many it runs on, where that was heard; fewer than it wants while machines are missing."""


class Listener(Protocol):
    """Who gets how a trial ended, after its rows are on disk: the trials of a search."""

    def complete(self, number: int, goals: list[float], violations: Mapping[str, float]) -> None: ...
    def prune(self, number: int, reason: str, curve: dict[str, list[Any]]) -> None: ...
    def fail(self, number: int, reason: str) -> None: ...
    def put_back(self, number: int) -> None: ...


class Recorder:
    """Puts down what happens to trials, tells Optuna, feeds the progress display."""

    def __init__(
        self,
        experiment: Experiment,
        record: StudyRecord,
        study_trials: Listener,
        progress: Progress,
        curves: Curves | None = None,
    ) -> None:
        self.experiment, self.record = experiment, record
        self.study_trials, self.progress = study_trials, progress
        progress.front = record.state.front
        self.running: dict[int, Running] = {}
        self.failed = 0
        self._counted_at = time.monotonic()
        self.watch = Watch(experiment, record.state)
        self.judge = open_judge(experiment, record.state.decisions, curves)

    def start(self, number: int, sampled: dict[str, Any], train: Train) -> None:
        """The trial was given to the cluster: at first, after an interruption, or after its worker was lost."""
        if number in self.running:
            trial = self.running[number]
            if trial.began is None:  # waiting for another worker took no device
                trial.began = time.monotonic()
                trial.row["started_at"] = datetime.now(UTC)
            return
        if number not in self.record.state.trials:  # of a single run, which nobody asks for
            self.record.take({"asked": {"number": number, "sampled": sampled}})
        known = self.record.state.trials[number]
        before = known.row or {}
        is_new_attempt = known.phase in ("asked", "lost")
        spent: Mapping[str, Any] = {} if is_new_attempt else before
        row = described(self.experiment, number, sampled, train) | {
            "attempt": known.attempt + is_new_attempt,
            "status": "running",
            "epochs_done": before.get("epochs_done", 0),
            "is_full_fidelity": False,
            "started_at": spent.get("started_at") or datetime.now(UTC),
        }
        row |= proposed(known, self.experiment.maximize)
        self.running[number] = Running(row, row, spent.get("train_s") or 0.0, spent.get("device_s") or 0.0)
        self._put_started(number)
        self.progress.started(number, sampled, epochs_done=row["epochs_done"])

    def decide(self, number: int, row: EpochRow) -> Made | None:
        """What early stopping decides on a row that is about to be reported; None where there is nothing to decide.

        A decision is on disk before anybody can act on it, and a trial that comes by again, after an interruption,
        hears the same one.
        """
        if self.judge is None or number not in self.running or row["epoch"] not in self.judge.rungs:
            return None
        if known := self.judge.made(number, row["epoch"]):
            return known
        trial, goals = self.running[number], self.experiment.maximize
        values: Mapping[str, Any] = trial.row | self._reportable(trial, row) if row.get("validation_images") else {}
        order = len(self.judge)
        made = self.judge.decide(number, row["epoch"], [values.get(goal) for goal in goals])
        self.record.take({"decision": decisions.as_row(made, trial_id=trial.row["trial_id"], goals=goals, order=order)})
        self.record.save()
        return made

    def report(self, number: int, message: dict[str, Any]) -> None:
        """A trial sent a row, or the reason why it gave up."""
        if number not in self.running:
            return
        trial = self.running[number]
        if "failed" in message:
            trial.failure = message["failed"]
            return
        row = cast(EpochRow, dict(message["row"]))
        epoch, attempt = row["epoch"], trial.row["attempt"]
        trial.row |= {"device": message["device"], "peak_memory_gib": message["peak_memory_gib"]}
        trial.workers = message.get("workers")
        by_name: Mapping[str, Any] = row
        trial.measured |= {name: by_name[name] for name in self.experiment.constraints if by_name.get(name) is not None}
        trial.row["epochs_done"] = max(epoch, trial.row["epochs_done"])
        if row.get("validation_images"):
            trial.curve[epoch] = [by_name.get(f"validation_{goal}") for goal in self.experiment.maximize]
            trial.row |= self._reportable(trial, row)
            trial.row["is_full_fidelity"] = epoch == json.loads(trial.row["config"])["epochs"]
        there = self.record.state.trials[number].epochs.get(epoch)
        if there is None or (there < attempt and not message["replayed"]):  # what was reported once stays as it is
            of_trial = {"trial": self._changes(number)} if row.get("validation_images") else {}
            name = trial.row["trial_id"]
            self.record.take({"epoch": {"trial_id": name, "attempt": attempt, **row}, **of_trial})
        self.progress.reported(number, trial.row)

    def end(self, number: int, error: str | None = None) -> None:
        """The trial will send nothing more: it is complete, was stopped early, has failed, or was interrupted."""
        if number not in self.running:
            return
        trial = self.running[number]
        row, goals = trial.row, self.experiment.maximize
        violations: Mapping[str, float] = {}
        error = error or trial.failure
        if not error and row["is_full_fidelity"]:
            error = _unusable({goal: row.get(goal) for goal in goals})
        stop = self.judge.stopped(number) if self.judge and not row["is_full_fidelity"] else None
        if stop:
            row |= {"status": "pruned", "stop_reason": self._stop_reason(stop)}
        elif error:
            row |= {"status": "failed", "error": error}
        elif row["is_full_fidelity"]:
            row["status"] = "complete"
            violations = self._check_constraints(number)
        else:
            self.interrupt(number, "interrupted")
            return
        curve: dict[str, list[Any]] = {}
        if stop:
            curve = {"epoch": list(trial.curve)}
            curve |= {goal: [values[i] for values in trial.curve.values()] for i, goal in enumerate(goals)}
        self._end(number, {"violations": violations, "curve": curve})
        by_name: Mapping[str, Any] = row
        self.watch.ended(error if row["status"] == "failed" else None)
        if stop:
            self.study_trials.prune(number, row["stop_reason"], curve)
        elif error:
            self.failed += 1
            self.study_trials.fail(number, error)
        else:
            self.study_trials.complete(number, [by_name[goal] for goal in goals], violations)

    def interrupt(self, number: int, reason: str) -> None:
        """The trial was stopped from outside and will go on when the study is resumed."""
        self._put_stopped(number, reason)
        self._save()
        self._leave(number)
        self.study_trials.put_back(number)

    def retry(self, number: int, error: str) -> None:
        """The trial's worker was lost; the next attempt goes on from its last checkpoint."""
        trial = self.running[number]
        trial.row |= {"status": "failed", "error": error, "ended_at": datetime.now(UTC)}
        self.record.take({"lost": self._changes(number, since_start=True)})
        trial.train_s_before, trial.device_s_before, trial.began = 0.0, 0.0, None
        trial.row |= {
            "attempt": trial.row["attempt"] + 1,
            "status": "running",
            "error": None,
            "started_at": datetime.now(UTC),
            "ended_at": None,
        }
        self._put_started(number)

    def close(self, reason: str) -> bool:
        """Put back what still runs; whether every row is on disk."""
        stopped = list(self.running)
        for number in stopped:
            self._put_stopped(number, reason)
        saved = self.record.flush(final=True)  # once for all of them, and before anything is shown
        for number in stopped:
            self._leave(number)
            self.study_trials.put_back(number)
        return saved

    def tick(self) -> None:
        """Call often: counts what is spent, writes what is due, and shows how far the study is."""
        now = time.monotonic()
        if now - self._counted_at >= COUNT_S:  # a thousand trials at once call this a hundred times a second
            self._counted_at = now
            for number in self.running:
                self._count(number)
        self.record.tick()
        self.progress.refresh()

    def _reportable(self, trial: Running, row: EpochRow) -> TrialRow:
        """What a measured row changes in its trial: nothing where an earlier one was better and the best counts."""
        choose, robust = self.experiment.validation.choose, row.get("validation_robust_accuracy")
        best = trial.row.get("robust_accuracy")
        if choose == "best" and robust is not None and best is not None and robust <= best:
            return {}
        return goals_of(row) | {
            "checkpoint": str(Path("checkpoints") / trial.row["trial_id"] / (LAST if choose == "last" else BEST))
        }

    def _check_constraints(self, number: int) -> Mapping[str, float]:
        """Whether a complete trial satisfies the constraints, put into its row; how far each is violated."""
        bounds = self.experiment.constraints
        if not bounds:
            return {}
        self._count(number)
        trial = self.running[number]
        checked = constraints.check(
            bounds, trial.measured | {name: trial.row.get(name) for name in constraints.OF_TRIALS}
        )
        trial.row |= {"feasible": not checked.broken, "broken_constraints": "; ".join(checked.broken) or None}
        return checked.violations

    def _stop_reason(self, stop: Made) -> str:
        assert self.experiment.early_stopping is not None
        return f"{self.experiment.early_stopping.name}: {stop.why}"

    def _end(self, number: int, known: Mapping[str, Any] | None = None) -> None:
        """The attempt is over; `known` is what its event says beside the row, where that is something."""
        self._put_ended(number, known)
        self._save()
        self._leave(number)

    def _save(self) -> None:
        """The record now, the tables when they are due: a thousand trials at once end many times in a second."""
        self.record.save()
        self.record.tick()

    def _put_stopped(self, number: int, reason: str) -> None:
        self.running[number].row |= {"status": "stopped", "stop_reason": reason}
        self._put_ended(number)

    def _put_ended(self, number: int, known: Mapping[str, Any] | None = None) -> None:
        self.running[number].row["ended_at"] = datetime.now(UTC)
        more = {name: value for name, value in (known or {}).items() if value}
        self.record.take({"ended": self._changes(number, since_start=True), **more})

    def _leave(self, number: int) -> None:
        """It is on disk that it runs no more."""
        self.progress.ended(number, self.running.pop(number).row)

    def _put_started(self, number: int) -> None:
        self._count(number)
        trial = self.running[number]
        trial.started = cast(TrialRow, dict(trial.row))
        self.record.take({"started": dict(trial.row)})

    def _changes(self, number: int, *, since_start: bool = False) -> TrialRow:
        """What is another in a trial's row than its record says, or than it was at its start.

        The end of an attempt says all of it, so that who reads the record of a trial that has ended need not look at
        what came in between.
        """
        self._count(number)
        trial = self.running[number]
        row: Mapping[str, Any] = trial.row
        there: Mapping[str, Any] = (trial.started if since_start else self.record.state.trials[number].row) or {}
        changed = {name: value for name, value in row.items() if there.get(name) != value or name == "status"}
        return cast(TrialRow, {"trial_id": row["trial_id"], "attempt": row["attempt"], **changed})

    def _count(self, number: int) -> None:
        """Wall time, device time and cost of this attempt up to now."""
        trial = self.running[number]
        resources = self.experiment.resources
        now = 0.0 if trial.began is None else time.monotonic() - trial.began
        seconds = trial.train_s_before + now
        devices = resources.devices * (trial.workers or resources.workers) / resources.workers
        device_s = trial.device_s_before + now * devices
        cost_usd = self.watch.attempt(trial.row["trial_id"], trial.row["attempt"], device_s)
        trial.row |= {"train_s": seconds, "device_s": device_s, "cost_usd": cost_usd}


def _unusable(goals: dict[str, Any]) -> str | None:
    """Why a trial that ran to its end has no result, if it has none."""
    bad = [goal for goal, value in goals.items() if value is None or not math.isfinite(value)]
    return f"no result: {', '.join(f'{goal} is {goals[goal]}' for goal in bad)} after the last epoch" if bad else None
