"""Verifying a study: its record, tables, checkpoints and description held against each other; nothing is changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow as pa

from arat_ray import earlier, locks
from arat_ray.experiment.spec import Experiment
from arat_ray.results import merging, reader
from arat_ray.results.reading import Reading, record_of
from arat_ray.results.rows import TrialRow
from arat_ray.results.schema import GOALS, TABLES
from arat_ray.results.segments import FOLDER, folder_of
from arat_ray.storage.names import below
from arat_ray.study import conversion, description, facts, mending, rewriting
from arat_ray.study.facts import Facts
from arat_ray.study.record import event_of
from arat_ray.study.state import ImpossibleError, StudyState
from arat_ray.text import command
from arat_ray.training import checkpoint
from arat_ray.training.identity import without_places

SHOWN_AT_MOST = 20
COMPARED = ("loss_adversarial", "loss_clean", "learning_rate", *(f"validation_{name}" for name in GOALS))
"""Columns of `epochs` that are held against the history of a checkpoint."""


class Finding(NamedTuple):
    """Something that is not as it should be, and what mends it."""

    what: str
    remedy: str


class Verified(NamedTuple):
    """What was looked at, and what was found."""

    lines: int
    """Of the record."""
    rows: dict[str, int]
    checkpoints: int
    problems: list[Finding]
    is_running: bool
    """Whether the study was being written to, so that its tables may be a little behind."""


def verify(study: Path) -> Verified:
    """Hold everything in a study's folder against everything else.

    ValueError where there is no study, or one of before there were records.
    """
    if not study.is_dir() or not any((study / name).exists() for name in ("study.yaml", "study.json", FOLDER)):
        raise ValueError(f"{study} is no study: there is no study.json in it")
    if conversion.is_of_before(study):
        raise ValueError(
            f"{study} is of an earlier version and has no record yet; it gets one from --resume, or from: "
            f"{command('arat-ray', 'results', 'rebuild', study)}"
        )
    record = mending.owner(study)
    rebuild = command("arat-ray", "results", "rebuild", study)
    problems: list[Finding] = []

    def found(what: object, remedy: str = rebuild) -> None:
        problems.append(Finding(str(what), remedy))

    is_running = locks.is_held(study / ".lock")
    try:
        experiment = mending.experiment_of(study)
    except ValueError as error:
        return Verified(0, {}, 0, [Finding(str(error), rebuild)], is_running)
    if record_of(study) not in ("", record):
        found(f"{folder_of(study)} is the record of another study")
        return Verified(0, {}, 0, problems, is_running)
    known = facts.of_record(study, experiment, found)
    if not known.lines and not problems:
        found(f"{folder_of(study)} holds no record")
    state = None if problems else _replayed(study, experiment, found)
    if state is not None and state.starts and not is_running:
        _check_description(study, state, record, found)
    rows = {name: _check_table(study, name, known, experiment, record, found, is_running=is_running) for name in TABLES}
    return Verified(known.lines, rows, _check_checkpoints(study, known, found), problems, is_running)


def _replayed(study: Path, experiment: Experiment, found: Callable[[object], None]) -> StudyState | None:
    """What a whole record adds up to; None where a line cannot follow those before it."""
    reading, state = Reading(folder_of(study)), StudyState(experiment.maximize)
    for line in reading:
        try:
            state.apply(event_of(line))
        except (ImpossibleError, LookupError, TypeError, AttributeError) as error:
            found(f"{reading.folder}: line {line.number} of the record cannot follow those before it: {error}")
            return None
    return state


def _check_description(study: Path, state: StudyState, record: str, found: Callable[[object], None]) -> None:
    try:
        if description.read(study) != description.of_state(state, record):
            found(f"{study / 'study.json'} does not say what the record does")
    except ValueError as error:
        found(str(error).partition("; make it again")[0])
    if (study / "study.yaml").read_bytes() != state.starts[-1]["yaml"].encode(errors="surrogateescape"):
        found(f"{study / 'study.yaml'} is not the file that the record was begun with")


def _check_table(
    study: Path,
    name: str,
    known: Facts,
    experiment: Experiment,
    record: str,
    found: Callable[[object], None],
    *,
    is_running: bool,
) -> int:
    """How many rows a table has."""
    damaged = reader.damaged_parts(study / name, record)
    for part in damaged:
        found(f"{study / name / part} is damaged, missing, or of another study")
    wanted = rewriting.table(known, name, experiment, study)
    if not reader.part_files(study / name):
        if wanted.num_rows or name in ("trials", "epochs"):
            found(f"{study / name} is missing")
        return 0
    try:
        there = merging.read_what_is_whole(study / name, wanted.schema, record).table
    except ValueError as error:
        found(error)
        return 0
    differs = merging.difference(there, wanted, TABLES[name].key)
    if differs.lost:
        found(f"{study / name} has {differs.lost:,} rows that the record lacks")
    if not is_running and not damaged and differs.added:
        found(f"{study / name} lacks {differs.added:,} rows that the record has")
    if not is_running:
        for column, count in differs.changed.items():
            found(f"{study / name}: {column} is another in {count:,} rows than in the record")
    if differs.doubled:
        found(f"{study / name} has {differs.doubled:,} rows twice")
    return int(there.num_rows)


def _check_checkpoints(study: Path, known: Facts, found: Callable[..., None]) -> int:
    """How many checkpoints were looked at: those that trials name, where `checkpoints/` was brought along at all."""
    if not (study / "checkpoints").is_dir():
        return 0
    last: dict[str, TrialRow] = {}
    for (name, attempt), row in known.trials.items():
        if attempt >= last.get(name, row)["attempt"]:
            last[name] = row
    count, epochs = 0, _by_trial(known.tables["epochs"].select([*TABLES["epochs"].key, *COMPARED]))
    for row in last.values():
        if row.get("checkpoint"):
            count += 1
            measured = epochs(row["trial_id"])
            try:
                problem = _problem_of_checkpoint(study, row, measured)
            except checkpoint.NotNowError as error:
                found(error, "verify again when it can be: nothing is known of it")
                continue
            if problem:
                found(problem, f"bring back a copy, or remove it: trial {row['number']} cannot be evaluated without")
    return count


def _by_trial(epochs: pa.Table) -> Callable[[str], list[dict[str, Any]]]:
    """A function from a trial to its rows, as they stand in a table."""
    names = np.array(epochs["trial_id"].to_pylist(), dtype=object)
    order = np.argsort(names, kind="stable")
    found, starts = np.unique(names[order], return_index=True)
    places = dict(zip(found, np.split(order, starts[1:]), strict=True)) if len(names) else {}

    def of_trial(name: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = epochs.take(pa.array(places[name])).to_pylist() if name in places else []
        return rows

    return of_trial


def _problem_of_checkpoint(study: Path, row: Mapping[str, Any], measured: Sequence[Mapping[str, Any]]) -> str | None:
    """What is wrong with the checkpoint that a row of `trials` names, beside the rows of the trial's epochs.

    Raises NotNowError where the disk, or a lack of rights, keeps it from being read.
    """
    try:
        path = below(study, row["checkpoint"])
    except ValueError as error:
        return f"{study}/trials names a checkpoint that is not the study's: {error}"
    if not path.is_file():
        return f"{path} is missing"
    damaged = f"{path} is damaged, or no checkpoint"
    if not checkpoint.is_whole(path):
        return damaged
    try:
        train, history = checkpoint.history(path)
    except checkpoint.NotNowError:
        raise
    except ValueError:
        return damaged
    config = earlier.train(reader.config(study, row)) if row.get("config") else train
    if without_places(earlier.train(train)) != without_places(config):
        return f"{path} is of another run than trial {row['number']}"
    if path.name == checkpoint.LAST and row["status"] == "complete" and len(history) < row["epochs_done"]:
        return f"{path} is of epoch {len(history)}, and trial {row['number']} has trained {row['epochs_done']}"
    newest = {each["epoch"]: each for each in sorted(measured, key=lambda each: int(each["attempt"]))}
    for one in cast(list[dict[str, Any]], history):
        other = newest.get(one["epoch"], one)
        for name in COMPARED:
            if repr(one.get(name)) != repr(other.get(name)):  # NaN is not equal to itself
                return f"{path} says {name} {one.get(name)} of epoch {one['epoch']}, and the record {other.get(name)}"
    return None


def lines(study: Path, result: Verified) -> Iterator[str]:
    """What was found, for people."""
    for problem in result.problems[:SHOWN_AT_MOST]:
        yield f"{problem.what}; {problem.remedy}"
    if (more := len(result.problems) - SHOWN_AT_MOST) > 0:
        yield f"and {more} more"
    counted = ", ".join(f"{count:,} {name}" for name, count in result.rows.items() if count)
    what = f"a record of {result.lines:,} lines, {counted or 'no rows'}, {result.checkpoints:,} checkpoints"
    running = "; it is being written to, so its tables may be behind" if result.is_running else ""
    if not result.problems:
        yield f"OK: {study}: {what}{running}"
    else:
        yield f"{len(result.problems)} problem{'s' * (len(result.problems) > 1)}: {study}: {what}{running}"
