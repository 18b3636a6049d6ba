"""A table that only grows: rows in the order in which they came, none of which changes any more."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from arat_ray.results.parts import check_row, part_name, write_part
from arat_ray.results.table_folder import TableFolder, marked


class GrowingTable(TableFolder):
    """One table in one folder. One writer at a time; any number of readers. Only its last part is in memory.

    Opening a folder that has parts goes on with them, and writes those again that lack a column of `schema`, null
    there. ValueError where a part cannot be read, or has other columns.
    """

    def __init__(self, folder: Path, schema: pa.Schema, key: tuple[str, ...], **options: Any) -> None:
        super().__init__(folder, schema, key, **options)
        self.stored = 0
        """How many rows are on disk."""
        self._waiting: list[dict[str, Any]] = []
        self._number, self._tail = 0, self.schema.empty_table()
        if parts := self._parts():
            self._go_on(parts, self._count)
            self._number, self._tail = len(parts) - 1, self._read(parts[-1])

    def _count(self, number: int, file: pq.ParquetFile) -> None:
        self.stored += file.metadata.num_rows

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
