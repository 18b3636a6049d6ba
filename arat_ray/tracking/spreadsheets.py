"""CSV: a file for each table, for spreadsheets and for programs that read no Parquet.

Null is an empty cell, floats have all their digits, times are UTC, what is a map or a list is JSON.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv

from arat_ray import whole_files
from arat_ray.results import reader
from arat_ray.results.schema import TABLES
from arat_ray.text import plain
from arat_ray.tracking.runs import Export


def write(export: Export, output: Path) -> Path:
    """A file for each table that the study has, below `output`/<study>/; that folder. OSError where that fails."""
    folder = output / export.study
    folder.mkdir(parents=True, exist_ok=True)
    for name in TABLES:
        if reader.part_files(export.path / name):
            content = io.BytesIO()
            pyarrow.csv.write_csv(_cells(reader.read(export.path, name)), content)
            whole_files.replace(folder / f"{name}.csv", content.getvalue())
    return folder


def _cells(table: pa.Table) -> pa.Table:
    """The table with columns that CSV can hold, and of text nothing that a terminal obeys."""
    for name in table.column_names:
        kind = table.schema.field(name).type
        if pa.types.is_nested(kind):
            cells = [_json(value, is_map=pa.types.is_map(kind)) for value in table[name].to_pylist()]
        elif pa.types.is_string(kind):
            cells = [None if value is None else plain(value) for value in table[name].to_pylist()]
        else:
            continue
        table = reader.append(table.drop_columns([name]), name, pa.string(), cells).select(table.column_names)
    return table


def _json(value: Any, *, is_map: bool) -> str | None:
    return None if value is None else json.dumps(dict(value) if is_map else value)
