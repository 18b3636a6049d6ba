"""The tables of a study, back from its Parquet files.

Safe beside a running writer, which only ever puts whole files in place. `pq.read_table(folder)`, `pa.array`
and `to_numpy` import pandas behind one's back (pyarrow 26), so this module keeps away from them.
"""

from __future__ import annotations

import os
import re
import time
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from arat_ray.json_files import parse_json
from arat_ray.results.added_columns import of_today, with_columns
from arat_ray.results.schema import Metadata
from arat_ray.text import command, did_you_mean

MARK = b"record"
"""The key of a part's metadata that says from which record its table is made, and up to which line: `ID:LINE`."""
SEAL, SEAL_BYTES = b"crc32:", 14
_PART = re.compile(r"part-(\d+)\.parquet")


def part_number(path: Path) -> int | None:
    """3 for `part-00003.parquet`; None for anything that is not a part."""
    match = _PART.fullmatch(path.name)
    return int(match[1]) if match else None


def part_files(folder: Path) -> list[Path]:
    """The parts of a table in the order of their numbers; empty where there is no such folder."""
    if not folder.is_dir():
        return []
    numbered = [(number, path) for path in folder.iterdir() if (number := part_number(path)) is not None]
    return [path for _, path in sorted(numbered)]


def read(study: Path, table: str, columns: Sequence[str] | None = None) -> pa.Table:
    """A table of a study, all parts in order; ValueError where there is none or no such column.

    Columns that were added after it was written are null.
    """
    try:
        return _read_parts(study, table, columns)
    except FileNotFoundError:  # the folder was rewritten between listing and opening
        return _read_parts(study, table, columns)


def read_part(part: Path) -> pa.Table:
    """One part; ValueError where it is damaged."""
    with whole(part), opened(part) as file:
        return file.read()


def part_schema(part: Path) -> pa.Schema:
    """Columns and metadata of one part; ValueError where it is damaged."""
    with whole(part), opened(part) as file:
        return file.schema_arrow


def rows_in(part: Path) -> int:
    """How many rows a part has, by its footer; ValueError where it is damaged."""
    with whole(part), opened(part) as file:
        return int(file.metadata.num_rows)


def is_of(part: Path, record: str) -> bool:
    """Whether a part is made from a record, as far as it says; ValueError where it is damaged."""
    mark = (part_schema(part).metadata or {}).get(MARK, b"").decode()
    return not (record and mark) or mark.partition(":")[0] == record


def each_part(folder: Path, record: str = "") -> Iterator[tuple[Path, pa.Table | None]]:
    """The parts of a table, one after another; None where one cannot be read whole, is missing, or is made from another
    `record`."""
    last = max((part_number(part) or 0 for part in part_files(folder)), default=-1)
    for number in range(1 + last):
        part = folder / f"part-{number:05d}.parquet"
        try:
            yield part, read_part(part) if is_of(part, record) else None
        except (ValueError, FileNotFoundError):
            yield part, None


def damaged_parts(folder: Path, record: str = "") -> list[str]:
    """Of a table, the parts that cannot be read whole, are missing, or are made from another `record`."""
    return [part.name for part, found in each_part(folder, record) if found is None]


@contextmanager
def opened(part: Path, **options: Any) -> Iterator[pq.ParquetFile]:
    """A part to read from, which refuses pages, and a footer, whose checksum is another; an error of Arrow."""
    with pa.OSFile(f"{part!s}") as source:
        end = source.read_at(8, max(source.size() - 8, 0))
        at = source.size() - 8 - int.from_bytes(end[:4], "little")  # where the footer begins
        seal = source.read_at(SEAL_BYTES, at - SEAL_BYTES) if at >= SEAL_BYTES else b""
        if seal.startswith(SEAL) and seal != _seal(source.read_at(source.size() - at, at)):
            raise pa.ArrowInvalid("the checksum of its footer is another")
        yield pq.ParquetFile(source, page_checksum_verification=True, **options)


def sealed(content: bytes) -> bytes:
    """A file of Parquet with a checksum of its footer right before that, where nobody looks who does not know of it.

    Parquet has one for each page, and none for the footer, which holds the names of columns, the numbers of rows and
    the smallest and largest values, by which other readers leave out what they need not read.
    """
    at = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    return b"".join([content[:at], _seal(content[at:]), content[at:]])


def _seal(footer: bytes) -> bytes:
    return SEAL + b"%08x" % zlib.crc32(footer)


def schema(study: Path, table: str = "trials") -> pa.Schema:
    """Columns of a table, also those that were added since, and the file metadata of its newest part."""
    return _schema(_parts(study, table), table)


def metadata(study: Path) -> Metadata:
    """Goals, reference point and revision of a study; ValueError where its files do not say."""
    there = schema(study).metadata or {}
    try:
        return Metadata.decode(there)
    except ValueError as error:
        raise ValueError(f"{study}: {error}") from None


@contextmanager
def whole(part: Path) -> Iterator[None]:
    """ValueError that names the part, and what mends it, where the part cannot be read within the block."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise ValueError(f"{part} cannot be read: {os.strerror(error.errno)}") from error
        raise ValueError(f"{part} is damaged; {rebuild_with(part.parent.parent)}") from error


def rebuild_with(study: Path) -> str:
    """How a table is mended."""
    return f"make it again with: {command('arat-ray', 'results', 'rebuild', study)}"


def config(study: Path, row: Mapping[str, Any]) -> dict[str, Any]:
    """The run of a trial, as the column `config` of its row has it; ValueError where it does not say."""
    where, fix = f"{study}: the `config` of {row.get('trial_id', 'a trial')} in its table", rebuild_with(study)
    found: dict[str, Any] = parse_json(row.get("config") or "", where, fix=fix, shape={"epochs?": int})
    return found


def read_rows(study: Path, table: str, columns: Sequence[str], *, where: tuple[str, Collection[str]]) -> pa.Table:
    """Of a large table, the rows whose column of strings `where[0]` is one of `where[1]`.

    Parts without any are hardly read.
    """
    try:
        return _read_rows(study, table, columns, *where)
    except FileNotFoundError:  # the folder was rewritten between listing and opening
        return _read_rows(study, table, columns, *where)


def latest_attempt(trials: pa.Table) -> npt.NDArray[np.bool_]:
    """bool [N]: the rows of `trials` (or `epochs`) that belong to the last attempt at their trial."""
    ids, attempts = trials["trial_id"].to_pylist(), trials["attempt"].to_pylist()
    last: dict[str, int] = {}
    for trial_id, attempt in zip(ids, attempts, strict=True):
        last[trial_id] = max(attempt, last.get(trial_id, attempt))
    same = [last[trial_id] == attempt for trial_id, attempt in zip(ids, attempts, strict=True)]
    return np.array(same, dtype=bool)


def keep(table: pa.Table, mask: npt.NDArray[np.bool_]) -> pa.Table:
    """The rows where mask [N] is true."""
    return table.filter(pa.Array.from_buffers(pa.bool_(), len(mask), [None, _bits(mask)]))


def take(table: pa.Table, rows: Sequence[int]) -> pa.Table:
    """The rows of these numbers, in their order; a row may come twice."""
    return table.take(_array(pa.int64(), rows))


def replace(table: pa.Table, column: str, values: Sequence[float | str | None]) -> pa.Table:
    """The table with other values, of the type that they had, in one of its columns."""
    i = table.schema.get_field_index(column)
    field = table.schema.field(i)
    return table.set_column(i, field, _array(field.type, values))


def append(table: pa.Table, column: str, kind: pa.DataType, values: Sequence[float | str | None]) -> pa.Table:
    """The table with one column more."""
    return table.append_column(pa.field(column, kind), _array(kind, values))


def _array(kind: pa.DataType, values: Sequence[float | str | None]) -> pa.Array:
    valid = np.array([value is not None for value in values], dtype=bool)
    if pa.types.is_string(kind):
        words = [str(value).encode() if value is not None else b"" for value in values]
        ends = np.cumsum([0, *map(len, words)], dtype=np.int32)
        buffers = [pa.py_buffer(ends.tobytes()), pa.py_buffer(b"".join(words))]
    else:
        numbers = np.array([0 if value is None else value for value in values], dtype=kind.to_pandas_dtype())
        buffers = [pa.py_buffer(numbers.tobytes())]
    return pa.Array.from_buffers(kind, len(values), [_bits(valid), *buffers])


def _bits(mask: npt.NDArray[np.bool_]) -> pa.Buffer:
    return pa.py_buffer(np.packbits(mask, bitorder="little").tobytes())


def _read_parts(study: Path, table: str, columns: Sequence[str] | None) -> pa.Table:
    parts = _parts(study, table)
    wanted, tables = _selected(parts, table, columns), []
    for part in parts:
        with whole(part), opened(part) as file:
            tables.append(_read_columns(file, wanted))
    return pa.concat_tables(tables)


def _read_rows(study: Path, table: str, columns: Sequence[str], name: str, values: Collection[str]) -> pa.Table:
    parts = _parts(study, table)
    wanted, tables = _selected(parts, table, columns), []
    for part in parts:
        with whole(part), opened(part, read_dictionary=[name]) as file:
            masks = [np.zeros(0, dtype=bool)]
            for chunk in file.read(columns=[name])[name].chunks:
                words, indices = chunk.dictionary.to_pylist(), chunk.indices
                codes = np.frombuffer(
                    indices.buffers()[1], dtype=np.int32, count=len(indices), offset=4 * indices.offset
                )
                masks.append(np.array([word in values for word in words], dtype=bool)[codes])
            mask = np.concatenate(masks)
            if mask.any():
                tables.append(keep(_read_columns(file, wanted), mask))
    return pa.concat_tables(tables) if tables else pa.Table.from_batches([], wanted)


def _schema(parts: Sequence[Path], table: str) -> pa.Schema:
    return of_today(part_schema(parts[-1]), table)


def _selected(parts: Sequence[Path], table: str, columns: Sequence[str] | None) -> pa.Schema:
    """Of the table's columns these, all where it is None; ValueError where there is no such one."""
    there = _schema(parts, table)
    for name in columns or ():
        if name not in there.names:
            raise ValueError(f"{parts[-1]} has no column {name!r}{did_you_mean(name, there.names)}")
    return there if columns is None else pa.schema([there.field(name) for name in columns], there.metadata)


def _read_columns(file: pq.ParquetFile, wanted: pa.Schema) -> pa.Table:
    """The wanted columns of a part, null where it was written before they were added."""
    there = set(file.schema_arrow.names)
    table = file.read(columns=[name for name in wanted.names if name in there])
    if table.num_columns == len(wanted):
        return table
    fields = [table.schema.field(field.name) if field.name in there else field for field in wanted]
    return with_columns(table, pa.schema(fields, table.schema.metadata))


def _parts(study: Path, table: str) -> list[Path]:
    if parts := parts_without_a_gap(study / table):
        return parts
    if not study.exists():
        raise ValueError(f"there is no folder {study}{_nearby(study.parent)}")
    if any((study / "journal").rglob("record-*")) and table in ("trials", "epochs"):
        raise ValueError(f"{study} has lost its table {table!r}; {rebuild_with(study)}")
    if part_files(study / "trials"):
        raise ValueError(f"{study} has no table {table!r} yet: no {table}/part-*.parquet in it")
    raise ValueError(f"{study} is not a results folder: no trials/part-*.parquet in it{_nearby(study)}")


def parts_without_a_gap(folder: Path) -> list[Path]:
    """The parts of a table, which are numbered from 0 without a gap."""
    for wait_s in (0.01, 0.1, 0.5, 0.0):
        parts = part_files(folder)
        missing = set(range(len(parts))) - {part_number(part) for part in parts}
        if not missing:
            return parts
        time.sleep(wait_s)  # a listing is no snapshot: parts may have come while it was made
    lost = folder / f"part-{min(missing):05d}.parquet"
    raise ValueError(f"{lost} is missing; {rebuild_with(folder.parent)}")


def _nearby(folder: Path) -> str:
    """The studies one level down, as the likely fix."""
    if not folder.is_dir():
        return ""
    studies = sorted(f"{path}" for path in folder.iterdir() if part_files(path / "trials"))
    return f"; did you mean {' or '.join(studies[:5])}?" if studies else ""
