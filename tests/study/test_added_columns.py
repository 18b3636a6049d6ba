"""Columns that were added to all tables after a study was begun: null there, in a study that goes on as any other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner

from arat_ray.cli import main
from arat_ray.experiment.spec import Experiment
from arat_ray.results import evaluation_records, parts, reader, table_folder
from arat_ray.results.rows import TrialRow
from arat_ray.results.schema import PART_ROWS, TABLES, TableType
from arat_ray.storage.address import mirror_of, parse, root
from arat_ray.storage.mirror import Mirror
from arat_ray.study import folder as study_folder
from arat_ray.study import mending
from arat_ray.study.recorder import Recorder
from arat_ray.study.trials import StudyTrials
from tests.frontier.tables import judged
from tests.study.conftest import EXPERIMENT
from tests.study.test_rebuild import CHANGES, EPOCHS, recording, row_of, run

Make = Callable[..., Experiment]
LATER = {"later": pa.float64(), "later_by_layer": pa.map_(pa.string(), pa.float64())}


def opened(experiment: Experiment, folder: Path) -> tuple[Recorder, StudyTrials]:
    return recording(experiment, mending.opened(folder, experiment, warn=pytest.fail))


@pytest.fixture
def study(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six trials, one of them interrupted, and an evaluation, in parts of three rows."""
    for name in PART_ROWS:
        monkeypatch.setitem(PART_ROWS, name, 3)
    experiment, source, folder = make(**CHANGES), tmp_path / "small.yaml", tmp_path / "small"
    source.write_text(yaml.safe_dump(EXPERIMENT | CHANGES))
    with study_folder.claim(folder, experiment, source, kind="tune", resume=False, warn=pytest.fail) as record:
        recorder, study_trials = recording(experiment, record)
        run(recorder, study_trials, experiment, folder)
    judged(folder, "small-00001", "rrcx")
    evaluation_records.write(folder, *(reader.read(folder, name).to_pylist() for name in ("evaluations", "examples")))
    return folder


@pytest.fixture
def before(study: Path) -> dict[str, list[dict[str, Any]]]:
    return {name: reader.read(study, name).to_pylist() for name in TABLES}


@pytest.fixture
def added(before: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on every table has two more columns, in the middle."""
    for name, (key, schema) in list(TABLES.items()):
        fields = list(schema)
        fields[len(key) + 1 : len(key) + 1] = [pa.field(column, LATER[column]) for column in LATER]
        monkeypatch.setitem(TABLES, name, TableType(key, pa.schema(fields)))


def names_in_parts(study: Path, name: str) -> list[list[str]]:
    return [pq.read_schema(part).names for part in reader.part_files(study / name)]


def call(*words: str | Path) -> str:
    result = CliRunner().invoke(main, list(map(str, words)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def without_later(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name not in LATER} for row in rows]


@pytest.mark.usefixtures("added")
def test_a_study_of_before_is_read_with_nulls_and_shown(study: Path, before: dict[str, Any]) -> None:
    for name in TABLES:
        rows = reader.read(study, name).to_pylist()
        assert without_later(rows) == before[name]
        assert all(row["later"] is None and row["later_by_layer"] is None for row in rows)
        assert reader.read(study, name, ["later"])["later"].to_pylist() == [None] * len(rows)
        assert "later" in reader.schema(study, name).names
        assert all("later" not in names for names in names_in_parts(study, name))
    some = reader.read_rows(study, "epochs", ["later_by_layer", "trial_id"], where=("trial_id", ["small-00001"]))
    assert some.to_pylist() == [{"later_by_layer": None, "trial_id": "small-00001"}] * EPOCHS
    assert call("results", "trials", study, "--csv").count("\n") == 1 + 6
    assert "front: 1 of 6 trials" in call("pareto", study)


@pytest.mark.usefixtures("added")
def test_a_study_of_before_is_resumed_and_extended(
    study: Path, make: Make, before: dict[str, Any], tmp_path: Path
) -> None:
    more = CHANGES | {"budget": {"trials": 7}}
    experiment, source = make(**more), tmp_path / "small.yaml"
    source.write_text(yaml.safe_dump(EXPERIMENT | more))
    with study_folder.claim(study, experiment, source, kind="tune", resume=True, warn=pytest.fail) as record:
        recorder, study_trials = recording(experiment, record)
        for expected in (5, 6):
            number, sampled = study_trials.ask()
            assert number == expected
            recorder.start(number, sampled, experiment.resolve(sampled))
            recorder.running[number].row |= cast(TrialRow, {"later": 0.5})
            for epoch in range(1, EPOCHS + 1):
                row = row_of(5, epoch) | {"later": epoch, "later_by_layer": {"bn3": 0.25}}
                recorder.decide(number, row)
                recorder.report(number, {"row": row, "replayed": False, "device": "cpu", "peak_memory_gib": 0.5})
            recorder.end(number)
        assert recorder.close("interrupted")
    judged(study, "small-00005", "rrrr", key="later")
    for name, (key, _) in TABLES.items():
        parts = names_in_parts(study, name)
        assert all(names == parts[0] for names in parts)
        rows = {tuple(row[each] for each in key): row for row in reader.read(study, name).to_pylist()}
        old = [
            row for row in before[name] if row["trial_id" if "trial_id" in row else "evaluation_id"] != "small-00005"
        ]
        assert without_later([rows[tuple(row[each] for each in key)] for row in old]) == old
        assert all(rows[tuple(row[each] for each in key)]["later"] is None for row in old)
    assert reader.read(study, "trials", ["later"])["later"].to_pylist()[-2:] == [0.5, 0.5]
    assert reader.read(study, "epochs")["later_by_layer"].to_pylist()[-1] == [("bn3", 0.25)]


@pytest.mark.usefixtures("added")
def test_pandas_polars_and_duckdb_see_one_schema_once_it_was_opened(study: Path, make: Make) -> None:
    opened(make(**CHANGES), study)
    judged(study, "small-00005", "rrrr", key="later")
    for name in TABLES:
        assert len(reader.part_files(study / name)) > 1
        rows, columns = reader.read(study, name).num_rows, reader.schema(study, name).names
        glob = f"{study / name}/part-*.parquet"
        for frame in (pd.read_parquet(study / name), pl.read_parquet(glob), duckdb.read_parquet(glob).df()):
            assert list(frame.columns) == columns
            assert len(frame) == rows


@pytest.mark.usefixtures("added")
def test_a_kill_between_two_parts_leaves_a_table_that_is_read_and_gone_on_with(
    study: Path, make: Make, before: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = parts.write_part, list[Path]()

    def killed_at_the_second(path: Path, content: pa.Table) -> None:
        if written:
            raise KeyboardInterrupt
        written.append(path)
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(table_folder, "write_part", killed_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            opened(make(**CHANGES), study)
    assert len({tuple(names) for names in names_in_parts(study, "epochs")}) == 2
    for version in ("of today", "of before"):
        with monkeypatch.context() as patch:
            if version == "of before":
                patch.setitem(
                    TABLES, "epochs", TableType(TABLES["epochs"].key, pa.schema([pa.field("epoch", pa.int64())]))
                )
            rows = reader.read(study, "epochs").to_pylist()
        assert without_later(rows) == before["epochs"]
        assert {row["later"] for row in rows} == {None}
    opened(make(**CHANGES), study)
    assert len({tuple(names) for names in names_in_parts(study, "epochs")}) == 1
    assert without_later(reader.read(study, "epochs").to_pylist()) == before["epochs"]


@pytest.mark.usefixtures("added")
def test_a_study_of_before_is_rebuilt_and_its_rows_are_as_they_were(study: Path, before: dict[str, Any]) -> None:
    for name in TABLES:
        part = reader.part_files(study / name)[0]
        part.write_bytes(part.read_bytes()[:-100])
    call("results", "rebuild", study)
    for name, (key, _) in TABLES.items():
        rows = {tuple(row[each] for each in key): row for row in reader.read(study, name).to_pylist()}
        assert without_later([rows[tuple(row[each] for each in key)] for row in before[name]]) == before[name]
        assert len(rows) == len(before[name])
        assert all("later" in names for names in names_in_parts(study, name))


@pytest.mark.usefixtures("added")
def test_rebuilding_leaves_a_whole_study_of_before_as_it_is(study: Path) -> None:
    assert "trials: 7 rows; as it was" in call("results", "rebuild", study)


def test_what_opening_wrote_again_goes_up_and_comes_down_on_another_machine(
    study: Path, make: Make, before: dict[str, Any], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARAT_CACHE", str(study.parent / "node"))
    mirror = Mirror(mirror_of(parse(f"file://{study.parent}/bucket/small")))
    shutil.copytree(study, mirror.folder)
    mirror.push()
    request.getfixturevalue("added")
    opened(make(**CHANGES), mirror.folder)
    mirror.push()
    shutil.rmtree(root())
    mirror.pull([f"{name}/" for name in TABLES])
    for name in ("trials", "epochs", "decisions"):
        assert all("later" in names for names in names_in_parts(mirror.folder, name))
    for name in TABLES:
        assert without_later(reader.read(mirror.folder, name).to_pylist()) == before[name]


@pytest.mark.usefixtures("added")
def test_the_front_of_a_study_of_before_and_one_of_today_is_one(study: Path, make: Make, tmp_path: Path) -> None:
    today = tmp_path / "today"
    shutil.copytree(study, today)
    opened(make(**CHANGES), today)
    fronts = [json.loads(call("pareto", *studies, "--json")) for studies in ((study,), (today,), (study, today))]
    points = [[(trial["clean_accuracy"], trial["robust_accuracy"]) for trial in front["trials"]] for front in fronts]
    assert points[0] == points[1]
    assert set(points[2]) == set(points[0])


@pytest.mark.parametrize(
    "lacking",
    [
        {
            "trials": (
                "feasible",
                "broken_constraints",
                "stop_reason",
                "device_s",
                "cost_usd",
                "peak_memory_gib",
                "device",
            )
        },
        {"epochs": ("validation_images", "gradient_cosine_by_layer", "diagnostics_s", "images_per_s")},
        {
            "decisions": ("why", "decided_at"),
            "evaluations": ("warnings", "wall_s", "dial", "epoch"),
            "examples": ("margin",),
        },
    ],
)
def test_columns_that_were_added_in_the_past_may_be_missing(study: Path, make: Make, lacking: dict[str, Any]) -> None:
    for name, columns in lacking.items():
        for part in reader.part_files(study / name):
            parts.write_part(part, pq.ParquetFile(part).read().drop_columns(list(columns)))
    call("pareto", study)
    call("results", "trials", study)
    call("pareto", study, "--infeasible")
    call("results", "show", study)
    call("results", "why", study, "4")
    opened(make(**CHANGES), study)
    for name, columns in lacking.items():
        for column in columns:
            assert set(reader.read(study, name)[column].to_pylist()) == {None}


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("epochs", lambda fields: [*fields, pa.field("tomorrow", pa.int64())], "'tomorrow'.* a newer one wrote it"),
        (
            "epochs",
            lambda fields: [field.with_type(pa.int64()) if field.name == "balance" else field for field in fields],
            "'balance' is int64 there and double here; what another version of arat-ray wrote needs another folder",
        ),
        ("trials", lambda fields: [field for field in fields if field.name != "param_method.layers"], "search space"),
        (
            "trials",
            lambda fields: [*fields, pa.field("param_other", pa.string())],
            "'param_other' is string there and missing",
        ),
        ("trials", lambda fields: [field for field in fields if field.name != "attempt"], "'attempt' is missing there"),
    ],
)
def test_columns_that_were_not_added_but_are_others_are_refused_and_nothing_is_written(
    study: Path, make: Make, name: str, change: Callable[[list[pa.Field]], list[pa.Field]], message: str
) -> None:
    part = reader.part_files(study / name)[-1]
    schema = pa.schema(change(list(pq.read_schema(part))))
    parts.write_part(part, schema.with_metadata(pq.read_schema(part).metadata).empty_table())
    files = {path: path.read_bytes() for path in (study / name).iterdir()}
    with pytest.raises(ValueError, match=message):
        opened(make(**CHANGES), study)
    assert {path: path.read_bytes() for path in (study / name).iterdir()} == files
