"""The tables of a study made again: from its log, from what is readable of them, from its checkpoints and its journal.

Of each row what the log says counts, because it was written before the table. A row that only a readable part has is
kept. Rows that neither has are recollected (`recollect`). A table is swapped in when it is complete; the old one stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow as pa

from arat_ray import locks
from arat_ray.experiment.config import load
from arat_ray.experiment.errors import ExperimentError
from arat_ray.experiment.spec import Experiment
from arat_ray.frontier.dominance import non_dominated
from arat_ray.frontier.eligibility import competes
from arat_ray.results import log, merging, reader
from arat_ray.results.merging import Difference, Old
from arat_ray.results.rows import EpochRow, TrialRow
from arat_ray.results.schema import PART_ROWS, TABLES, Metadata, trials_schema
from arat_ray.results.statuses import ENDED
from arat_ray.study import folder as study_folder
from arat_ray.study import recover
from arat_ray.study.trials import JOURNAL

Key = tuple[str, int]


class Rebuilt(NamedTuple):
    """What became of one table."""

    name: str
    rows: int
    damaged: list[str]
    """Parts that could not be read, or were missing."""
    differs: Difference
    recollected: list[str]
    """Trials with rows from checkpoints and the journal, which do not know everything."""
    missing: list[str]
    """What is nowhere."""
    kept: Path | None
    """Where the old table is, if it was replaced."""


class Result(NamedTuple):
    """The tables of a study after `rebuild`, what could not be read on the way, whether study.json was made again."""

    tables: list[Rebuilt]
    problems: list[str]
    is_described_again: bool = False


def rebuild(study: Path) -> Result:
    """Make the tables of a study again, and replace those that were damaged or differ.

    ValueError where another process writes to the study, and where its study.yaml does not say what it is; OSError
    where the new tables cannot be written, and then the old ones are as they were.
    """
    with _held(study):
        problems = list[str]()
        sources = _gather(study, problems.append)
        described_again = _describe_again(sources)
        epochs, trials = _combined(sources, "epochs"), _combined_trials(sources)
        again = list(recover.epochs(study, list(trials.values()), _epochs_of(epochs), problems.append))
        epochs = _added(epochs, again, "epochs", sources)
        known = {name for name, _ in trials}
        by_trial: dict[str, list[EpochRow]] = {}
        for each in _unknown(epochs, known):
            by_trial.setdefault(each["trial_id"], []).append(each)
        for row in recover.trials(study, sources.experiment, known, by_trial, problems.append):
            trials[row["trial_id"], row["attempt"]] = row
        rebuilt = [
            _replace(
                sources,
                "epochs",
                epochs,
                recollected=sorted({row["trial_id"] for row in again}),
                missing=_missing_epochs(trials, _epochs_of(epochs)),
            ),
            _replace(
                sources,
                "trials",
                merging.from_rows(_marked(trials, sources.experiment.maximize), sources.schema("trials")),
                recollected=sorted({name for name, _ in trials} - known),
            ),
        ]
        for name in ("decisions", "examples", "evaluations"):
            if name in sources.old:
                table = _combined(sources, name)
                rebuilt.append(_replace(sources, name, table, missing=_missing(name, table, trials, sources)))
        return Result(sorted(rebuilt, key=lambda each: list(TABLES).index(each.name)), problems, described_again)


class _Sources(NamedTuple):
    """What a study's folder says of its tables."""

    study: Path
    experiment: Experiment
    metadata: Metadata
    old: dict[str, Old]
    logged: dict[str, pa.Table]
    """All rows of all tables but `trials`, of the same key too."""
    trials: list[log.LoggedRow]

    def schema(self, name: str) -> pa.Schema:
        """The columns of a table, and what its files say about themselves."""
        return _schema(name, self.experiment, self.metadata)


def _schema(name: str, experiment: Experiment, metadata: Metadata) -> pa.Schema:
    columns = trials_schema(study_folder.param_types(experiment)) if name == "trials" else TABLES[name].schema
    return columns.with_metadata(metadata.encode())


def _describe_again(sources: _Sources) -> bool:
    """Make a study.json that cannot be read again; whether it was made."""
    try:
        study_folder.described(sources.study)
        return False
    except ValueError:
        is_run = not any(name.startswith("param_") for name in sources.old["trials"].table.column_names)
        is_run = is_run and not (sources.study / JOURNAL).exists()
        study_folder.describe_again(sources.study, sources.experiment, kind="train" if is_run else "tune")
        return True


def _gather(study: Path, warn: Callable[[str], None]) -> _Sources:
    try:
        experiment = load(
            study / "study.yaml", opens_data=False
        )  # it may be somebody else's, and was checked when it began
    except ExperimentError as error:
        problems = "; ".join(error.problems)
        raise ValueError(f"{study / 'study.yaml'} says what the tables are, and cannot be read: {problems}") from error
    metadata = Metadata(**(vars(study_folder.metadata(experiment)) | {"revision": _revision(study)}))
    trials, logged = list[log.LoggedRow](), dict[str, pa.Table]()
    entries: dict[str, list[log.LoggedRow]] = {}

    def store(name: str) -> None:
        some = merging.from_rows(
            _fitting(entries.pop(name), schema := _schema(name, experiment, metadata), warn), schema
        )
        logged[name] = pa.concat_tables([logged[name], some]) if name in logged else some

    for entry in chain(log.read(study, warn), log.read_evaluations(study, warn)):
        if entry.table == "trials":
            trials.append(entry)
        else:
            entries.setdefault(entry.table, []).append(entry)
            if len(entries[entry.table]) >= merging.AT_ONCE:
                store(entry.table)
    for name in list(entries):
        store(name)
    trials = _fitting_entries(trials, _schema("trials", experiment, metadata), warn)
    old = {}
    for name in TABLES:
        folder = merging.before_rebuild(study / name)
        if folder.is_dir() or name in logged or name in ("trials", "epochs"):
            old[name] = merging.read_what_is_whole(folder, _schema(name, experiment, metadata))
    return _Sources(study, experiment, metadata, old, logged, trials)


def _fitting(
    entries: Sequence[log.LoggedRow], schema: pa.Schema, warn: Callable[[str], None]
) -> list[Mapping[str, Any]]:
    return [entry.row for entry in _fitting_entries(entries, schema, warn)]


def _fitting_entries(
    entries: Sequence[log.LoggedRow], schema: pa.Schema, warn: Callable[[str], None]
) -> list[log.LoggedRow]:
    """Those whose values the table can hold; looked at one by one only where they are not all."""

    def fit(some: Sequence[log.LoggedRow]) -> bool:
        try:
            merging.from_rows((entry.row for entry in some), schema)
        except (ValueError, TypeError, OverflowError, pa.ArrowException):
            return False
        return True

    if fit(entries):
        return list(entries)
    found = []
    for entry in entries:
        if fit([entry]):
            found.append(entry)
        else:
            warn(f"{entry.at} holds a row that the table {entry.table} cannot; {log.SKIPPED}")
    return found


def _revision(study: Path) -> str:
    """The revision that began the study's tables, where it is still known."""
    with suppress(ValueError):
        return reader.metadata(study).revision
    try:
        return str(study_folder.described(study)["revision"])
    except (ValueError, KeyError):
        return "unknown"


def _combined(sources: _Sources, name: str) -> pa.Table:
    """What the log says, in its order, and then the rows that only readable parts have."""
    key, old = TABLES[name].key, sources.old[name].table
    if name not in sources.logged:
        return old
    new = merging.newest(sources.logged[name], key)
    return pa.concat_tables([new, merging.without(old, key, new)])


def _combined_trials(sources: _Sources) -> dict[Key, TrialRow]:
    """The same of `trials`, whose log says what changed.

    A trial that ended in the table and goes on in the log lacks its last lines there.
    """
    old = {(row["trial_id"], row["attempt"]): row for row in sources.old["trials"].table.to_pylist()}
    found: dict[Key, TrialRow] = {}
    for _, kind, row, _ in sources.trials:
        key = (row["trial_id"], row["attempt"])
        before = {} if kind == "row" else found.get(key) or old.get(key) or {}
        found[key] = cast(TrialRow, {**before, **row})
    for key, row in old.items():
        has_ended = row["status"] in ENDED
        if key not in found or (has_ended and found[key].get("status") == "running"):
            found[key] = row
    return found


def _added(table: pa.Table, rows: Sequence[EpochRow], name: str, sources: _Sources) -> pa.Table:
    return pa.concat_tables([table, merging.from_rows(rows, sources.schema(name))])


def _epochs_of(epochs: pa.Table) -> dict[str, set[int]]:
    """By trial, the epochs that there are."""
    found: dict[str, set[int]] = {}
    for name, epoch in merging.keys(epochs, ("trial_id", "epoch")):
        found.setdefault(name, set()).add(epoch)
    return found


def _unknown(epochs: pa.Table, known: set[str]) -> list[EpochRow]:
    """The rows of trials that are not known."""
    mask = np.array([name not in known for name in epochs["trial_id"].to_pylist()], dtype=bool)
    rows: list[EpochRow] = reader.keep(epochs, mask).to_pylist()
    return rows


def _missing_epochs(trials: Mapping[Key, TrialRow], have: Mapping[str, set[int]]) -> list[str]:
    """In words, the epochs that trials have run and no source holds."""
    missing, last = [], dict[str, int]()
    for (name, _), row in trials.items():
        last[name] = max(row.get("epochs_done") or 0, last.get(name, 0))
    for name, done in last.items():
        if gone := sorted(set(range(1, done + 1)) - have.get(name, set())):
            missing.append(f"{name}: {len(gone)} of {done} epochs, the first is {gone[0]}")
    return missing


def _missing(name: str, table: pa.Table, trials: Mapping[Key, TrialRow], sources: _Sources) -> list[str]:
    """In words, what the log alone could say of the other tables, and does not."""
    if name == "decisions":
        decided = set(reader.keep(table, ~np.array(table["goes_on"].to_pylist(), dtype=bool))["trial_id"].to_pylist())
        stopped = {trial for (trial, _), row in trials.items() if row.get("status") == "pruned"}
        return [f"{trial}: why it was stopped" for trial in sorted(stopped - decided)]
    if sources.old[name].damaged and name not in sources.logged:
        return ["what was in the damaged parts; `arat-ray evaluate` measures it again"]
    return []


def _marked(trials: Mapping[Key, TrialRow], goals: Sequence[str]) -> list[TrialRow]:
    """The rows with `on_front`, as the writer marks it."""
    last = dict[str, int]()
    for name, attempt in trials:
        last[name] = max(attempt, last.get(name, attempt))
    competing = [key for key, row in trials.items() if key[1] == last[key[0]] and competes(row, goals)]
    rows: Mapping[Key, Mapping[str, Any]] = trials
    points = np.array([[rows[key][goal] for goal in goals] for key in competing]).reshape(-1, len(goals))
    front = {key for key, on in zip(competing, non_dominated(points), strict=True) if on}
    return [{**row, "on_front": key in front} for key, row in trials.items()]


def _replace(
    sources: _Sources, name: str, table: pa.Table, *, recollected: Sequence[str] = (), missing: Sequence[str] = ()
) -> Rebuilt:
    old, folder = sources.old[name], sources.study / name
    differs = merging.difference(old.table, table, TABLES[name].key)
    assert not differs.lost, f"{name}: a row of a readable part would be dropped"
    kept = None
    if old.damaged or differs or not reader.part_files(folder):
        kept = merging.replace(folder, table, part_rows=PART_ROWS[name])
    return Rebuilt(name, table.num_rows, old.damaged, differs, list(recollected), list(missing), kept)


@contextmanager
def _held(study: Path) -> Iterator[None]:
    """Hold a study as its writers do, those of evaluations too."""
    if not (study / "study.yaml").exists():
        raise ValueError(f"{study} is no study: there is no study.yaml in it, which says what its tables are")
    with ExitStack() as stack:
        for path in (study / ".lock", study / "evaluations" / ".lock"):
            if path.parent.is_dir():
                stack.enter_context(locks.held(path))
        yield


def lines(study: Path, result: Result) -> Iterator[str]:
    """What `rebuild` did, for people."""
    for table in result.tables:
        parts = [f"{table.name}: {table.rows:,} rows"]
        if table.damaged:
            parts.append(f"damaged or missing: {', '.join(table.damaged)}")
        if table.differs.added:
            parts.append(f"{table.differs.added:,} of them not in what could be read")
        parts += [f"{name} changed in {count:,}" for name, count in table.differs.changed.items()]
        if table.kept:
            parts.append(f"the old table is {table.kept.name}")
        yield "; ".join(parts if len(parts) > 1 else [*parts, "as it was"])
        if table.recollected and table.name == "trials":
            yield f"  without {', '.join(recover.NOT_KNOWN)}, which the log alone knows: {_some(table.recollected)}"
        elif table.recollected:
            yield f"  from checkpoints: {_some(table.recollected)}"
        if table.missing:
            yield f"  in no source: {_some(table.missing)}"
    if result.is_described_again:
        yield "study.json: made again from study.yaml; the times and sources that it knew are in no other file"
    yield from (f"not readable: {problem}" for problem in result.problems)


def _some(words: Sequence[str], at_most: int = 6) -> str:
    more = len(words) - at_most
    return ", ".join(words[:at_most]) + (f" and {more} more" if more > 0 else "")
