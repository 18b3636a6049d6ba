"""One crash-safe Parquet table: readers see whole files at any moment.

Only the highest-numbered part of a table is rewritten as rows arrive (temporary file, fsync, replace), until
it is full and the next number begins: there are few files, and a flush costs at most rewriting one part.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from arat_ray.results import reader
from arat_ray.results.reader import did_you_mean, part_number

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
        if parts := reader.parts_without_a_gap(folder):
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
        return self.folder / part_name(number)

    def _keys(self, table: pa.Table) -> list[Key]:
        return list(zip(*(table[name].to_pylist() for name in self.key), strict=True))

    def _continue(self, parts: Sequence[Path]) -> None:
        for path in parts:
            number = part_number(path)
            assert number is not None
            with reader.whole(path):
                _check_same_columns(path, pq.read_schema(path), self.schema)
                keys = pq.ParquetFile(path).read(columns=list(self.key))
            self._part_of.update(dict.fromkeys(self._keys(keys), number))
            self._tail_number = number
        self._tail = self._read(self._tail_number)

    def _write(self, number: int, table: pa.Table) -> None:
        write_part(self._path(number), table)


def part_name(number: int) -> str:
    return f"part-{number:05d}.parquet"


def write_part(path: Path, table: pa.Table) -> None:
    """Put a part in place whole; OSError where that fails, and then what was there stays."""
    temporary = path.with_name(f".{path.name}.tmp")
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
    folder = os.open(path.parent, os.O_RDONLY)
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
        there, here = (schema.field(i) if i < len(schema) else "missing" for schema in (found, wanted))
        if there != here:
            raise ValueError(
                f"{path} has other columns: column {i + 1} is {there} there and {here} here; "
                "another search space needs another folder"
            )
