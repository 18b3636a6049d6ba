"""Crash-safe Parquet: readers see whole files at any moment, and a full disk does not end a study.

Only the highest-numbered part of a table is rewritten as rows arrive (temporary file, fsync, replace), until
it is full and the next number begins: there are few files, and a flush costs at most rewriting one part.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from arat_ray.frontier.pareto import non_dominated
from arat_ray.results import reader
from arat_ray.results.reader import did_you_mean, part_files, part_number
from arat_ray.results.schema import TABLES, Metadata, trials_schema

Key = tuple[Any, ...]
Row = dict[str, Any]


class Table:
    """One table in one folder, keyed by some of its columns. One writer at a time; any number of readers.

    Rows of sealed parts are not kept in memory, only where they are. Opening a folder that has parts goes on
    with them; ValueError where their columns differ from `schema`.
    """

    def __init__(
        self,
        folder: Path,
        schema: pa.Schema,
        key: tuple[str, ...],
        *,
        part_rows: int = 50_000,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        self.folder, self.key, self.part_rows = folder, key, part_rows
        self.schema = schema.with_metadata(dict(metadata or {}))
        self._types = {field.name: field.type for field in schema}
        self._part_of: dict[Key, int] = {}  # every row on disk
        self._changed: dict[Key, Row] = {}  # every row that is not, or not as it should be
        self._tail_number, self._tail = 0, self.schema.empty_table()  # the part that grows, as it is on disk
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(".part-*"):  # of a process that was killed while it wrote
            leftover.unlink()
        if parts := part_files(folder):
            self._continue(parts)
        else:
            self._write(0, self._tail)  # so that readers find the columns before the first row

    @property
    def pending(self) -> int:
        """How many rows are not on disk yet."""
        return len(self._changed)

    def upsert(self, row: Mapping[str, Any]) -> None:
        """Take a row, in memory; it replaces the earlier one of the same key. Missing columns are null."""
        for name, value in row.items():
            if name not in self._types:
                raise ValueError(f"no column {name!r}{did_you_mean(name, self._types)}")
            _check(name, value, self._types[name])
        for name in self.key:
            if row.get(name) is None:
                raise ValueError(f"a row needs its key {self.key}, and {name!r} is missing")
        self._changed[tuple(row[name] for name in self.key)] = dict(row)

    def row(self, key: Key) -> Row:
        """The newest row of a key, flushed or not; KeyError where there is none."""
        if key in self._changed:
            return dict(self._changed[key])
        table = self._part(self._part_of[key])
        return dict(table.slice(self._keys(table).index(key), 1).to_pylist()[0])

    def flush(self) -> None:
        """Put every row on disk; OSError where that fails, and then what is not written stays pending."""
        replaced: dict[int, dict[Key, Row]] = {}
        new = dict(self._changed)
        for key in self._changed:
            if key in self._part_of:
                replaced.setdefault(self._part_of[key], {})[key] = new.pop(key)
        tail_changes = replaced.pop(self._tail_number, {})
        for number, rows in replaced.items():
            self._rewrite(number, rows)
        while tail_changes or new:
            if not tail_changes and self._tail.num_rows >= self.part_rows:
                self._tail_number, self._tail = self._tail_number + 1, self.schema.empty_table()
            room = max(0, self.part_rows - self._tail.num_rows)
            rows = tail_changes | {key: new.pop(key) for key in list(islice(new, room))}
            self._tail = self._rewrite(self._tail_number, rows)
            tail_changes = {}

    def _rewrite(self, number: int, rows: Mapping[Key, Row]) -> pa.Table:
        """Write a part again with these rows in it: in the place of the earlier ones, else at the end."""
        table = self._part(number)
        merged = pa.concat_tables([table, pa.Table.from_pylist(list(rows.values()), schema=self.schema)])
        if any(key in self._part_of for key in rows):
            position = {key: i for i, key in enumerate(self._keys(table))}
            order = list(range(table.num_rows))
            for i, key in enumerate(rows, start=table.num_rows):
                if key in position:
                    order[position[key]] = i
                else:
                    order.append(i)
            merged = merged.take(pa.array(order))
        merged = merged.combine_chunks()
        self._write(number, merged)
        for key in rows:
            self._part_of[key] = number
            del self._changed[key]
        return merged

    def _part(self, number: int) -> pa.Table:
        if number == self._tail_number:
            return self._tail
        return self._read(number)

    def _read(self, number: int) -> pa.Table:
        return pq.ParquetFile(self._path(number)).read().replace_schema_metadata(self.schema.metadata)

    def _path(self, number: int) -> Path:
        return self.folder / f"part-{number:05d}.parquet"

    def _keys(self, table: pa.Table) -> list[Key]:
        return list(zip(*(table[name].to_pylist() for name in self.key), strict=True))

    def _continue(self, parts: Sequence[Path]) -> None:
        for path in parts:
            _check_same_columns(path, pq.read_schema(path), self.schema)
            number = part_number(path)
            assert number is not None
            keys = pq.ParquetFile(path).read(columns=list(self.key))
            self._part_of.update(dict.fromkeys(self._keys(keys), number))
            self._tail_number = number
        self._tail = self._read(self._tail_number)

    def _write(self, number: int, table: pa.Table) -> None:
        path = self._path(number)
        temporary = self.folder / f".{path.name}.tmp"
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        try:
            with temporary.open("wb") as file:
                file.write(sink.getvalue())
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError:
            with suppress(OSError):  # half a file would only make a full disk fuller
                temporary.unlink()
            raise
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _check(name: str, value: Any, column_type: pa.DataType) -> None:
    """Refuse now what could not be written later: a bad row must not block the good ones behind it."""
    if type(value) is float and column_type == pa.float64():  # nearly all values: five times as fast
        return
    try:
        stored = pa.scalar(value, type=column_type).as_py()
        if not pa.types.is_integer(column_type) or stored == value:  # pyarrow stores 0.5 as the integer 0
            return
    except (ValueError, TypeError, NotImplementedError, OverflowError):  # the Arrow errors are among them
        pass
    raise ValueError(f"column {name!r} is {column_type} and cannot hold {value!r}")


def _check_same_columns(path: Path, found: pa.Schema, wanted: pa.Schema) -> None:
    for i in range(max(len(found), len(wanted))):
        there, here = (str(schema.field(i)) if i < len(schema) else "missing" for schema in (found, wanted))
        if there != here:
            raise ValueError(
                f"{path} has other columns: column {i + 1} is {there} there and {here} here; "
                "another search space needs another folder"
            )


class StudyWriter:
    """The trials and epochs of one study, in `<study>/trials` and `<study>/epochs`.

    `trial` and `epoch` only take rows; `tick` writes them when `flush_s` seconds have passed, `flush` now. A
    failing disk does not raise: rows stay in memory, writing is tried again after `retry_s[0]` seconds, then
    twice that, up to `retry_s[1]`, and `warn` is called once when it begins and once when it is over.
    """

    def __init__(
        self,
        study: Path,
        *,
        params: Mapping[str, pa.DataType],
        metadata: Metadata,
        warn: Callable[[str], None],
        flush_s: float = 2.0,
        part_rows: int = 50_000,
        retry_s: tuple[float, float] = (2.0, 60.0),
    ) -> None:
        schema = trials_schema(params)
        for goal in metadata.goals:
            if goal not in schema.names:
                raise ValueError(f"goal {goal!r} is not a column of trials{did_you_mean(goal, schema.names)}")
        if part_files(study / "trials") and (found := reader.metadata(study).goals) != metadata.goals:
            raise ValueError(f"{study} has results for the goals {found}, not {metadata.goals}: use another folder")
        self.study, self.goals, self.flush_s, self.retry_s = study, metadata.goals, flush_s, retry_s
        self._warn = warn
        text = metadata.encode()
        key, epochs = TABLES["epochs"]
        self.epochs = Table(study / "epochs", epochs, key, part_rows=part_rows, metadata=text)
        self.trials = Table(study / "trials", schema, TABLES["trials"].key, part_rows=part_rows, metadata=text)
        self._flushed_at = time.monotonic()
        self._delay = 0.0
        self._retry_at: float | None = None  # None while the disk is well
        self._attempt: dict[str, int] = {}  # the last attempt at each trial
        self._points: dict[str, tuple[float, ...]] = {}  # goals of the complete full-fidelity trials
        self._front: set[Key] = set()
        self._recall()

    @property
    def pending(self) -> int:
        """How many rows are not on disk yet."""
        return self.epochs.pending + self.trials.pending

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Take one row of `epochs`."""
        self.epochs.upsert(row)

    def trial(self, row: Mapping[str, Any]) -> None:
        """Take one row of `trials`; keeps `on_front` true on the non-dominated trials, and only on them."""
        self.trials.upsert({**row, "on_front": False})
        trial_id, attempt = row["trial_id"], row["attempt"]
        if attempt < self._attempt.get(trial_id, attempt):
            return
        was_on_front = (trial_id, self._attempt.get(trial_id)) in self._front
        self._remember(row)
        if was_on_front:  # it may have left, and then others come back
            self._mark(self._points)
        else:  # dominance is transitive: who is not on the front now cannot matter
            self._mark({name for name, _ in self._front} | ({trial_id} & self._points.keys()))
        if (trial_id, attempt) in self._front:
            self.trials.upsert({**row, "on_front": True})

    def tick(self) -> None:
        """Call often: writes when the last writing is `flush_s` ago."""
        if time.monotonic() - self._flushed_at >= self.flush_s:
            self.flush()

    def flush(self, *, final: bool = False) -> bool:
        """Write now, epochs before the trials that speak of them; whether everything is on disk.

        While the disk fails, only the next planned retry tries again, unless this is the `final` call.
        """
        now = time.monotonic()
        if self._retry_at is not None and now < self._retry_at and not final:
            return self.pending == 0
        self._flushed_at = now
        waiting = self.pending
        try:
            self.epochs.flush()
            self.trials.flush()
        except OSError as error:
            shortest, longest = self.retry_s
            self._delay = shortest if self._retry_at is None else min(2 * self._delay, longest)
            if self._retry_at is None:
                self._warn(f"cannot write results to {self.study} ({error}); rows are kept in memory")
            self._retry_at = now + self._delay
            return False
        if self._retry_at is not None:
            self._retry_at = None
            self._warn(f"results are written to {self.study} again: {waiting} rows had waited")
        return True

    def _remember(self, row: Mapping[str, Any]) -> None:
        trial_id = row["trial_id"]
        self._attempt[trial_id] = row["attempt"]
        self._points.pop(trial_id, None)
        goals = [row.get(goal) for goal in self.goals]
        if row.get("status") == "complete" and row.get("is_full_fidelity") and None not in goals:
            self._points[trial_id] = tuple(float(goal) for goal in goals if goal is not None)

    def _mark(self, trial_ids: Iterable[str]) -> None:
        """The front is the non-dominated of these trials; correct the rows whose flag that changes."""
        names = list(trial_ids)
        points = np.array([self._points[name] for name in names]).reshape(len(names), len(self.goals))
        front = {(names[i], self._attempt[names[i]]) for i in np.flatnonzero(non_dominated(points))}
        for key in front ^ self._front:
            self.trials.upsert({**self.trials.row(key), "on_front": key in front})
        self._front = front

    def _recall(self) -> None:
        """Go on with the trials that the folder has."""
        columns = ["trial_id", "attempt", "status", "is_full_fidelity", "on_front", *self.goals]
        rows = reader.read(self.study, "trials", columns)
        for row, is_latest in zip(rows.to_pylist(), reader.latest_attempt(rows), strict=True):
            if row["on_front"]:
                self._front.add((row["trial_id"], row["attempt"]))
            if is_latest:
                self._remember(row)
        self._mark(self._points)
