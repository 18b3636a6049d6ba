"""A table that only grows: rows in their order over parts and restarts, whole at any moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from arat_ray.results import growing_table, parts, reader
from arat_ray.results.growing_table import GrowingTable

SCHEMA = pa.schema([pa.field("trial_id", pa.string(), False), pa.field("epoch", pa.int64()), ("loss", pa.float64())])


def table(folder: Path, **options: Any) -> GrowingTable:
    return GrowingTable(folder, SCHEMA, ("trial_id",), **({"part_rows": 3} | options))


def epochs(folder: Path) -> list[list[int]]:
    return [reader.read_part(part)["epoch"].to_pylist() for part in reader.part_files(folder)]


def grow(some: GrowingTable, *numbers: int) -> None:
    for number in numbers:
        some.append({"trial_id": "a", "epoch": number})


def test_rows_come_in_their_order_over_parts_and_restarts(tmp_path: Path) -> None:
    first = table(tmp_path)
    assert epochs(tmp_path) == [[]], "readers find the columns before the first row"
    grow(first, 0, 1)
    first.flush("r:2")
    grow(first, 2, 3, 4, 5, 6)
    assert (first.stored, first.pending) == (2, 5)
    first.flush("r:7")
    assert epochs(tmp_path) == [[0, 1, 2], [3, 4, 5], [6]]
    again = table(tmp_path)
    assert (again.stored, again.pending, again.mark) == (7, 0, "r:7")
    grow(again, 7)
    again.flush()
    assert epochs(tmp_path)[-1] == [6, 7]
    assert table(tmp_path).mark == "r:7"


def test_a_disk_that_fails_between_two_parts_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some, write, written = table(tmp_path), parts.write_part, list[Path]()
    grow(some, *range(8))

    def fails_at_the_second(path: Path, content: pa.Table) -> None:
        if written:
            raise OSError(28, "full")
        written.append(path)
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(growing_table, "write_part", fails_at_the_second)
        with pytest.raises(OSError, match="full"):
            some.flush("r:8")
    assert (epochs(tmp_path), some.stored, some.pending) == ([[0, 1, 2]], 3, 5)
    assert table(tmp_path).mark == "", "not all of it is there"
    some.flush("r:8")
    assert epochs(tmp_path) == [[0, 1, 2], [3, 4, 5], [6, 7]]
    assert table(tmp_path).mark == "r:8"


def test_rows_that_it_cannot_hold_are_refused_before_the_good_ones_behind_them(tmp_path: Path) -> None:
    some = table(tmp_path)
    for row, words in (
        ({"trial_id": "a", "epoc": 1}, "no column 'epoc'; did you mean 'epoch'"),
        ({"trial_id": "a", "epoch": 0.5}, "cannot hold 0.5"),
        ({"epoch": 1}, "'trial_id' is missing"),
    ):
        with pytest.raises(ValueError, match=words):
            some.append(row)
    grow(some, 1)
    some.flush()
    assert epochs(tmp_path) == [[1]]
