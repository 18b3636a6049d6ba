"""The record of a study: an append-only log of what happened, from which all else is computed.

An event is taken in one order: into the state, which refuses what cannot follow; into the tables, which refuse what
they cannot hold; into the record, which is on disk before them. Opening a study reads its record through the same state
once, brings the tables up to date and tells the learning curves, where the study has a use for them, so that starting,
resuming, extending a study and taking one up from a bucket are one code path.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from arat_ray.disk import Disk
from arat_ray.experiment.spec import Experiment
from arat_ray.results.reading import Reading, Segment
from arat_ray.results.schema import TABLES
from arat_ray.results.segments import SEGMENT_BYTES, Event, Line, Segments, folder_of
from arat_ray.study import curve_record, description
from arat_ray.study.curve_record import Hearing
from arat_ray.study.state import Change, ImpossibleError, StudyState
from arat_ray.study.tables import StudyTables
from arat_ray.text import command

FLUSH_S = 2.0
STOPPED = b',"status":"stopped"'
"""In the line of an attempt that has ended and may go on."""
OF_ATTEMPTS = (b"started", b"lost", b"ended")
EPOCH, EPOCH_BYTES = b'\n{"epoch":', 60
"""How the line of an epoch begins, and fewer bytes than it can have."""
TIMES = {
    name: [field.name for field in kind.schema if pa.types.is_timestamp(field.type)] for name, kind in TABLES.items()
}
_TIMES = {"started": TIMES["trials"], "lost": TIMES["trials"], "ended": TIMES["trials"]}
_TRIAL_ID = re.compile(rb'"trial_id":"((?:[^"\\]|\\.)*)"')
_TIMES |= {"epoch": TIMES["epochs"], "trial": TIMES["trials"], "decision": TIMES["decisions"]}


class StudyRecord:
    """The record, the state and the tables of one study, in step. One process writes to it at a time.

    `take` takes an event; `tick` writes when `flush_s` seconds have passed, `flush` now. A failing disk does not raise:
    what was taken stays in memory until it can be written (`Disk`). ValueError where the record is damaged, and where
    the tables know more than it does.
    """

    def __init__(
        self,
        study: Path,
        experiment: Experiment,
        *,
        warn: Callable[[str], None],
        flush_s: float = FLUSH_S,
        part_rows: int | None = None,
        segment_bytes: int = SEGMENT_BYTES,
        retry_s: tuple[float, float] = (2.0, 60.0),
    ) -> None:
        self.study, self.flush_s = study, flush_s
        self.disk = Disk(f"results to {study}", warn=warn, retry_s=retry_s)
        self.state = StudyState(experiment.maximize)
        self.tables = StudyTables(
            study,
            params=description.param_types(experiment),
            metadata=description.metadata(experiment),
            decisions=experiment.early_stopping is not None,
            part_rows=part_rows,
            front=self.state.front,
        )
        folder = folder_of(study)
        reading, hearing = Reading(folder), curve_record.hearing_of(experiment)
        self.curves = None if hearing is None else hearing.curves
        """What all trials have measured, for a sampler and a rule of early stopping that model it."""
        try:
            self._replay(reading, hearing)
            self.segments = Segments(folder, record=reading.record, lines=reading.lines, segment_bytes=segment_bytes)
            self._check_none_is_lost()
            self.tables.belong_to(self.segments.record)
            self.tables.recall()
        except ValueError as error:
            raise ValueError(f"{folder}: {error}; {mend_with(study)}") from error
        self._flushed_at = time.monotonic()
        self.listeners: list[Callable[[Mapping[str, Any]], None]] = [] if hearing is None else [hearing]
        """They hear of each event that is taken from now on."""

    def begin(self, start: Mapping[str, Any]) -> None:
        """Put down that the study is started, in study.yaml and study.json as well; OSError where that fails.

        Tables that had not come as far as the record, because a process was killed in between, do so now: nothing else
        may follow.
        """
        self.take({"study": start})
        self.segments.flush()
        description.write(self.study, self.state, self.segments.record)
        if self.tables.pending:
            self.flush(final=True)

    @property
    def is_empty(self) -> bool:
        """Whether nothing has happened yet."""
        return self.segments.lines == 0

    @property
    def pending(self) -> int:
        """How many events and rows are not on disk yet."""
        return self.segments.pending + self.tables.pending

    @property
    def failing(self) -> bool:
        """Whether something waits because it could not be written."""
        return self.disk.failing

    def take(self, event: Mapping[str, Any]) -> None:
        """Take an event; ValueError where it cannot follow, or a table cannot hold it: it is not in the record then."""
        changes = self.state.apply(dict(event))
        self._into_tables(changes)
        self.segments.take(event)
        for listener in self.listeners:
            listener(event)

    def tick(self) -> None:
        """Call often: writes when the last writing is `flush_s` ago."""
        if time.monotonic() - self._flushed_at >= self.flush_s:
            self.flush()

    def save(self) -> bool:
        """Write the record now, without the tables; whether all of it is on disk."""
        if not self.disk.failing and self.segments.pending:
            try:
                self.segments.flush()
            except OSError as error:
                self.disk.fails(error, kept="rows are")
        elif self.disk.failing:
            self.flush()
        return self.segments.pending == 0

    def flush(self, *, final: bool = False) -> bool:
        """Write now, the record and then the tables; whether everything is on disk.

        While the disk fails, only the next planned retry tries again, unless this is the `final` call.
        """
        self._flushed_at = time.monotonic()
        if not self.disk.is_due and not final:
            return self.pending == 0
        waiting = self.pending
        try:
            self.segments.flush()
            self.tables.flush(f"{self.segments.record}:{self.segments.lines}")
        except OSError as error:
            self.disk.fails(error, kept="rows are")
            return False
        self.disk.works(waited=f"{waiting} rows")
        return True

    def _into_tables(self, changes: list[Change]) -> None:
        take = {"trials": self.tables.trial, "epochs": self.tables.epoch, "decisions": self.tables.decision}
        for table, row in changes:
            take[table](row)

    def _replay(self, reading: Reading, hearing: Hearing | None) -> None:
        """Bring the state, the tables and the curves to where the record ends.

        Rows that a table has are not made again: of epochs and decisions by their count, of trials by the mark. Epochs
        of trials that have ended are not even looked at, because their last event says all that the state needs; but
        for those that the curves are to hear of.
        """
        decisions = self.tables.decisions
        self._beyond = {"epochs": self.tables.epochs.stored, "decisions": decisions.stored if decisions else 0}
        made = int(self.tables.trials.mark.partition(":")[2] or 0)
        held: dict[bytes, list[Line]] = {}  # the attempts at trials that have not ended, and their epochs
        began: dict[bytes, int] = {}  # in which segment
        passed: set[int] = set()  # segments whose epochs were not looked at

        def take(line: Line, segment: int) -> None:
            if line.kind not in OF_ATTEMPTS:
                self._apply_again(line, made)
                return
            name = _trial(line)
            began.setdefault(name, segment)
            held.setdefault(name, []).append(line)
            if line.kind == b"ended" and STOPPED not in line.text:
                for each in held.pop(name):
                    if each.kind != b"epoch":
                        self._apply_again(each, made)

        def take_epoch(line: Line) -> None:
            if (name := _trial(line)) in held:
                held[name].append(line)
            else:  # which is refused: it has ended, or was never started
                self._apply_again(line, made)
            self._beyond["epochs"] -= 1
            if self._beyond["epochs"] < 0:
                self.tables.epoch(event_of(line)["epoch"])

        for segment in reading.segments():
            if hearing is None and segment.is_whole and _at_most(segment, self._beyond["epochs"]):
                lines, epochs = reading.others_of(segment, b"epoch")
                self._beyond["epochs"] -= epochs
                passed.add(segment.number)
                for line in lines:
                    take(line, segment.number)
                continue
            for line in reading.lines_of(segment):
                if line.kind == b"epoch":
                    take_epoch(line)
                else:
                    take(line, segment.number)
                if hearing is not None:
                    hearing.again(line)
        first = min((began[name] for name in held), default=0)
        if held and passed and max(passed) >= first:
            for segment in (again := Reading(reading.folder)).segments(after=first - 1):
                for line in again.lines_of(segment) if segment.number in passed else ():
                    if line.kind == b"epoch" and (name := _trial(line)) in held:
                        held[name].append(line)
        for lines in held.values():
            for line in sorted(lines, key=lambda line: line.number):
                self._apply_again(line, made)

    def _apply_again(self, line: Line, made: int) -> None:
        try:
            changes = self.state.apply(event_of(line))
        except (ImpossibleError, LookupError, TypeError, AttributeError) as error:
            raise ValueError(
                f"line {line.number} of the record cannot follow those before it ({error or type(error).__name__})"
            ) from error
        for change in changes:
            if change.table == "decisions":
                self._beyond["decisions"] -= 1
            is_new = self._beyond["decisions"] < 0 if change.table == "decisions" else line.number >= made
            if is_new and change.table != "epochs":
                self._into_tables([change])

    def _check_none_is_lost(self) -> None:
        """ValueError where the record says less than the tables: it is another one, or has lost its end."""
        for table in (self.tables.epochs, self.tables.decisions, self.tables.trials):
            whose, _, line = (table.mark if table else "").partition(":")
            if table and whose and (whose != self.segments.record or int(line) > self.segments.lines):
                raise ValueError(f"it is not the record that {table.folder} is made from, or has lost its end")
        if lost := [f"{count} rows of {name}" for name, count in self._beyond.items() if count > 0]:
            raise ValueError(f"it lacks {' and '.join(lost)}")


def _at_most(segment: Segment, epochs: int) -> bool:
    """Whether a segment has at most so many epochs, which it must have where it is short."""
    return len(segment.content) // EPOCH_BYTES <= epochs or segment.content.count(EPOCH) <= epochs


def event_of(line: Line) -> Event:
    """An event of a record, its times as times."""
    event = line.event
    for kind, names in _TIMES.items():
        if kind in event:
            for name in names:
                if isinstance(event[kind].get(name), str):
                    event[kind][name] = datetime.fromisoformat(event[kind][name])
    return event


def mend_with(study: Path) -> str:
    """What mends a damaged record."""
    return f"mend it with: {command('arat-ray', 'results', 'rebuild', study)}"


def _trial(line: Line) -> bytes:
    """The trial_id of an event of one, escaped as it stands."""
    found = _TRIAL_ID.search(line.text)
    if found is None:
        raise ValueError(f"line {line.number} of the record names no trial")
    return found[1]
