"""What checkpoints and Optuna's journal know of a study's trials, where no better record of them is left.

A checkpoint holds all epochs up to its own. The journal knows which trials there are, what was sampled, how each one
ended, with which goals, and when. NOT_KNOWN is what neither says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC
from pathlib import Path
from typing import Any, cast

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from arat_ray.experiment import constraints
from arat_ray.experiment.spec import Experiment
from arat_ray.results.rows import EpochRow, TrialRow
from arat_ray.results.schema import goals_of
from arat_ray.study import recorder
from arat_ray.study.journal import move_away
from arat_ray.study.trials import INTERRUPTED, JOURNAL, NO_HISTORY, NUMBER, REASON, known_of
from arat_ray.training import checkpoint

NOT_KNOWN = ("device", "train_s", "device_s", "cost_usd", "peak_memory_gib")


def epochs(
    study: Path, trials: Sequence[TrialRow], have: Mapping[str, set[int]], warn: Callable[[str], None]
) -> Iterator[EpochRow]:
    """Rows of `epochs` that checkpoints hold and the table lacks: `have` says which epochs of a trial it has.

    The checkpoints of trials that lack nothing are not opened.
    """
    attempts: dict[str, list[TrialRow]] = {}
    for row in trials:
        attempts.setdefault(row["trial_id"], []).append(row)
    for path in sorted((study / "checkpoints").glob(f"*/{checkpoint.LAST}")):
        name = path.parent.name
        of_trial = sorted(attempts.get(name, []), key=lambda row: int(row["attempt"]))
        there = have.get(name, set())
        if of_trial and set(range(1, 1 + max(row.get("epochs_done") or 0 for row in of_trial))) <= there:
            continue
        try:
            _, history = checkpoint.history(path)
        except ValueError as error:
            warn(str(error))
            continue
        for epoch in history:
            if epoch["epoch"] not in there:
                yield {"trial_id": name, "attempt": _attempt(of_trial, epoch["epoch"]), **epoch}


def _attempt(attempts: Sequence[TrialRow], epoch: int) -> int:
    """The attempt that came to an epoch first."""
    reached = [row["attempt"] for row in attempts if (row.get("epochs_done") or 0) >= epoch]
    last: int = reached[0] if reached else attempts[-1]["attempt"] if attempts else 1
    return last


def trials(
    study: Path,
    experiment: Experiment,
    known: set[str],
    epochs_of: Mapping[str, Sequence[EpochRow]],
    warn: Callable[[str], None],
) -> Iterator[TrialRow]:
    """Rows of `trials` for those of the study that are not `known`, each as one attempt."""
    for number, trial in _of_journal(study, experiment, warn).items():
        name = recorder.trial_id(experiment.name, number)
        has_begun = trial is None or trial.state != TrialState.WAITING or name in epochs_of
        if name not in known and has_begun:
            yield _row(experiment, number, trial, epochs_of.get(name, []))


def _of_journal(study: Path, experiment: Experiment, warn: Callable[[str], None]) -> dict[int, FrozenTrial | None]:
    """By number, the last that Optuna has of each trial; a single run has one trial and no journal."""
    path = study / JOURNAL
    if not path.exists():
        is_run = (study / "checkpoints" / recorder.trial_id(experiment.name, 0) / checkpoint.LAST).exists()
        return {0: None} if is_run and not experiment.search else {}
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        storage = JournalStorage(JournalFileBackend(str(path)))
        there = optuna.load_study(study_name=experiment.name, storage=storage).trials
    except (ValueError, *NO_HISTORY) as error:  # no JSON; or the study's first line is gone
        warn(f"{path} cannot be read ({type(error).__name__}: {error}); {move_away(path)}")
        return {}
    found: dict[int, FrozenTrial | None] = {}
    for trial in there:
        number = trial.user_attrs.get(NUMBER)
        if number is not None and (number not in found or trial.state != TrialState.WAITING):
            found[number] = trial
    return dict(sorted(found.items()))


def _row(experiment: Experiment, number: int, trial: FrozenTrial | None, history: Sequence[EpochRow]) -> TrialRow:
    sampled = {} if trial is None else known_of(trial)
    train = experiment.resolve(sampled)
    row = recorder.described(experiment, number, sampled, train)
    row |= {"attempt": max((each["attempt"] for each in history), default=1)}
    row |= {"epochs_done": max((each["epoch"] for each in history), default=0)}
    row |= _measured(experiment, row["trial_id"], history)
    row |= {"is_full_fidelity": row["epochs_done"] == train.epochs}
    if trial is None:
        row |= {"status": "complete" if row["is_full_fidelity"] else "stopped"}
    else:
        row |= _ending(experiment, trial)
    if row["status"] == "complete":
        row |= {"is_full_fidelity": True, "epochs_done": train.epochs}
    if row["status"] == "stopped":
        row |= {"stop_reason": INTERRUPTED}
    return row


def _measured(experiment: Experiment, name: str, history: Sequence[EpochRow]) -> TrialRow:
    """What a trial reports of its epochs: the last measurement, or the most robust one."""
    measured = [row for row in sorted(history, key=lambda row: int(row["epoch"])) if row.get("validation_images")]
    if not measured:
        return {}
    is_last = experiment.validation.choose == "last"
    row = measured[-1] if is_last else max(measured, key=lambda row: float(row["validation_robust_accuracy"]))
    file = checkpoint.LAST if is_last else checkpoint.BEST
    return goals_of(row) | {"checkpoint": str(Path("checkpoints") / name / file)}


def _ending(experiment: Experiment, trial: FrozenTrial) -> TrialRow:
    """How a trial ended, in the words of its row."""
    reason: Any = trial.user_attrs.get(REASON)
    row: TrialRow = {}
    if trial.state == TrialState.COMPLETE:
        row |= {"status": "complete"}
        row |= cast(TrialRow, dict(zip(experiment.maximize, trial.values, strict=True)))
        if experiment.constraints:
            broken = constraints.check(experiment.constraints, _constrained(experiment, trial)).broken
            row |= {"feasible": not broken, "broken_constraints": "; ".join(broken) or None}
    elif trial.state == TrialState.PRUNED:
        row |= {"status": "pruned", "stop_reason": reason}
    elif trial.state == TrialState.FAIL and reason != INTERRUPTED:
        row |= {"status": "failed", "error": reason}
    else:
        row |= {"status": "stopped"}
    began, ended = (moment and moment.astimezone(UTC) for moment in (trial.datetime_start, trial.datetime_complete))
    return row | {"started_at": began, "ended_at": ended}


def _constrained(experiment: Experiment, trial: FrozenTrial) -> dict[str, float]:
    """The numbers that were held against the constraints, back from how far each was violated."""
    values = {}
    for column, bound in experiment.constraints.items():
        for name, sign, limit in (("min", -1, bound.min), ("max", 1, bound.max)):
            violation = trial.constraints.get(f"{column}.{name}")
            if limit is not None and violation is not None and violation != constraints.NOT_MEASURED:
                values[column] = limit + sign * violation * (abs(limit) or 1.0)
    return values
