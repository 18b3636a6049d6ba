"""The folder of a table: how its parts are opened, and the columns that they lack added; for all kinds of tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from arat_ray.results import reader
from arat_ray.results.added_columns import is_of_before, with_columns
from arat_ray.results.parts import part_name, write_part


class TableFolder:
    """A table in a folder of its own. One writer at a time; any number of readers."""

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

    def _parts(self) -> list[Path]:
        """The parts that are there; where there are none, one without rows is made."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for leftover in self.folder.glob(".part-*"):  # of a process that was killed while it wrote
            leftover.unlink()
        parts = reader.parts_without_a_gap(self.folder)
        if not parts:  # so that readers find the columns before the first row
            write_part(self.folder / part_name(0), self.schema.empty_table())
        return parts

    def _go_on(self, parts: Sequence[Path], look: Callable[[int, pq.ParquetFile], None]) -> None:
        """Have a look at each part, by its number; afterwards all have the columns of `schema`, and `mark` is known.

        ValueError where one cannot be read, or has other columns.
        """
        of_before = []
        for number, path in enumerate(parts):
            with reader.whole(path), reader.opened(path) as file:
                if is_of_before(path, file.schema_arrow, self.schema, self.key):
                    of_before.append(path)
                self.mark = mark_of(file.schema_arrow) or self.mark
                look(number, file)
        for path in reversed(of_before):  # whoever reads the last one's columns, meanwhile or for good, knows all
            part = reader.read_part(path)
            write_part(path, with_columns(part, self.schema.with_metadata(part.schema.metadata)))

    def _read(self, path: Path) -> pa.Table:
        return reader.read_part(path).replace_schema_metadata(self.schema.metadata)


def marked(table: pa.Table, mark: str) -> pa.Table:
    """A table that says what it is made from."""
    return table.replace_schema_metadata({**(table.schema.metadata or {}), reader.MARK: mark}) if mark else table


def mark_of(schema: pa.Schema) -> str:
    """What a part is made from, as it says."""
    return ((schema.metadata or {}).get(reader.MARK) or b"").decode()
