"""One crash-safe Parquet table: readers see whole files at any moment.

Only the highest-numbered part of a table is rewritten as rows arrive (temporary file, fsync, replace), until
it is full and the next number begins: there are few files, and a flush costs at most rewriting one part, besides
those whose rows have changed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from arat_ray.results.index import Index, Key
from arat_ray.results.parts import check_row, part_name, write_part
from arat_ray.results.table_folder import TableFolder, marked

Row = dict[str, Any]


class ParquetTable(TableFolder):
    """One table in one folder, keyed by some of its columns. One writer at a time; any number of readers.

    Rows of sealed parts are not kept in memory, only where they are. Opening a folder that has parts goes on
    with them, and writes those again that lack a column of `schema`, null there, so that all who read the files see
    the same columns in each. ValueError where parts have columns that are none of `schema`.
    """

    def __init__(self, folder: Path, schema: pa.Schema, key: tuple[str, ...], **options: Any) -> None:
        super().__init__(folder, schema, key, **options)
        self._sealed = Index()
        self._changed: dict[Key, Row] = {}  # every row that is not on disk, or not as it should be
        self._tail_number, self._tail = 0, self.schema.empty_table()  # the part that grows, as it is on disk
        self._position: dict[Key, int] = {}  # of each row in the tail
        if parts := self._parts():
            self._go_on(parts, self._take_up)
            self._tail = self._read(parts[-1])

    def _take_up(self, number: int, file: pq.ParquetFile) -> None:
        keys = file.read(columns=list(self.key))
        self._begin(number)
        self._position = self._positions(keys)

    @property
    def pending(self) -> int:
        """How many rows are not on disk yet."""
        return len(self._changed)

    @property
    def stored(self) -> int:
        """How many rows are on disk."""
        return len(self._sealed) + len(self._position)

    def upsert(self, row: Mapping[str, Any]) -> None:
        """Take a row, in memory; it replaces the earlier one of the same key. Missing columns are null."""
        check_row(row, self._types, self.key)
        self._changed[tuple(row[name] for name in self.key)] = dict(row)

    def row(self, key: Key) -> Row:
        """The newest row of a key, flushed or not; KeyError where there is none."""
        if key in self._changed:
            return dict(self._changed[key])
        if key in self._position:
            return dict(self._tail.slice(self._position[key], 1).to_pylist()[0])
        for number in self._sealed.find([key]):
            part = self._read(self._path(number))
            if key in (position := self._positions(part)):
                return dict(part.slice(position[key], 1).to_pylist()[0])
        raise KeyError(key)

    def flush(self, mark: str = "") -> None:
        """Put every row on disk; OSError where that fails, and then what is not written stays pending.

        Where rows are added or changed at the end of the table, it has this `mark` when all of them are there.
        """
        for number, keys in self._sealed.find([key for key in self._changed if key not in self._position]).items():
            part = self._read(self._path(number))
            position = self._positions(part)
            if there := [key for key in keys if key in position]:
                self._rewrite(number, part, position, there)
        again = [key for key in self._changed if key in self._position]
        new = [key for key in self._changed if key not in self._position]
        while again or new:
            if not again and self._tail.num_rows >= self.part_rows:
                self._begin(self._tail_number + 1)
            room = max(0, self.part_rows - self._tail.num_rows)
            written = new[:room]
            if not new[room:]:
                self.mark = mark or self.mark
            self._tail = self._rewrite(self._tail_number, self._tail, self._position, [*again, *written])
            self._position |= {key: i for i, key in enumerate(written, start=len(self._position))}
            again, new = [], new[room:]

    def _begin(self, number: int) -> None:
        """Seal the tail: the next part grows from now on."""
        if self._position:
            self._sealed.add(self._position, self._tail_number)
        self._tail_number, self._tail, self._position = number, self.schema.empty_table(), {}

    def _rewrite(self, number: int, part: pa.Table, position: Mapping[Key, int], keys: Collection[Key]) -> pa.Table:
        """Write a part again with the changed rows of these keys: where they stand, the others at the end."""
        rows = [self._changed[key] for key in keys]
        merged = pa.concat_tables([part, pa.Table.from_pylist(rows, schema=self.schema)])
        order = np.arange(merged.num_rows)
        stays = np.ones(merged.num_rows, dtype=bool)
        for i, key in enumerate(keys, start=part.num_rows):
            if key in position:
                order[position[key]], stays[i] = i, False
        if not stays.all():
            merged = merged.take(pa.array(order[stays]))
        merged = merged.combine_chunks()
        write_part(self._path(number), marked(merged, self.mark))
        for key in keys:
            del self._changed[key]
        return merged

    def _positions(self, part: pa.Table) -> dict[Key, int]:
        return {key: i for i, key in enumerate(zip(*(part[name].to_pylist() for name in self.key), strict=True))}

    def _path(self, number: int) -> Path:
        return self.folder / part_name(number)
