"""What a Parquet file would take to read, seen before it is: a few bytes can unpack to gigabytes.

The footer says how many columns there are, the header of each page how large it is unpacked. What would take more
memory than images do is refused by file, rows and reason; the rest is read in batches that fit.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from arat_ray.training.data.thrift import LIST, STRUCT, Compact, DamagedError

if TYPE_CHECKING:
    import pyarrow.parquet as pq

FOOTER = 32_000_000
"""Bytes of a footer: some 100,000 row groups."""
COLUMNS = 10_000
NESTED = 16
"""Levels of columns within columns."""
ROWS = 50_000_000
"""Of a split."""
PAGE = 120_000_000
"""Bytes of a page, unpacked: it is unpacked whole, and takes three times as much for a moment."""
BATCH = 64_000_000
"""Bytes of images that are read at once."""
HEADERS = (1 << 12, 1 << 16, 1 << 22)
"""Bytes within which the header of a page ends: few, unless it holds long statistics."""
ROWS_A_BYTE = 10
"""Of a file: an image takes more, and the rest is one image repeated."""
ROWS_AT_ONCE = 1024
_DICTIONARY_PAGE, _DELTA_BYTE_ARRAY = 2, 7


def check_footer(part: Path) -> None:
    """ValueError where the footer is too large to be parsed, is damaged or names too many columns."""
    with part.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        if size < 12:
            return
        file.seek(-8, os.SEEK_END)
        tail = file.read(8)
        length = int.from_bytes(tail[:4], "little")
        if tail[4:] != b"PAR1" or length > size - 12:
            return
        if length > FOOTER:
            raise ValueError(
                f"{part}: its footer takes {length / 1e6:,.0f} MB, more than the {FOOTER / 1e6:.0f} MB that are read; "
                "write it again with fewer columns and larger row groups"
            )
        file.seek(-8 - length, os.SEEK_END)
        footer = Compact(file.read(length))
    _check_schema(part, footer)


def _check_schema(part: Path, footer: Compact) -> None:
    """The schema is a list of elements before the row groups: a column, or one that the next so many are within."""
    for number, kind in footer.fields():
        if number == 2 and kind == LIST:
            count, _ = footer.elements()
            if count > COLUMNS:
                raise ValueError(
                    f"{part}: {count:,} columns, more than the {COLUMNS:,} that are read; is it an image set?"
                )
            open_levels: list[int] = []
            for _ in range(count):
                children = 0
                for field, type_ in footer.fields():
                    if field == 5:
                        children = footer.integer()
                    else:
                        footer.skip(type_)
                if open_levels:
                    open_levels[-1] -= 1
                open_levels.append(children)
                while open_levels and open_levels[-1] <= 0:
                    open_levels.pop()
                if len(open_levels) > NESTED:
                    raise ValueError(f"{part}: columns within columns, more than {NESTED} levels; is it an image set?")
            return
        footer.skip(kind)


class _Page(NamedTuple):
    unpacked: int
    packed: int
    rows: int
    """None of a dictionary."""
    is_shared: bool
    """A value that stands here once can be many rows', or part of theirs."""


def rows_at_once(part: Path, file: BinaryIO, group: pq.RowGroupMetaData, column: str, first_row: int) -> int:
    """How many rows of a column can be read at once; ValueError where a page of it alone is too large."""
    largest = 1.0
    for i in range(group.num_columns):
        chunk = group.column(i)
        if chunk.path_in_schema != column and not chunk.path_in_schema.startswith(f"{column}."):
            continue
        row = first_row
        for page in _pages(file, chunk):
            if page.unpacked > PAGE:
                last = row + page.rows - 1 if page.rows else first_row + group.num_rows - 1
                where = f"rows {row} to {last} (from 0)" if last > row else f"row {row} (from 0)"
                raise ValueError(
                    f"{part}, {where}: a page of {column} is {page.unpacked / 1e6:,.0f} MB unpacked, more than the "
                    f"{PAGE / 1e6:.0f} MB that are read; write the file again with fewer rows a page, or smaller values"
                )
            largest = max(largest, page.unpacked / (1 if page.is_shared else max(page.rows, 1)))
            row += page.rows
    return max(1, min(ROWS_AT_ONCE, int(BATCH / largest)))


def _pages(file: BinaryIO, chunk: pq.ColumnChunkMetaData) -> Iterator[_Page]:
    """The headers of a column chunk's pages; it ends where they are damaged, which the reader says better."""
    at = chunk.data_page_offset
    if chunk.has_dictionary_page and chunk.dictionary_page_offset:
        at = min(at, chunk.dictionary_page_offset)
    end, values = at + chunk.total_compressed_size, 0
    while at < end and values < chunk.num_values:
        for length in HEADERS:
            file.seek(at)
            header = Compact(file.read(length))
            try:
                page = _page(header)
                break
            except DamagedError:
                continue
        else:
            return
        if page.packed < 0 or page.unpacked < 0 or page.rows < 0:
            return
        yield page
        at += header.at + page.packed
        values += page.rows


def _page(header: Compact) -> _Page:
    kind = unpacked = packed = rows = encoding = 0
    for number, type_ in header.fields():
        if number == 1:
            kind = header.integer()
        elif number == 2:
            unpacked = header.integer()
        elif number == 3:
            packed = header.integer()
        elif number in (5, 8) and type_ == STRUCT:  # of a data page, of either version
            for field, inner in header.fields():
                if field == 1:
                    rows = header.integer()
                elif field == (2 if number == 5 else 4):
                    encoding = header.integer()
                else:
                    header.skip(inner)
        else:
            header.skip(type_)
    return _Page(unpacked, packed, rows, kind == _DICTIONARY_PAGE or encoding == _DELTA_BYTE_ARRAY)
