"""A table that only grows: rows in the order in which they came, none of which changes any more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from arat_ray.results import reader
from arat_ray.results.added_columns import is_of_before, with_columns
from arat_ray.results.parts import check_row, part_name, write_part
from arat_ray.results.table import mark_of, marked


class GrowingTable:
    """One table in one folder. One writer at a time; any number of readers. Only its last part is in memory.

    Opening a folder that has parts goes on with them, and writes those again that lack a column of `schema`, null
    there. ValueError where a part cannot be read, or has other columns.
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
        self.mark = ""
        """What the table is made from, up to where: written into its parts with the last rows of a flush."""
        self.stored = 0
        """How many rows are on disk."""
        self._waiting: list[dict[str, Any]] = []
        self._number, self._tail = 0, self.schema.empty_table()
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(".part-*"):  # of a process that was killed while it wrote
            leftover.unlink()
        if parts := reader.parts_without_a_gap(folder):
            self._continue(parts)
        else:
            write_part(folder / part_name(0), self._tail)  # so that readers find the columns before the first row

    @property
    def pending(self) -> int:
        """How many rows are not on disk yet."""
        return len(self._waiting)

    def append(self, row: Mapping[str, Any]) -> None:
        """Take a row, in memory. Missing columns are null."""
        check_row(row, self._types, self.key)
        self._waiting.append(dict(row))

    def flush(self, mark: str = "") -> None:
        """Put every row on disk; OSError where that fails, and then what is not written stays pending.

        Where there were rows, the table has this `mark` when all of them are there.
        """
        while self._waiting:
            if self._tail.num_rows >= self.part_rows:
                self._number, self._tail = self._number + 1, self.schema.empty_table()
            rows = self._waiting[: self.part_rows - self._tail.num_rows]
            tail = pa.concat_tables([self._tail, pa.Table.from_pylist(rows, schema=self.schema)]).combine_chunks()
            is_last = len(rows) == len(self._waiting)
            write_part(self.folder / part_name(self._number), marked(tail, mark if is_last and mark else self.mark))
            self._tail, self.mark = tail, mark if is_last and mark else self.mark
            self.stored += len(rows)
            del self._waiting[: len(rows)]

    def _continue(self, parts: Sequence[Path]) -> None:
        of_before = []
        for path in parts:
            with reader.whole(path), reader.opened(path) as file:
                if is_of_before(path, file.schema_arrow, self.schema, self.key):
                    of_before.append(path)
                self.mark = mark_of(file.schema_arrow) or self.mark
                self.stored += file.metadata.num_rows
        for path in reversed(of_before):  # whoever reads the last one's columns, meanwhile or for good, knows all
            part = reader.read_part(path)
            write_part(path, with_columns(part, self.schema.with_metadata(part.schema.metadata)))
        self._number = len(parts) - 1
        self._tail = reader.read_part(parts[-1]).replace_schema_metadata(self.schema.metadata)
