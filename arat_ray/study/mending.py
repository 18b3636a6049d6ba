"""Mending a study: tables made again from its record, a damaged record from its tables, and both from checkpoints.

`remake_damaged` is what every start does; `rebuild` does more, and says what is nowhere. What is replaced is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, cast

from arat_ray import locks, whole_files
from arat_ray.experiment.config import load
from arat_ray.experiment.errors import ExperimentError
from arat_ray.experiment.spec import Experiment
from arat_ray.results import evaluation_records, merging, reader
from arat_ray.results.merging import Difference
from arat_ray.results.reading import Reading, record_of
from arat_ray.results.schema import PARAM, PART_ROWS, TABLES
from arat_ray.results.segments import FOLDER, files, folder_of, rewrite
from arat_ray.results.table_folder import mark_of
from arat_ray.study import conversion, description, facts, rewriting
from arat_ray.study.facts import Facts
from arat_ray.study.record import StudyRecord, mend_with


class Rebuilt(NamedTuple):
    """What became of one table."""

    name: str
    rows: int
    damaged: list[str]
    """Parts that could not be read, or were missing."""
    differs: Difference
    kept: Path | None
    """Where the old table is, if it was replaced."""


class Result(NamedTuple):
    """A study after `rebuild`."""

    tables: list[Rebuilt]
    damages: list[str]
    """What was damaged in the record, and what could not be read on the way."""
    record: Path | None
    """Where the record is, if it was written again."""
    from_checkpoints: list[str]
    """Trials of which epochs were in their checkpoints alone."""
    missing: list[str]
    """In words, what is nowhere."""
    described_again: bool


def opened(study: Path, experiment: Experiment, *, warn: Callable[[str], None], **options: Any) -> StudyRecord:
    """The record of a study, whose tables are whole: one of before gets its record, damaged tables are made again.

    ValueError where the record itself is damaged. `warn` gets what was done.
    """
    conversion.convert(study, experiment, warn=warn)
    remake_damaged(study, experiment, warn=warn)
    return StudyRecord(study, experiment, warn=warn, **options)


def remake_damaged(study: Path, experiment: Experiment, *, warn: Callable[[str], None]) -> None:
    """Make tables again that are damaged or missing, as `warn` is told; ValueError where the record is, too."""
    if not files(folder_of(study)):
        return
    known: Facts | None = None
    record = owner(study)
    for name in TABLES:
        damaged = reader.damaged_parts(study / name, record)
        if not damaged and (reader.part_files(study / name) or not _may_have_rows(study, name, experiment)):
            continue
        if known is None:
            try:
                known = facts.of_record(study, experiment)
            except ValueError as error:
                raise ValueError(f"{error}; {mend_with(study)}") from error
        table = rewriting.table(known, name, experiment, study)
        if not damaged and not table.num_rows:
            continue
        kept = merging.replace(study / name, table, part_rows=PART_ROWS[name])
        what = f"{', '.join(damaged)} of {name} {'are' if len(damaged) > 1 else 'is'} damaged" if damaged else ""
        where = f"; the old table is {kept.name}" if kept else ""
        warn(f"{study}: {what or f'the table {name} is missing'}; it is made again from the record{where}")


def _may_have_rows(study: Path, name: str, experiment: Experiment) -> bool:
    """Whether a study whose record has a beginning may have rows of a table."""
    if name in evaluation_records.TABLE_OF.values():
        return bool(evaluation_records.files(study))
    return name != "decisions" or experiment.early_stopping is not None


def rebuild(study: Path) -> Result:
    """Make again what is damaged or missing in a study's folder, from all that is left; what is replaced is kept.

    ValueError where another process writes to the study, and where nothing says what it is; OSError where it cannot be
    written.
    """
    with held(study):
        experiment, damages = _experiment(study), list[str]()
        conversion.convert(study, experiment, warn=damages.append, mends=True)
        record = owner(study)
        of_evaluations = _damaged_evaluations(study)
        of_record = facts.of_record(study, experiment, lambda damage: damages.append(str(damage)))
        if record_of(study) not in ("", record):
            damages.append(f"{folder_of(study)} is the record of another study")
            of_record = facts.none(experiment, study)
        if not of_record.lines and not damages:
            damages.append(f"{folder_of(study)} holds no record")
        is_damaged = any(damage not in of_evaluations for damage in damages) or not of_record.starts
        of_tables, damaged = facts.of_tables(study, experiment, record)
        is_cut = _lines_known(study, record) > of_record.lines
        known = facts.union(of_tables, of_record) if is_cut else facts.union(of_record, of_tables)
        again = facts.with_checkpoints(known, study, experiment, damages.append)
        facts.with_attempts(known, experiment)
        if not known.starts:
            known.starts.append(conversion.start_of(study, experiment))
        _mend_evaluations(study, known, of_evaluations)
        new_record = None
        if is_damaged or again or _says_more(known, of_record):
            new_record = rewrite(study, rewriting.events(known, experiment), record=record)
        tables = [
            _replaced(study, name, known, experiment, record, damaged.get(name, []), is_new=new_record is not None)
            for name in TABLES
            if name in of_tables.tables or name in known.tables or name in ("trials", "epochs")
        ]
        opened_again = StudyRecord(study, experiment, warn=damages.append)
        opened_again.flush(final=True)
        described_again = _describe_again(study, opened_again)
        return Result(tables, damages, new_record, again, _missing(known), described_again)


@contextmanager
def held(study: Path) -> Iterator[None]:
    """Hold a study as its writers do, those of evaluations too."""
    if not (study / "study.yaml").exists() and not (study / FOLDER).is_dir():
        raise ValueError(f"{study} is no study: there is no study.yaml in it, which says what its tables are")
    with ExitStack() as stack:
        for path in (study / ".lock", study / "evaluations" / ".lock"):
            if path.parent.is_dir():
                stack.enter_context(locks.held(path))
        yield


def experiment_of(study: Path) -> Experiment:
    """What a study runs, as its study.yaml says; of a single run without what varies. ValueError where it does not."""
    try:
        found = load(study / "study.yaml", opens_data=False)  # it may be somebody else's, and was checked at its start
    except ExperimentError as error:
        problems = "; ".join(error.problems)
        raise ValueError(f"{study / 'study.yaml'} says what the tables are, and cannot be read: {problems}") from error
    return found.without_search() if _kind(study) == "train" else found


def _kind(study: Path) -> description.Kind:
    """What kind of study it is, as its record says, or its study.json, or the columns of its table."""
    if starts := _starts(study):
        return cast(description.Kind, starts[-1]["kind"])
    with suppress(ValueError):
        return cast(description.Kind, description.read(study)["kind"])
    with suppress(ValueError):
        return "tune" if any(name.startswith(PARAM) for name in reader.schema(study).names) else "train"
    return "tune"


def owner(study: Path) -> str:
    """The id of the record that a study's folder belongs to, by what most of its files say; empty where none does.

    So a record, a table or a study.json that was copied from another study is found out, and its rows are kept apart.
    """
    votes = Counter([each for each in (record_of(study), *(whose for whose, _ in _marks(study))) if each])
    with suppress(ValueError):
        votes.update([str(description.read(study).get(description.RECORD) or "")])
    del votes[""]
    return votes.most_common(1)[0][0] if votes else ""


def _marks(study: Path) -> Iterator[tuple[str, int]]:
    """From which record each table is made, and up to which line."""
    for name in ("trials", "epochs", "decisions"):
        for part in reader.part_files(study / name)[-1:]:
            with suppress(ValueError), reader.whole(part):
                whose, _, line = mark_of(reader.part_schema(part)).partition(":")
                yield whose, int(line or 0)


def _lines_known(study: Path, record: str) -> int:
    """Up to which line of the record the tables are made."""
    return max((line for whose, line in _marks(study) if whose == record), default=0)


def _starts(study: Path) -> list[dict[str, Any]]:
    if record_of(study) not in ("", owner(study)):
        return []
    found = Reading(folder_of(study), lambda damage: None)
    return [line.event["study"] for line in found if line.kind == b"study"]


def _experiment(study: Path) -> Experiment:
    """The same, study.yaml made again from the record where it is lost or another one."""
    if starts := _starts(study):
        yaml = starts[-1]["yaml"].encode(errors="surrogateescape")
        if not (study / "study.yaml").exists() or (study / "study.yaml").read_bytes() != yaml:
            whole_files.replace(study / "study.yaml", yaml)
    return experiment_of(study)


def _says_more(known: Facts, of_record: Facts) -> bool:
    """Whether something is known that the record does not say."""
    if known.trials.keys() != of_record.trials.keys():
        return True
    if any(known.trials[key].get("status") != row.get("status") for key, row in of_record.trials.items()):
        return True
    return any(
        name in ("epochs", "decisions") and known.tables[name].num_rows != _rows(of_record, name)
        for name in known.tables
    )


def _rows(some: Facts, name: str) -> int:
    return some.tables[name].num_rows if name in some.tables else 0


def _replaced(
    study: Path, name: str, known: Facts, experiment: Experiment, record: str, damaged: Sequence[str], *, is_new: bool
) -> Rebuilt:
    """Swap a table in where the old one is damaged, or differs; its rows are those of the record."""
    table = rewriting.table(known, name, experiment, study)
    found = merging.read_what_is_whole(merging.before_rebuild(study / name), table.schema, record).table
    old = facts.own_rows(found, experiment)
    differs = merging.difference(old, table, TABLES[name].key)
    assert not differs.lost, f"{name}: a row of a readable part would be dropped"
    kept = None
    if damaged or differs or is_new or not reader.part_files(study / name):
        kept = merging.replace(study / name, table, part_rows=PART_ROWS[name])
    return Rebuilt(name, table.num_rows, list(damaged), differs, kept)


def _describe_again(study: Path, record: StudyRecord) -> bool:
    """Make a study.json again that cannot be read, or says another thing than the record; whether it was made."""
    try:
        if description.read(study) == description.of_state(record.state, record.segments.record):
            return False
    except ValueError:
        pass
    description.write(study, record.state, record.segments.record)
    return True


def _damaged_evaluations(study: Path) -> dict[str, Path]:
    """What is damaged in the records of evaluations, and in which."""
    found: dict[str, Path] = {}
    for path in evaluation_records.files(study):
        for damage in evaluation_records.damages(path):
            found[str(damage)] = path
    return found


def _mend_evaluations(study: Path, known: Facts, damaged: Mapping[str, Path]) -> None:
    """Put down again what the records of evaluations lack; those that are damaged are kept under another name."""
    for path in set(damaged.values()):
        path.rename(path.with_name(f"{path.name}.damaged"))
    there: dict[str, set[tuple[Any, ...]]] = {name: set() for name in evaluation_records.TABLE_OF.values()}
    for name, row in evaluation_records.read(study):
        values: Mapping[str, Any] = row
        there[name].add(tuple(values[column] for column in TABLES[name].key))
    missing = {
        name: [
            row for row in known.tables[name].to_pylist() if tuple(row[each] for each in TABLES[name].key) not in keys
        ]
        for name, keys in there.items()
        if name in known.tables
    }
    if any(missing.values()):
        name = f"rebuilt-{datetime.now(UTC):%Y%m%d-%H%M%S.%f}"
        evaluation_records.write(study, missing.get("evaluations", []), missing.get("examples", []), name=name)


def _missing(known: Facts) -> list[str]:
    """In words, what trials have done and no source holds."""
    have, last, missing = facts.epochs_of(known), dict[str, int](), list[str]()
    for (name, _), row in known.trials.items():
        last[name] = max(row.get("epochs_done") or 0, last.get(name, 0))
    for name, done in last.items():
        if gone := sorted(set(range(1, done + 1)) - have.get(name, set())):
            missing.append(f"{name}: {len(gone)} of {done} epochs, the first is {gone[0]}")
    decisions = known.tables.get("decisions")
    decided = set[str]()
    if decisions is not None:
        decided = {row["trial_id"] for row in decisions.to_pylist() if not row["goes_on"]}
    stopped = {name for (name, _), row in known.trials.items() if row.get("status") == "pruned"}
    return [*missing, *(f"{name}: why it was stopped" for name in sorted(stopped - decided))]


def lines(result: Result) -> Iterator[str]:
    """What `rebuild` did, for people."""
    yield from (f"damaged: {problem}" for problem in result.damages)
    if result.record:
        yield f"record: written again from all that is left, in {result.record.name}; the old one stays as it is"
    for table in result.tables:
        parts = [f"{table.name}: {table.rows:,} rows"]
        if table.damaged:
            parts.append(f"damaged or missing: {', '.join(table.damaged)}")
        if table.differs.added:
            parts.append(f"{table.differs.added:,} of them not in what could be read")
        if table.differs.doubled:
            parts.append(f"{table.differs.doubled:,} others were there twice")
        parts += [f"{name} changed in {count:,}" for name, count in table.differs.changed.items()]
        if table.kept:
            parts.append(f"the old table is {table.kept.name}")
        yield "; ".join(parts if len(parts) > 1 else [*parts, "as it was"])
    if result.from_checkpoints:
        yield f"from checkpoints: {_some(result.from_checkpoints)}"
    if result.missing:
        yield f"in no source: {_some(result.missing)}"
    if result.described_again:
        yield "study.json: made again"


def _some(words: Sequence[str], at_most: int = 6) -> str:
    more = len(words) - at_most
    return ", ".join(words[:at_most]) + (f" and {more} more" if more > 0 else "")
