"""Files of a Parquet image set as the Hugging Face hub, pandas and Spark lay them out: parts, and cells by batches."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from arat_ray.training.data import parquet_limits
from arat_ray.training.data.classes import shown
from arat_ray.training.data.decoding import ENCODED, too_large
from arat_ray.training.data.parquet_columns import is_list
from arat_ray.training.data.thrift import DamagedError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

DEEPEST = 6
"""Folders below the one that is named."""
_SPLITS = {"train": ("train", "training"), "test": ("test", "testing")}


class Part(NamedTuple):
    """A file, and what the folders above it say of all its rows: `label=cat/`."""

    path: Path
    keys: tuple[tuple[str, str], ...] = ()


def parts(split: str, path: Path) -> list[Part]:
    """The files of a split: the file itself; of a folder those named after the split, or all if none are.

    Where a folder holds none, they are looked for below: in the split's own folder, in the only one that holds some
    (`data/`), or in all that are named `key=value`. ValueError where none are found, and where it is open which.
    """
    if not path.is_dir():
        return [Part(path)]
    return _below(split, path, path, (), DEEPEST)


def _below(split: str, top: Path, folder: Path, keys: tuple[tuple[str, str], ...], deepest: int) -> list[Part]:
    files = sorted(file for file in folder.glob("[!.]*.parquet") if not file.is_dir())
    if any(file.name.startswith(("train", "test")) for file in files):  # then never one for the other
        files = [file for file in files if file.name.startswith(split)]
        if not files:
            raise ValueError(f"dataset.{split}: no {split}*.parquet in {folder}")
    if files:
        return [Part(file, keys) for file in files]
    inside = [each for each in sorted(folder.glob("[!._]*")) if each.is_dir() and _holds_parts(each, deepest - 1)]
    hive = [each for each in inside if "=" in each.name]
    of_split = [each for each in hive if each.name.lower() in {f"split={word}" for word in _SPLITS[split]}]
    if of_split or any(each.name.lower().startswith("split=") for each in hive):
        hive, inside = of_split, of_split
    if hive:
        found = []
        for each in hive:
            key, _, value = each.name.partition("=")
            found += _below(split, top, each, (*keys, (key, _unquoted(value))), deepest - 1)
        return found
    of_splits = {name: [each for each in inside if _is_named(each, words)] for name, words in _SPLITS.items()}
    if any(of_splits.values()):
        inside = of_splits[split]
    if len(inside) == 1:
        return _below(split, top, inside[0], keys, deepest - 1)
    if inside:
        names = ", ".join(each.name for each in inside[:10])
        raise ValueError(f"dataset.{split}: {folder} holds parts in several folders ({names}); name one of them")
    raise ValueError(f"dataset.{split}: no {split}*.parquet in {folder}")


def _holds_parts(folder: Path, deepest: int) -> bool:
    if any(not file.is_dir() for file in folder.glob("[!.]*.parquet")):
        return True
    return deepest > 0 and any(_holds_parts(each, deepest - 1) for each in folder.glob("[!._]*") if each.is_dir())


def _is_named(folder: Path, words: tuple[str, ...]) -> bool:
    return re.split(r"[-_. ]", folder.name.lower())[0] in words


def _unquoted(value: str) -> str:
    from urllib.parse import unquote

    return "" if value == "__HIVE_DEFAULT_PARTITION__" else unquote(value)


@contextmanager
def opened(path: Path) -> Iterator[pq.ParquetFile]:
    """A Parquet file, if it can be read within bounds; ValueError where it is none, or damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if path.exists() and not path.is_file():
            raise OSError("it is no regular file")
        parquet_limits.check_footer(path)
        with pq.ParquetFile(path, buffer_size=1 << 20) as file:
            yield file
    except (pa.ArrowException, OSError, UnicodeDecodeError, DamagedError) as error:
        reason, fix = " ".join(str(error).split()), "download or write it again"
        if _begins(path, b"version https://git-lfs"):
            reason, fix = "it is a pointer of Git LFS", "fetch the file itself with `git lfs pull`"
        elif _begins(path, b"<"):
            reason = "it begins like a web page"
        raise ValueError(f"{path}: no intact Parquet file ({reason[:300]}); {fix}") from error


def _begins(path: Path, start: bytes) -> bool:
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(len(start)) == start
    except OSError:
        return False


def rows_in(files: Sequence[Part], split: str) -> int:
    """The number of rows of all parts."""
    total = 0
    for part in files:
        with opened(part.path) as file:
            rows, size = file.metadata.num_rows, part.path.stat().st_size
            if rows > parquet_limits.ROWS_A_BYTE * size:
                raise ValueError(f"{part.path}: {rows:,} rows in {size:,} bytes are the same few images over and over")
            total += rows
        if total > parquet_limits.ROWS:
            raise ValueError(
                f"dataset.{split}: {part.path}: more than {parquet_limits.ROWS:,} rows, and images are held in memory"
            )
    return total


def batches(
    part: Part, file: pq.ParquetFile, column: str, *, wanted: npt.NDArray[np.int64] | None = None
) -> Iterator[tuple[int, pa.Array]]:
    """A column, batch by batch, each with its first row; row groups without a `wanted` row (sorted) are left out."""
    for groups, first, end, at_once in _runs(part, file, column, wanted):
        row = first
        # one column needs no threads, and a busy machine makes them wait
        for batch in file.iter_batches(at_once, row_groups=groups, columns=[column], use_threads=False):
            yield row, batch.column(batch.schema.get_field_index(column))
            row += batch.num_rows
        if row != end:
            raise OSError(f"{row - first} rows where its footer says {end - first}")


def _runs(
    part: Part, file: pq.ParquetFile, column: str, wanted: npt.NDArray[np.int64] | None
) -> Iterator[tuple[list[int], int, int, int]]:
    """Neighbouring row groups that are read together: their numbers, first row, end, and how many rows at once."""
    groups: list[int] = []
    first = end = 0
    at_once = parquet_limits.ROWS_AT_ONCE
    with part.path.open("rb") as raw:
        for number in range(file.metadata.num_row_groups):
            group = file.metadata.row_group(number)
            begin, end_of_group = end, end + group.num_rows
            is_wanted = wanted is None or np.searchsorted(wanted, begin) < np.searchsorted(wanted, end_of_group)
            if groups and (not is_wanted or end_of_group - first > parquet_limits.ROWS_AT_ONCE):
                yield groups, first, end, at_once
                groups, at_once = [], parquet_limits.ROWS_AT_ONCE
            if is_wanted:
                first = first if groups else begin
                groups.append(number)
                at_once = min(at_once, parquet_limits.rows_at_once(part.path, raw, group, column, begin))
            end = end_of_group
    if groups:
        yield groups, first, end, at_once


def encoded(cells: pa.Array, i: int, where: str, column: str) -> bytes:
    """The image file in cell i of a column; ValueError where it holds none, or several."""
    import pyarrow as pa

    cell = cells[i]
    if isinstance(cell, pa.ExtensionScalar):
        cell = cell.value
    if cell.is_valid and is_list(cell.type):
        if len(cell) != 1:
            raise ValueError(f"{where}: {len(cell)} images in {column}; a row has one")
        cell = cell[0]
    if cell.is_valid and pa.types.is_struct(cell.type):
        whole, cell = cell, cell["bytes"]
        if not cell.is_valid and "path" in whole.type.names and whole["path"].is_valid:
            path = shown(whole["path"].as_py())
            raise ValueError(
                f"{where}: no encoded image in {column}, only the path {path}; embed the bytes, not a path"
            )
    if isinstance(cell, pa.DictionaryScalar):
        cell = cell.value
    if not cell.is_valid:
        raise ValueError(f"{where}: no encoded image in {column} (null); leave the row out, or embed the bytes")
    content = cell.as_buffer()
    if content.size > ENCODED:
        raise ValueError(f"{where}: {too_large(content.size)}")
    return bytes(content)
