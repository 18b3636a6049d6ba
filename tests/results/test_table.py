from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from arat_ray.results import reader
from arat_ray.results.schema import TABLES, trials_schema
from arat_ray.results.table import ParquetTable

SCHEMA = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("epoch", pa.int64(), nullable=False),
        ("loss", pa.float64()),
        ("at", pa.timestamp("us", tz="UTC")),
    ]
)
KEY = ("name", "epoch")


def rows(folder: Path) -> list[dict[str, Any]]:
    table = pa.concat_tables([pq.ParquetFile(part).read() for part in reader.part_files(folder)])
    return list(table.to_pylist())


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in rows(folder)]


def duckdb_rows(query: str) -> list[tuple[Any, ...]]:
    relation = duckdb.sql(query)
    assert relation is not None
    return relation.fetchall()


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.iterdir()}


def fill(table: ParquetTable, epochs: range, loss: float = 0.5, name: str = "a") -> None:
    for epoch in epochs:
        table.upsert({"name": name, "epoch": epoch, "loss": loss})


# ---------------------------------------------------------------------------------------------- one table


def test_a_new_table_has_one_empty_part_with_columns_and_metadata(tmp_path: Path) -> None:
    ParquetTable(tmp_path / "t", SCHEMA, KEY, metadata={"revision": "4f2a"})
    stored = pq.read_schema(tmp_path / "t/part-00000.parquet")
    assert stored.equals(SCHEMA)
    assert stored.metadata[b"revision"] == b"4f2a"


def test_rows_fill_parts_and_then_begin_the_next_number(tmp_path: Path) -> None:
    table = ParquetTable(tmp_path, SCHEMA, KEY, part_rows=3, metadata={"revision": "4f2a"})
    for epoch in range(7):
        fill(table, range(epoch, epoch + 1), loss=epoch)
        table.flush()
    assert [pq.ParquetFile(part).metadata.num_rows for part in reader.part_files(tmp_path)] == [3, 3, 1]
    assert losses(tmp_path) == [0, 1, 2, 3, 4, 5, 6]
    for part in reader.part_files(tmp_path):
        assert pq.read_schema(part).metadata[b"revision"] == b"4f2a"
        assert pq.ParquetFile(part).metadata.row_group(0).column(0).compression == "ZSTD"


def test_one_flush_may_fill_many_parts(tmp_path: Path) -> None:
    table = ParquetTable(tmp_path, SCHEMA, KEY, part_rows=3)
    fill(table, range(8))
    table.flush()
    assert [pq.ParquetFile(part).metadata.num_rows for part in reader.part_files(tmp_path)] == [3, 3, 2]
    assert table.pending == 0


def test_missing_columns_are_null_and_times_keep_their_instant(tmp_path: Path) -> None:
    table = ParquetTable(tmp_path, SCHEMA, KEY)
    moment = datetime(2025, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    table.upsert({"name": "a", "epoch": 0, "at": moment})
    table.flush()
    (row,) = rows(tmp_path)
    assert row["loss"] is None
    assert row["at"] == moment


def test_the_same_key_replaces_the_earlier_row_wherever_it_is(tmp_path: Path) -> None:
    table = ParquetTable(tmp_path, SCHEMA, KEY, part_rows=3)
    fill(table, range(8), loss=1.0)
    fill(table, range(1), loss=2.0)  # not flushed yet
    table.flush()
    fill(table, range(4, 5), loss=3.0)  # in a sealed part
    fill(table, range(7, 9), loss=4.0)  # in the tail, and a new one
    table.flush()
    assert [row["epoch"] for row in rows(tmp_path)] == list(range(9))
    assert losses(tmp_path) == [2, 1, 1, 1, 3, 1, 1, 4, 4]


def test_only_the_parts_with_changes_are_rewritten(tmp_path: Path) -> None:
    table = ParquetTable(tmp_path, SCHEMA, KEY, part_rows=2)
    fill(table, range(5))
    table.flush()
    before = snapshot(tmp_path)
    table.flush()
    assert snapshot(tmp_path) == before
    fill(table, range(2, 3))
    table.flush()
    changed = {name for name, state in snapshot(tmp_path).items() if state != before[name]}
    assert changed == {"part-00001.parquet"}


def test_opening_a_folder_goes_on_where_it_ended(tmp_path: Path) -> None:
    table = ParquetTable(tmp_path, SCHEMA, KEY, part_rows=2)
    fill(table, range(3), loss=1.0)
    table.flush()
    (tmp_path / ".part-00001.parquet.tmp").write_bytes(b"half a fi")
    again = ParquetTable(tmp_path, SCHEMA, KEY, part_rows=2)
    assert not list(tmp_path.glob(".*"))
    fill(again, range(1, 5), loss=2.0)
    again.flush()
    assert losses(tmp_path) == [1, 2, 2, 2, 2]
    assert [row["epoch"] for row in rows(tmp_path)] == [0, 1, 2, 3, 4]


def test_any_sequence_of_upserts_flushes_and_restarts_gives_the_dictionary(tmp_path: Path) -> None:
    draw = random.Random(0)
    expected: dict[tuple[str, int], float] = {}
    table = ParquetTable(tmp_path, SCHEMA, KEY, part_rows=5)
    for step in range(400):
        key = (draw.choice("ab"), draw.randrange(20))
        expected[key] = float(step)
        table.upsert({"name": key[0], "epoch": key[1], "loss": step})
        if draw.random() < 0.2:
            table.flush()
            assert {(row["name"], row["epoch"]): row["loss"] for row in rows(tmp_path)} == expected
            assert len(rows(tmp_path)) == len(expected)
        if draw.random() < 0.02:
            table.flush()
            table = ParquetTable(tmp_path, SCHEMA, KEY, part_rows=draw.choice([4, 5, 9]))
    assert all(table.row(key)["loss"] == loss for key, loss in expected.items())


def test_a_folder_with_other_columns_is_refused_by_the_first_that_differs(tmp_path: Path) -> None:
    ParquetTable(tmp_path, SCHEMA, KEY)
    other = SCHEMA.set(2, pa.field("loss", pa.int64()))
    with pytest.raises(ValueError, match=r"'loss' is double there and int64 here"):
        ParquetTable(tmp_path, other, KEY)
    with pytest.raises(ValueError, match="'at', which this arat-ray does not know: a newer one wrote it"):
        ParquetTable(tmp_path, SCHEMA.remove(3), KEY)
    with pytest.raises(ValueError, match="'balance' is missing there and int64 not null here"):
        ParquetTable(tmp_path, SCHEMA.append(pa.field("balance", pa.int64(), nullable=False)), (*KEY, "balance"))


def test_a_column_that_was_added_is_null_in_older_rows_and_the_others_stay_as_they_were(tmp_path: Path) -> None:
    table = ParquetTable(tmp_path, SCHEMA, KEY, part_rows=2, metadata={"revision": "4f2a"})
    fill(table, range(5))
    table.flush()
    added = SCHEMA.insert(2, pa.field("balance", pa.float64()))
    table = ParquetTable(tmp_path, added, KEY, part_rows=2, metadata={"revision": "5a3b"})
    assert [row["loss"] for row in rows(tmp_path)] == [0.5] * 5
    assert [row["balance"] for row in rows(tmp_path)] == [None] * 5
    table.upsert({"name": "a", "epoch": 1, "balance": 0.25})
    table.upsert({"name": "a", "epoch": 5, "balance": 0.75})
    table.flush()
    assert [row["balance"] for row in rows(tmp_path)] == [None, 0.25, None, None, None, 0.75]
    before = snapshot(tmp_path)
    ParquetTable(tmp_path, added, KEY, part_rows=2)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"name": "a", "epoch": 0, "los": 1.0}, "no column 'los'; did you mean 'loss'"),
        ({"name": "a", "epoch": 0, "loss": "high"}, "column 'loss' is double and cannot hold 'high'"),
        ({"name": "a", "epoch": 0.5}, "column 'epoch' is int64 and cannot hold 0.5"),
        ({"name": "a", "epoch": 2**80}, "column 'epoch' is int64 and cannot hold"),
        ({"name": "\udc80", "epoch": 0}, "column 'name' is string and cannot hold"),
        ({"name": "a"}, "'epoch' is missing"),
    ],
)
def test_a_bad_row_is_refused_at_once_and_blocks_no_other(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    table = ParquetTable(tmp_path, SCHEMA, KEY)
    fill(table, range(1))
    with pytest.raises(ValueError, match=message):
        table.upsert(row)
    table.flush()
    assert len(rows(tmp_path)) == 1


def test_pandas_polars_and_duckdb_agree_after_each_flush(tmp_path: Path) -> None:
    schema = trials_schema({"weight": pa.float64(), "layers": pa.string(), "depth": pa.int64()})
    table = ParquetTable(tmp_path, schema, TABLES["trials"].key, part_rows=4)
    glob = str(tmp_path / "part-*.parquet")
    for number in range(13):
        param = {"param_weight": 0.5} if number % 3 else {"param_layers": "stage4", "param_depth": 2}
        table.upsert({"trial_id": f"t{number}", "attempt": 0, "number": number, "clean_accuracy": 0.5} | param)
        table.flush()
        expected = list(range(number + 1))
        assert pd.read_parquet(tmp_path)["number"].tolist() == expected
        assert pl.read_parquet(glob)["number"].to_list() == expected
        assert duckdb_rows(f"select number from '{glob}' order by number") == [(n,) for n in expected]
    assert pl.read_parquet(glob)["param_weight"].sum() == 4.0
    assert pd.read_parquet(tmp_path)["param_depth"].sum() == 10
    assert duckdb_rows(f"select count(param_layers) from '{glob}'") == [(5,)]


def test_keys_of_one_hash_in_different_parts_stay_apart(tmp_path: Path) -> None:
    assert hash((-1,)) == hash((-2,))
    schema = pa.schema([pa.field("epoch", pa.int64(), nullable=False), ("loss", pa.float64())])
    table = ParquetTable(tmp_path, schema, ("epoch",), part_rows=1)
    for epoch, loss in ((-1, 1.0), (-2, 2.0), (0, 0.0), (-1, 1.5)):
        table.upsert({"epoch": epoch, "loss": loss})
        table.flush()
    assert [(row["epoch"], row["loss"]) for row in rows(tmp_path)] == [(-1, 1.5), (-2, 2.0), (0, 0.0)]
    assert table.row((-2,)) == {"epoch": -2, "loss": 2.0}
    assert table.stored == 3
    with pytest.raises(KeyError):
        table.row((-3,))


# ---------------------------------------------------------------------------------------- crash and full disk

ENDLESS = """
import sys, pathlib
import pyarrow as pa
from arat_ray.results.schema import TABLES
from arat_ray.results.table import ParquetTable
key, schema = TABLES["epochs"]
table = ParquetTable(pathlib.Path(sys.argv[1]), schema, key, part_rows=40)
start = table.stored
for epoch in range(start, start + 100_000):
    table.upsert({"trial_id": "t", "attempt": 0, "epoch": epoch, "loss_clean": epoch / 2})
    if epoch % 5 == 0:
        table.upsert({"trial_id": "t", "attempt": 0, "epoch": epoch // 2, "loss_clean": epoch // 2 / 2})
    table.flush()
    print(epoch, flush=True)
"""


def test_after_kill_9_in_the_midst_of_flushing_every_flushed_row_is_there_once(tmp_path: Path) -> None:
    draw = random.Random(1)
    for _ in range(4):
        process = subprocess.Popen([sys.executable, "-c", ENDLESS, str(tmp_path)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        for _ in range(30):
            reported = process.stdout.readline()
        time.sleep(draw.random() / 50)
        process.send_signal(signal.SIGKILL)
        reported = (reported + process.stdout.read()).splitlines()[-1]
        process.wait()
        process.stdout.close()
        epochs = [row["epoch"] for row in rows(tmp_path)]
        assert epochs == list(range(len(epochs)))
        assert len(epochs) > int(reported)
        assert [row["loss_clean"] for row in rows(tmp_path)] == [epoch / 2 for epoch in epochs]


def duckdb_count(query: str) -> int:
    """It opens a file more than once: what two versions make is an error, never a number, and the README's advice."""
    for _ in range(5):
        with suppress(duckdb.Error):
            return len(duckdb_rows(query))
    return len(duckdb_rows(query))


def test_readers_beside_a_writer_always_see_whole_files(tmp_path: Path) -> None:
    """pyarrow and pandas open a file once; polars 2 opens a path twice and panics at two versions, hence the bytes."""
    process = subprocess.Popen([sys.executable, "-c", ENDLESS, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    drain = subprocess.Popen(["cat"], stdin=process.stdout, stdout=subprocess.DEVNULL)
    glob = str(tmp_path / "part-*.parquet")
    seen = 0
    try:
        for _ in range(40):
            counts = [
                len(reader.read(tmp_path.parent, tmp_path.name)),
                len(pd.read_parquet(tmp_path)),
                sum(len(pl.read_parquet(part.read_bytes())) for part in reader.part_files(tmp_path)),
                duckdb_count(f"select epoch from '{glob}'"),
            ]
            assert seen <= counts[0]
            assert counts == sorted(counts)
            seen = counts[-1]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        drain.wait()
