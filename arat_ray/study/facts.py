"""Facts: what a study's record, its tables and its checkpoints each say of it, brought together.

What is damaged in one of them, the others may still hold. `study.rewriting` writes all of it down again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa

from arat_ray.experiment.spec import Experiment
from arat_ray.results import evaluation_records, merging, reader
from arat_ray.results.reading import Damage, Reading
from arat_ray.results.rows import EpochRow, TrialRow
from arat_ray.results.schema import TABLES, goals_of, trials_schema
from arat_ray.results.segments import Event, folder_of
from arat_ray.results.statuses import ENDED, Status
from arat_ray.study import description
from arat_ray.study.record import event_of
from arat_ray.study.state import number_of
from arat_ray.study.trial_rows import described
from arat_ray.training import checkpoint

Key = tuple[str, int]
OF_ATTEMPTS = ("started", "lost", "ended")


@dataclass
class Facts:
    """What is known of a study, whatever the order in which it happened."""

    starts: list[dict[str, Any]] = field(default_factory=list)
    learned: list[dict[str, Any]] = field(default_factory=list)
    asked: dict[int, dict[str, Any]] = field(default_factory=dict)
    trials: dict[Key, TrialRow] = field(default_factory=dict)
    more: dict[Key, Event] = field(default_factory=dict)
    """What the end of an attempt says beside its row."""
    tables: dict[str, pa.Table] = field(default_factory=dict)
    """The other tables: rows of equal keys at most once."""
    order: list[Key] = field(default_factory=list)
    """In which order the last attempts at trials ended."""
    lines: int = 0
    """Of the record that says so."""


def schema(name: str, experiment: Experiment, study: Path) -> pa.Schema:
    """The columns of a table of a study, and what its files say about themselves."""
    columns = trials_schema(description.param_types(experiment)) if name == "trials" else TABLES[name].schema
    known = description.metadata(experiment)
    try:
        revision = reader.metadata(study).revision
    except ValueError:
        revision = known.revision
    return columns.with_metadata(type(known)(**(vars(known) | {"revision": revision})).encode())


def of_record(study: Path, experiment: Experiment, damaged: Callable[[Damage], None] | None = None) -> Facts:
    """What the records of a study and of its evaluations say; where they are damaged, and `damaged` is given, the rest.

    ValueError where they are, and it is not.
    """
    facts, batches = none(experiment, study), _Batches(experiment, study)
    reading = Reading(folder_of(study), damaged)
    for line in reading:
        event = event_of(line)
        kind = line.kind.decode()
        what = event[kind]
        if kind == "study":
            facts.starts.append(what)
        elif kind == "learned":
            facts.learned.append(what)
        elif kind == "asked":
            facts.asked[what["number"]] = what
        elif kind == "decision":
            batches.add("decisions", what)
        elif kind == "epoch":
            batches.add("epochs", what)
            if changes := event.get("trial"):
                _change(facts, changes)
        elif kind in OF_ATTEMPTS:
            key = _change(facts, what, whole=kind == "started")
            if kind == "ended" and what["status"] in ENDED:
                facts.order.append(key)
                facts.more[key] = {name: event[name] for name in ("violations", "curve") if name in event}
    for table, row in evaluation_records.read(study, damaged):
        batches.add(table, row)
    facts.tables, facts.lines = batches.done(), reading.lines
    return facts


def none(experiment: Experiment, study: Path) -> Facts:
    """Nothing is known."""
    return Facts(tables={"epochs": schema("epochs", experiment, study).empty_table()})


def of_tables(study: Path, experiment: Experiment, record: str = "") -> tuple[Facts, dict[str, list[str]]]:
    """What the tables say as far as they can be read, and by table the parts that cannot, or are missing.

    Parts that are made from another `record` are as good as missing.
    """
    facts, damaged = Facts(), dict[str, list[str]]()
    for name in TABLES:
        folder = merging.before_rebuild(study / name)
        if not folder.is_dir():
            continue
        old = merging.read_what_is_whole(folder, schema(name, experiment, study), record)
        own = own_rows(old.table, experiment)
        foreign = old.table.num_rows - own.num_rows
        if old.damaged or foreign:
            damaged[name] = old.damaged + [f"{foreign} rows of another study"] * bool(foreign)
        if name == "trials":
            facts.trials = {(row["trial_id"], row["attempt"]): row for row in own.to_pylist()}
        else:
            facts.tables[name] = merging.newest(own, TABLES[name].key)
    return facts, damaged


def own_rows(table: pa.Table, experiment: Experiment) -> pa.Table:
    """The rows of a table of trials that are of this study, by their names: old parts do not say whose they are."""
    if "evaluation_id" in table.column_names:
        return table
    names = table["trial_id"].to_pylist()
    own = {name for name in set(names) if name.rpartition("-")[0] == experiment.name}
    return table if len(own) == len(set(names)) else reader.keep(table, np.array([name in own for name in names]))


def union(first: Facts, second: Facts) -> Facts:
    """All of both; where they differ the first counts, but for a trial that has ended in the second alone."""
    trials = dict(first.trials)
    for attempt, row in second.trials.items():
        there = trials.get(attempt, {})
        has_ended = row["status"] in ENDED and there.get("status") not in ENDED
        trials[attempt] = cast(TrialRow, {**there, **row} if has_ended else {**row, **there})
    tables = dict(first.tables)
    for name, table in second.tables.items():
        mine, key = tables.get(name), TABLES[name].key
        tables[name] = table if mine is None else pa.concat_tables([mine, merging.without(table, key, mine)])
    return Facts(
        first.starts or second.starts,
        first.learned or second.learned,
        second.asked | first.asked,
        trials,
        second.more | first.more,
        tables,
        [*first.order, *(key for key in second.order if key not in first.order)],
    )


def with_checkpoints(facts: Facts, study: Path, experiment: Experiment, warn: Callable[[str], None]) -> list[str]:
    """Add the epochs that checkpoints hold and nothing else does; of which trials there were some.

    `warn` gets checkpoints that cannot be read; those of trials that lack nothing are not opened.
    """
    have, found = epochs_of(facts), list[EpochRow]()
    for path in sorted((study / "checkpoints").glob(f"*/{checkpoint.LAST}")):
        name = path.parent.name
        attempts = sorted((row for (each, _), row in facts.trials.items() if each == name), key=attempt_of)
        there, done = have.get(name, set()), max((row.get("epochs_done") or 0 for row in attempts), default=0)
        if attempts and set(range(1, 1 + done)) <= there:
            continue
        try:
            _, history = checkpoint.history(path)
        except ValueError as error:
            warn(str(error))
            continue
        for row in history:
            if row["epoch"] not in there:
                found.append({"trial_id": name, "attempt": _first_at(attempts, row["epoch"]), **row})
    if found:
        more = merging.from_rows(cast(Any, found), facts.tables["epochs"].schema)
        facts.tables["epochs"] = pa.concat_tables([facts.tables["epochs"], more])
    return sorted({row["trial_id"] for row in found})


def epochs_of(facts: Facts) -> dict[str, set[int]]:
    """By trial, the epochs of which there is a row."""
    have: dict[str, set[int]] = {}
    for name, epoch in merging.keys(facts.tables["epochs"], ("trial_id", "epoch")):
        have.setdefault(name, set()).add(epoch)
    return have


def with_attempts(facts: Facts, experiment: Experiment) -> None:
    """Add a row of `trials` for each attempt of which only epochs are known, or only a later attempt.

    The last one at a trial goes on when the study does.
    """
    epochs: dict[Key, int] = {}
    for name, attempt, epoch in merging.keys(facts.tables["epochs"], TABLES["epochs"].key):
        epochs[name, attempt] = max(epoch, epochs.get((name, attempt), 0))
    last: dict[str, int] = {}
    for name, attempt in [*epochs, *facts.trials]:
        last[name] = max(attempt, last.get(name, 0))
    unknown = {
        name
        for name, attempts in last.items()
        if any("config" not in facts.trials.get((name, attempt), {}) for attempt in range(1, attempts + 1))
    }
    measured = _measured(facts, experiment, unknown)
    for name in unknown:
        for attempt in range(1, last[name] + 1):
            if "config" not in facts.trials.get((name, attempt), {}):
                status: Status = "stopped" if attempt == last[name] else "failed"
                row = _unknown(facts, experiment, name, attempt, status)
                row["epochs_done"] = epochs.get((name, attempt), 0)
                row |= measured.get(name, {})
                facts.trials[name, attempt] = cast(TrialRow, {**row, **facts.trials.get((name, attempt), {})})
    for known in facts.trials.values():
        values: Mapping[str, Any] = known
        if known["status"] == "complete" and any(values.get(goal) is None for goal in experiment.maximize):
            known["status"] = "stopped"  # it has a checkpoint of its last epoch, and measures again


def _change(facts: Facts, changes: TrialRow, *, whole: bool = False) -> Key:
    key = key_of(changes)
    before = {} if whole else facts.trials.get(key, {})
    facts.trials[key] = cast(TrialRow, {**before, **changes})
    return key


def key_of(row: TrialRow) -> Key:
    return row["trial_id"], row["attempt"]


def attempt_of(row: TrialRow) -> int:
    return row["attempt"]


def _first_at(attempts: list[TrialRow], epoch: int) -> int:
    """The attempt that came to an epoch first."""
    reached = [row["attempt"] for row in attempts if (row.get("epochs_done") or 0) >= epoch]
    return reached[0] if reached else attempts[-1]["attempt"] if attempts else 1


class _Batches:
    """Rows by table, as they come; of rows with equal keys the last counts."""

    def __init__(self, experiment: Experiment, study: Path) -> None:
        self.schemas = {name: schema(name, experiment, study) for name in TABLES if name != "trials"}
        self.rows: dict[str, list[Mapping[str, Any]]] = {}
        self.tables: dict[str, list[pa.Table]] = {"epochs": [self.schemas["epochs"].empty_table()]}

    def add(self, name: str, row: Mapping[str, Any]) -> None:
        rows = self.rows.setdefault(name, [])
        rows.append(row)
        if len(rows) >= merging.AT_ONCE:
            self._store(name)

    def done(self) -> dict[str, pa.Table]:
        for name in list(self.rows):
            self._store(name)
        return {name: merging.newest(pa.concat_tables(parts), TABLES[name].key) for name, parts in self.tables.items()}

    def _store(self, name: str) -> None:
        self.tables.setdefault(name, []).append(merging.from_rows(self.rows.pop(name), self.schemas[name]))


def _measured(facts: Facts, experiment: Experiment, names: set[str]) -> dict[str, TrialRow]:
    """What trials report of their epochs: the last measurement, or the most robust one."""
    is_last = experiment.validation.choose == "last"
    by, file = ("epoch", checkpoint.LAST) if is_last else ("validation_robust_accuracy", checkpoint.BEST)
    best: dict[str, dict[str, Any]] = {}
    for chunk in facts.tables["epochs"].to_batches(max_chunksize=merging.AT_ONCE) if names else ():
        for row in chunk.to_pylist():
            name = row["trial_id"]
            if name in names and row["validation_images"] and (name not in best or row[by] >= best[name][by]):
                best[name] = row
    return {
        name: goals_of(cast(EpochRow, row)) | {"checkpoint": str(Path("checkpoints") / name / file)}
        for name, row in best.items()
    }


def _unknown(facts: Facts, experiment: Experiment, name: str, attempt: int, status: Status) -> TrialRow:
    """The row of an attempt of which only epochs are known."""
    number = number_of(name)
    sampled = (facts.asked.get(number) or {}).get("sampled") or {}
    row = described(experiment, number, sampled, experiment.resolve(sampled))
    row |= {"attempt": attempt, "status": status, "epochs_done": 0, "is_full_fidelity": False}
    return row
