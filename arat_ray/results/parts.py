"""Parts: the Parquet files of a table, put in place whole, with a checksum on every page and on the footer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from arat_ray import whole_files
from arat_ray.results import reader
from arat_ray.text import did_you_mean
from arat_ray.whole_files import sync

_FLOAT, _INT, _STRING = pa.float64(), pa.int64(), pa.string()


def _words(schema: pa.Schema) -> list[str]:
    """The columns of strings, whose values come again and again; numbers take half the time without a dictionary."""
    nested = (f"{field.name}.key_value.key" for field in schema if pa.types.is_map(field.type))
    return [field.name for field in schema if pa.types.is_string(field.type)] + list(nested)


def _measured(schema: pa.Schema) -> list[str]:
    """The columns of floats but shares: byte by byte they compress better, as upper bytes of their values are alike.

    A share is a count by a count: its values come again, which zstd finds where their bytes are together.
    """
    return [field.name for field in schema if pa.types.is_float64(field.type) and not field.name.endswith("accuracy")]


def part_name(number: int) -> str:
    return f"part-{number:05d}.parquet"


def write_part(path: Path, table: pa.Table) -> None:
    """Put a part in place whole; OSError where that fails, and then what was there stays."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        compression="zstd",
        compression_level=3,
        use_dictionary=_words(table.schema),
        use_byte_stream_split=_measured(table.schema),
        write_page_checksum=True,
    )
    with whole_files.replaced(path) as file:
        file.write(reader.sealed(sink.getvalue().to_pybytes()))
    sync(path.parent)


def check_value(name: str, value: Any, column_type: pa.DataType) -> None:
    """Refuse now what could not be written later: a bad row must not block the good ones behind it."""
    kind = type(value)  # nearly all values are of these, and five times as fast
    if (
        value is None
        or (kind is float and column_type == _FLOAT)
        or (kind is int and column_type == _INT and -(2**63) <= value < 2**63)
        or (kind is str and column_type == _STRING and value.isascii())
    ):
        return
    try:
        stored = pa.scalar(value, type=column_type).as_py()
        if not pa.types.is_integer(column_type) or stored == value:  # pyarrow stores 0.5 as the integer 0
            return
    except (ValueError, TypeError, NotImplementedError, OverflowError):  # the Arrow errors are among them
        pass
    raise ValueError(f"column {name!r} is {column_type} and cannot hold {value!r}")


def check_row(row: Mapping[str, Any], types: Mapping[str, pa.DataType], key: tuple[str, ...]) -> None:
    """ValueError for a column that there is not, a value that is none of its type, and a key that is missing."""
    for name, value in row.items():
        if name not in types:
            raise ValueError(f"no column {name!r}{did_you_mean(name, types)}")
        check_value(name, value, types[name])
    for name in key:
        if row.get(name) is None:
            raise ValueError(f"a row needs its key {key}, and {name!r} is missing")
