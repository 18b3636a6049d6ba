from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from arat_ray.results import reader
from arat_ray.results.schema import TABLES, Metadata
from arat_ray.results.table import ParquetTable
from arat_ray.study.tables import StudyTables

METADATA = Metadata(
    study="layers", goals=("clean_accuracy", "robust_accuracy"), reference_point=(0.0, 0.0), revision="4f2a"
)


def write_study(folder: Path, trials: int = 3) -> Path:
    writer = StudyTables(folder, params={"depth": pa.int64()}, metadata=METADATA, part_rows=2)
    for number in range(trials):
        writer.trial({"trial_id": f"t{number}", "attempt": 0, "number": number, "param_depth": 2})
    writer.flush()
    return folder


def test_parts_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    study = write_study(tmp_path / "layers", trials=5)
    assert [path.name for path in reader.part_files(study / "trials")] == [
        "part-00000.parquet",
        "part-00001.parquet",
        "part-00002.parquet",
    ]
    assert reader.read(study, "trials")["number"].to_pylist() == [0, 1, 2, 3, 4]


def test_ten_thousand_parts_still_sort_by_number(tmp_path: Path) -> None:
    for name in ("part-100000.parquet", "part-99999.parquet", ".part-00000.parquet.tmp", "notes.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in reader.part_files(tmp_path)] == [
        "part-99999.parquet",
        "part-100000.parquet",
    ]


def test_only_the_wanted_columns_are_read(tmp_path: Path) -> None:
    study = write_study(tmp_path / "layers")
    assert reader.read(study, "trials", ["number", "param_depth"]).column_names == ["number", "param_depth"]


def test_an_unknown_column_is_named_with_the_likely_one(tmp_path: Path) -> None:
    study = write_study(tmp_path / "layers")
    with pytest.raises(ValueError, match="no column 'param_dept'; did you mean 'param_depth'"):
        reader.read(study, "trials", ["param_dept"])


def test_a_table_without_rows_still_has_its_columns(tmp_path: Path) -> None:
    epochs = reader.read(write_study(tmp_path / "layers"), "epochs")
    assert epochs.num_rows == 0
    assert "validation_robust_accuracy" in epochs.column_names


def test_metadata_and_schema_come_from_the_files(tmp_path: Path) -> None:
    study = write_study(tmp_path / "layers")
    assert reader.metadata(study) == METADATA
    assert "param_depth" in reader.schema(study).names


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("results/layer", "there is no folder {place}; did you mean {root}/results/layers?"),
        (
            "results",
            "{place} is not a results folder: no trials/part-*.parquet in it; did you mean {root}/results/layers?",
        ),
        ("empty", "{place} is not a results folder: no trials/part-*.parquet in it"),
    ],
)
def test_a_wrong_folder_is_named_with_the_studies_nearby(tmp_path: Path, place: str, message: str) -> None:
    write_study(tmp_path / "results/layers")
    (tmp_path / "empty").mkdir()
    expected = message.format(place=tmp_path / place, root=tmp_path)
    with pytest.raises(ValueError, match=re.escape(expected) + "$"):
        reader.read(tmp_path / place, "trials")


def test_a_table_that_is_not_there_yet_is_named(tmp_path: Path) -> None:
    study = write_study(tmp_path / "layers")
    with pytest.raises(ValueError, match="has no table 'evaluations' yet"):
        reader.read(study, "evaluations")


def test_a_study_without_metadata_is_named(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    (tmp_path / "trials").mkdir()
    pq.write_table(pa.table({"number": [1]}), tmp_path / "trials/part-00000.parquet")
    with pytest.raises(ValueError, match=re.escape(str(tmp_path)) + ": the file metadata lacks"):
        reader.metadata(tmp_path)


def test_a_study_that_is_replaced_while_it_is_read_is_listed_again(tmp_path: Path) -> None:
    """A reader in a loop beside a process that swaps the study between three parts and one."""
    small, large = write_study(tmp_path / "small", 1), write_study(tmp_path / "large", 6)
    study = tmp_path / "study"
    (study / "trials").mkdir(parents=True)
    for part in reader.part_files(large / "trials"):
        shutil.copy(part, study / "trials" / part.name)
    swap = (
        "import os, sys, shutil, pathlib, time\n"
        "small, large, study = map(pathlib.Path, sys.argv[1:])\n"
        "for _ in range(40):\n"
        "    for path in sorted(study.glob('part-*'))[1:]: path.unlink()\n"
        "    for path in sorted(large.glob('part-*')):\n"
        "        shutil.copy(path, study / '.new'); os.replace(study / '.new', study / path.name)\n"
        "    time.sleep(0.02)\n"
    )
    arguments = [str(folder / "trials") for folder in (small, large, study)]
    process = subprocess.Popen([sys.executable, "-c", swap, *arguments])
    while process.poll() is None:
        assert reader.read(study, "trials").num_rows in (2, 4, 6)
    assert process.returncode == 0


def test_the_last_attempt_at_each_trial_counts() -> None:
    trials = pa.table({"trial_id": ["a", "b", "a", "c", "a"], "attempt": [0, 0, 2, 1, 1]})
    assert reader.latest_attempt(trials).tolist() == [False, True, True, True, False]


def test_reading_and_the_front_load_neither_torch_nor_ray_nor_pandas(tmp_path: Path) -> None:
    study = write_study(tmp_path / "layers")
    code = (
        "import sys, pathlib\n"
        "import arat_ray.results.schema, arat_ray.study.tables\n"
        "from arat_ray.results import reader\n"
        "from arat_ray.frontier import pareto\n"
        "from arat_ray.report import figure\n"
        f"study = pathlib.Path({str(study)!r})\n"
        "reader.read(study, 'trials').to_pylist()\n"
        "try: pareto.load_front([study])\n"
        "except ValueError: pass\n"
        "try: figure.plot_front(None, pathlib.Path('front.gif'))\n"
        "except ValueError: pass\n"
        "heavy = {'torch', 'ray', 'pandas', 'pydantic', 'matplotlib', 'optuna', 'pyarrow.dataset'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_rows_of_one_value_are_those_of_a_filter_over_all_parts(tmp_path: Path) -> None:
    kind = TABLES["examples"]
    table = ParquetTable(tmp_path / "examples", kind.schema, kind.key, part_rows=4)
    for i in range(9):
        table.upsert({"evaluation_id": "abc"[i % 3], "index": i, "label": i % 2, "broken_by": None})
    table.upsert({"evaluation_id": "d", "index": 9, "label": 1, "broken_by": "fab-t"})
    table.flush()
    assert len(reader.part_files(tmp_path / "examples")) == 3
    columns = ["index", "broken_by"]
    found = {name: reader.read_rows(tmp_path, "examples", columns, where=("evaluation_id", {name})) for name in "abcde"}
    assert [found[name]["index"].to_pylist() for name in "abcde"] == [[0, 3, 6], [1, 4, 7], [2, 5, 8], [9], []]
    assert found["d"].to_pylist() == [{"index": 9, "broken_by": "fab-t"}]
    assert found["e"].column_names == columns
    several = reader.read_rows(tmp_path, "examples", columns, where=("evaluation_id", {"a", "d", "e"}))
    assert several["index"].to_pylist() == [0, 3, 6, 9]


def test_a_column_is_replaced_by_values_of_its_type() -> None:
    table = pa.table({"name": ["a", None, "c"], "share": [0.5, 1.0, None], "count": [1, 2, 3]})
    new_values: dict[str, list[Any]] = {"name": ["", None, "\u00e4b"], "share": [None, 2.0, 3.5], "count": [4, None, 6]}
    for column, values in new_values.items():
        new = reader.replace(table, column, values)
        assert new[column].to_pylist() == values
        assert new.schema == table.schema
        new.validate(full=True)
    assert reader.replace(table.slice(0, 0), "name", []).num_rows == 0
    assert reader.keep(table, np.array([True, False, True]))["count"].to_pylist() == [1, 3]


def test_a_damaged_part_is_named_with_what_mends_it_and_an_unreadable_one_is_not_called_damaged(tmp_path: Path) -> None:
    study = write_study(tmp_path / "layers")
    part = study / "trials/part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-7])
    message = re.escape(f"{part} is damaged; make it again with: arat-ray results rebuild {study}")
    with pytest.raises(ValueError, match=message):
        reader.read(study, "trials")
    (study / "trials/part-00001.parquet").unlink()
    with pytest.raises(ValueError, match=message):
        reader.metadata(study)
    part.unlink()
    part.symlink_to(part)
    with pytest.raises(ValueError, match=re.escape(f"{part} cannot be read: Too many levels of symbolic links")):
        reader.read(study, "trials")
