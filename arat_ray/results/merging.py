"""Tables put together from several sources, by their keys, and what differs between two."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from arat_ray.results import reader
from arat_ray.results.added_columns import with_columns
from arat_ray.results.parts import part_name, write_part
from arat_ray.whole_files import sync

Key = tuple[Any, ...]
AT_ONCE = 50_000


class Old(NamedTuple):
    """What can be read of a table: its rows, and the parts that cannot, or are missing."""

    table: pa.Table
    damaged: list[str]


def read_what_is_whole(folder: Path, schema: pa.Schema, record: str = "") -> Old:
    """The readable parts of a table, with these columns, but for those that are made from another `record`.

    ValueError where one has other columns, which would be dropped.
    """
    tables, damaged = [schema.empty_table()], list[str]()
    for path, part in reader.each_part(folder, record):
        if part is None:
            damaged.append(path.name)
            continue
        if unknown := [field.name for field in part.schema if field not in list(schema)]:
            raise ValueError(f"{path} has columns of another version of arat-ray: {', '.join(unknown)}")
        tables.append(with_columns(part, schema))
    if not damaged and len(tables) == 1:
        damaged = [part_name(0)]  # there is none at all
    return Old(pa.concat_tables(tables), damaged)


def from_rows(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows as they come from JSON, as a table: times are text there."""
    times = [field.name for field in schema if pa.types.is_timestamp(field.type)]
    source, tables = iter(rows), [schema.empty_table()]
    while some := [_with_times(row, times) for row in islice(source, AT_ONCE)]:
        tables.append(pa.Table.from_pylist(some, schema=schema))
    return pa.concat_tables(tables)


def keys(table: pa.Table, key: Sequence[str]) -> list[Key]:
    """The key of each row."""
    return list(zip(*(table[name].to_pylist() for name in key), strict=True))


def newest(table: pa.Table, key: Sequence[str]) -> pa.Table:
    """Of rows with equal keys the last, where the first one stood."""
    position = {each: i for i, each in enumerate(keys(table, key))}
    return table.take(pa.array(list(position.values()), pa.int64()))


def without(table: pa.Table, key: Sequence[str], known: pa.Table) -> pa.Table:
    """The rows whose key is not that of a known row."""
    there = set(keys(known, key))
    return reader.keep(table, np.array([each not in there for each in keys(table, key)], dtype=bool))


class Difference(NamedTuple):
    """Rows of a new table that the old one had not, how many of the others changed, by column, how many the new one
    lacks, and how many the old one had once more."""

    added: int
    changed: dict[str, int]
    lost: int
    doubled: int

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.lost or self.doubled)


def difference(old: pa.Table, new: pa.Table, key: Sequence[str]) -> Difference:
    """How a table differs from an earlier one, row by row of the same key."""
    position = {each: i for i, each in enumerate(keys(old, key))}
    pairs = [(position[each], i) for i, each in enumerate(keys(new, key)) if each in position]
    before, after = (pa.array(column, pa.int64()) for column in (zip(*pairs, strict=True) if pairs else ([], [])))
    changed: dict[str, int] = {}
    for name in new.column_names:
        there, here = old[name].take(before), new[name].take(after)
        if there.equals(here):
            continue
        both = zip(there.to_pylist(), here.to_pylist(), strict=True)
        if count := sum(repr(a) != repr(b) for a, b in both):  # NaN is not equal to itself
            changed[name] = count
    return Difference(
        new.num_rows - len(pairs), changed, lost=len(position) - len(pairs), doubled=old.num_rows - len(position)
    )


def replace(folder: Path, table: pa.Table, *, part_rows: int) -> Path | None:
    """Write a table beside `folder` and swap it in when it is complete; where the old folder is kept, if there was one.

    It has at least as many parts as the old one, the last ones without rows: in a bucket nothing is removed, so that
    each old part must be overwritten. OSError where it cannot be written: nothing has changed then.
    """
    old = reader.part_files(before_rebuild(folder))
    parts = max([1, -(-table.num_rows // part_rows), *(1 + (reader.part_number(part) or 0) for part in old)])
    beside = folder.with_name(f".{folder.name}.rebuilding")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    for number in range(parts):
        write_part(beside / part_name(number), table.slice(number * part_rows, part_rows).combine_chunks())
    kept = None
    if folder.exists():
        kept = folder.with_name(f"{folder.name}.before-rebuild-{datetime.now(UTC):%Y%m%d-%H%M%S.%f}")
        folder.rename(kept)
    beside.rename(folder)
    sync(folder.parent)
    return kept


def before_rebuild(folder: Path) -> Path:
    """The folder of a table; where a process was killed between the two renames of `replace`, the one that was kept."""
    kept = sorted(folder.parent.glob(f"{folder.name}.before-rebuild-*"))
    return kept[-1] if kept and not folder.exists() else folder


def _with_times(row: Mapping[str, Any], times: Sequence[str]) -> dict[str, Any]:
    moments = {name: datetime.fromisoformat(row[name]) for name in times if isinstance(row.get(name), str)}
    return {**row, **moments}
