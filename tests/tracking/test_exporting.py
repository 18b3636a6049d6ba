"""Studies brought to TensorBoard, MLflow, Weights & Biases and CSV, read back with their own readers."""

from __future__ import annotations

import json
import shutil
import struct
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas
import pytest
from click.testing import CliRunner

from arat_ray import locks
from arat_ray.cli import main
from arat_ray.results import reader
from arat_ray.tracking import runs
from arat_ray.tracking.exporting import AT_LEAST_S, Exporter, follow
from arat_ray.tracking.runs import Export, Run
from arat_ray.tracking.tools import TOOLS
from tests.frontier.tables import add, judged
from tests.report.reports import HOSTILE, TRIALS, grow, write
from tests.test_foreign_text import is_harmless

NAMES = [f"small-{number:05d}" for number in range(len(TRIALS))]
CONFIG = {"train.epochs": 3, "train.label": HOSTILE, "train.method.layers": '["last"]'}


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A trial of each kind; the first one was evaluated, too."""
    made = write(tmp_path, *TRIALS, started_at=["2026-11-28T10:00:00+00:00"])
    judged(made, NAMES[0], "rrcx")
    return made


def run_of(export: Export, name: str) -> Run:
    return next(run for run in export.runs if run.name == name)


def test_a_run_has_what_the_tables_say_of_its_trial(study: Path) -> None:
    export, _ = runs.read(study)
    first, pruned, failed, running = (run_of(export, NAMES[i]) for i in (0, 3, 4, 6))
    assert (first.knobs, first.config) == ({"method.layers": "last", "method.weight": 1.0}, CONFIG)
    assert [point.step for point in first.epochs] == [1, 2, 3]
    assert first.epochs[1].values["validation_clean_accuracy"] == 0.5
    assert first.result
    assert first.result.values == {"goals/clean_accuracy": 0.9, "goals/robust_accuracy": 0.4}
    found = {name: value for point in first.evaluations for name, value in point.values.items()}
    assert found == {"evaluations/test-4/last/clean": 0.75, "evaluations/test-4/last/autoattack-linf-8_255": 0.5}
    assert first.ended == datetime(2026, 11, 28, 10, 0, tzinfo=UTC).timestamp() == first.started + 60
    assert pruned.facts["stop_reason"] == "pareto_asha: beaten"
    assert pruned.result
    assert failed.result is None
    assert failed.facts["error"].startswith("the loss became nan")
    assert running.ended is None
    assert running.result is None


def test_an_epoch_has_the_time_of_its_training_since_its_attempt_began(tmp_path: Path) -> None:
    study = write(tmp_path, {"status": "running", "ended_at": None}, epochs=0)
    begun = datetime(2026, 11, 28, 9, 59, tzinfo=UTC).timestamp()
    rows = [{"epoch": epoch, "epoch_s": 10.0, "diagnostics_s": 2.5 if epoch == 2 else None} for epoch in (1, 2, 3)]
    add(study, "epochs", *({"trial_id": NAMES[0], "attempt": 1, **row} for row in rows))
    (run,) = runs.read(study)[0].runs
    assert [point.time - begun for point in run.epochs] == [10.0, 22.5, 32.5]


def test_what_is_seen_is_not_read_again_unless_it_has_changed(study: Path) -> None:
    _, seen = runs.read(study)
    assert [run.name for run in runs.read(study, seen)[0].runs] == [NAMES[6]]  # it runs
    judged(study, NAMES[1], "rrrr", checkpoint_sha256="of another")
    assert [run.name for run in runs.read(study, seen)[0].runs] == [NAMES[1], NAMES[6]]


def test_runs_keep_their_ids_when_the_study_is_moved_and_differ_between_studies(study: Path, tmp_path: Path) -> None:
    here = {run.id for run in runs.read(study)[0].runs}
    moved = {run.id for run in runs.read(shutil.copytree(study, tmp_path / "moved" / "small"))[0].runs}
    other = write(tmp_path / "other", *TRIALS, started_at=["2026-11-29T10:00:00+00:00"])
    assert here == moved
    assert not here & {run.id for run in runs.read(other)[0].runs}


@pytest.mark.parametrize("to", TOOLS)
def test_a_tool_that_is_not_installed_is_told_with_its_command(
    to: str, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    if to == "csv":
        assert Exporter(study, to, study.parent / "out")().is_dir()
        return
    with pytest.raises(ValueError, match=rf"^--to {to} needs .*: pip install 'arat-ray\[\w+\]'$"):
        Exporter(study, to)


def test_the_command_says_how_to_look_at_it_and_refuses_what_it_cannot_do(study: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    words = ["results", "export", str(study), "--to", "csv", "--output", str(output)]
    done = CliRunner().invoke(main, words)
    assert (done.exit_code, done.output) == (0, f"look at it with: ls {output}/small\n")
    shutil.rmtree(study)
    write(tmp_path, TRIALS[0], started_at=["2026-12-01T10:00:00+00:00"])
    again = CliRunner().invoke(main, words)
    assert again.exit_code == 2
    assert "holds another study that is called small; choose another folder" in again.output
    assert CliRunner().invoke(main, [*words[:2], str(tmp_path / "none"), *words[3:]]).exit_code == 2
    itself = CliRunner().invoke(main, [*words[:-1], str(tmp_path)])
    assert itself.exit_code == 2
    assert "this is where the study itself is" in itself.output
    (tmp_path / "file").touch()
    blocked = CliRunner().invoke(main, [*words[:-1], str(tmp_path / "file")])
    assert blocked.exit_code == 2
    assert "a file is where a folder should be" in blocked.output


def test_two_do_not_write_one_place_at_once(study: Path, tmp_path: Path) -> None:
    exporter = Exporter(study, "csv", tmp_path / "out")
    exporter()
    with locks.held(tmp_path / "out" / ".small.lock"), pytest.raises(ValueError, match="written to by another process"):
        exporter()


# CSV


def test_csv_opens_in_pandas_with_the_values_of_the_tables(study: Path, tmp_path: Path) -> None:
    third = {
        "trial_id": NAMES[0],
        "attempt": 1,
        "epoch": 4,
        "loss_clean": 1 / 3,
        "gradient_cosine_by_layer": {"a": 0.1},
    }
    add(study, "epochs", third)
    folder = Exporter(study, "csv", tmp_path / "out")()
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        f"{name}.csv" for name in ("trials", "epochs", "decisions", "evaluations", "examples")
    )
    for path in folder.iterdir():
        table = reader.read(study, path.stem)
        frame = pandas.read_csv(path, keep_default_na=False, na_values=[""])
        assert list(frame.columns) == table.column_names
        for name in frame.columns:
            for wanted, there in zip(table[name].to_pylist(), frame[name].tolist(), strict=True):
                if wanted is None:
                    assert pandas.isna(there), name
                elif isinstance(wanted, datetime):
                    assert datetime.fromisoformat(there) == wanted
                elif isinstance(wanted, list):
                    assert json.loads(there) == (dict(wanted) if wanted and isinstance(wanted[0], tuple) else wanted)
                else:
                    assert there == wanted, name  # floats: the same bits


# TensorBoard


def events(folder: Path) -> Any:
    accumulators = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
    )
    return accumulators.EventAccumulator(str(folder), size_guidance={accumulators.SCALARS: 0}).Reload()


def hparams(folder: Path) -> dict[str, Any]:
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    content = events(folder).PluginTagToContent("hparams")
    return {tag.rpartition("/")[2]: HParamsPluginData.FromString(data) for tag, data in content.items()}


def test_tensorboard_has_the_curves_the_knobs_and_how_each_trial_ended(study: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    folder = Exporter(study, "tensorboard", tmp_path / "out")()
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == NAMES
    scalars = events(folder / NAMES[1]).Scalars("validation_clean_accuracy")
    started = datetime(2026, 11, 28, 10, 0, tzinfo=UTC).timestamp()
    assert [(event.step, event.value, event.wall_time) for event in scalars] == [
        (step, 0.25 * step, started) for step in (1, 2, 3)
    ]
    (goal,) = events(folder / NAMES[0]).Scalars("goals/clean_accuracy")
    assert (goal.step, goal.value) == (3, pytest.approx(0.9))
    statuses = {}
    for name in NAMES:
        found = hparams(folder / name)
        sampled = found["session_start_info"].session_start_info.hparams
        number = int(name[-1])
        assert sampled["method.weight"].number_value == 10.0**number
        assert sampled["method.layers"].string_value == (HOSTILE if number % 2 else "last")
        if "session_end_info" in found:
            statuses[number] = found["session_end_info"].session_end_info.status
    assert statuses == {0: 1, 1: 1, 2: 1, 3: 0, 4: 2, 5: 1}  # success, unknown, failure; the last one runs
    experiment = hparams(folder)["experiment"].experiment
    assert [info.name for info in experiment.hparam_infos] == ["method.layers", "method.weight"]
    assert [info.name.tag for info in experiment.metric_infos] == ["goals/clean_accuracy", "goals/robust_accuracy"]


def test_tensorboard_gets_what_is_new_and_nothing_twice(study: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    folder = Exporter(study, "tensorboard", tmp_path / "out")()
    files = {path: path.read_bytes() for path in folder.rglob("events*")}
    Exporter(study, "tensorboard", tmp_path / "out")()
    assert {path: path.read_bytes() for path in folder.rglob("events*")} == files
    cut = next((folder / NAMES[0]).iterdir())
    cut.write_bytes(files[cut][:-7])  # killed while it wrote
    grow(study, *TRIALS[:-1], {**TRIALS[-1], "status": "complete"}, TRIALS[0])
    (study / "study.json").write_text(json.dumps({"started_at": ["2026-11-28T10:00:00+00:00"]}))
    Exporter(study, "tensorboard", tmp_path / "out")()
    now = {path: path.read_bytes() for path in folder.rglob("events*")}
    assert now[cut] == files[cut]
    assert set(now) - set(files) == {next((folder / "small-00007").iterdir())}
    ended = next((folder / NAMES[6]).iterdir())
    assert now[ended].startswith(files[ended])
    assert len(now[ended]) > len(files[ended])


def test_tensorboard_shows_an_epoch_that_was_measured_again_once(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    study = write(tmp_path, {**TRIALS[0], "attempt": 2})
    rows = [{"epoch": epoch, "validation_clean_accuracy": 0.5, "validation_images": 10} for epoch in (2, 3)]
    add(study, "epochs", *({"trial_id": NAMES[0], "attempt": 2, **row} for row in rows))
    folder = Exporter(study, "tensorboard", tmp_path / "out")()
    scalars = events(folder / NAMES[0]).Scalars("validation_clean_accuracy")
    assert [(event.step, event.value) for event in scalars] == [(1, 0.25), (2, 0.5), (3, 0.5)]


# MLflow


def test_mlflow_has_each_trial_once_however_often_it_is_written(study: Path, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    database = Exporter(study, "mlflow", tmp_path / "out")()
    client = mlflow.MlflowClient(f"sqlite:///{database}")
    experiment = client.get_experiment_by_name("small").experiment_id
    before = {run.info.run_name: run for run in client.search_runs([experiment])}
    assert sorted(before) == NAMES
    states = {name: run.info.status for name, run in before.items()}
    assert list(dict(sorted(states.items())).values()) == [*["FINISHED"] * 3, "KILLED", "FAILED", "FINISHED", "RUNNING"]
    first = before[NAMES[0]]
    assert first.data.params == {"method.layers": "last", "method.weight": "1.0"} | {
        name: str(value) for name, value in CONFIG.items()
    }
    assert first.data.metrics["evaluations/test-4/last/autoattack-linf-8_255"] == 0.5
    assert before[NAMES[4]].data.tags["arat_ray.error"] == f"the loss became nan {HOSTILE}"
    client.set_tag(first.info.run_id, "arat_ray.points", "0")  # killed before it was put down
    grow(study, *TRIALS[:-1], {**TRIALS[-1], "status": "complete"}, TRIALS[0])
    (study / "study.json").write_text(json.dumps({"started_at": ["2026-11-28T10:00:00+00:00"]}))
    Exporter(study, "mlflow", tmp_path / "out")()
    after = {run.info.run_name: run for run in client.search_runs([experiment])}
    assert sorted(after) == [*NAMES, "small-00007"]
    assert {name: after[name].info.run_id for name in NAMES} == {name: before[name].info.run_id for name in NAMES}
    assert after[NAMES[6]].info.status == "FINISHED"
    for name in ("validation_clean_accuracy", "goals/clean_accuracy"):
        history = client.get_metric_history(first.info.run_id, name)
        wanted = [(1, 0.25), (2, 0.5), (3, 0.75)] if name.startswith("validation") else [(3, 0.9)]
        assert [(metric.step, metric.value) for metric in history] == wanted


# Weights & Biases


def records(file: Path) -> Iterator[Any]:
    """A run as wandb's own library wrote it: blocks of LevelDB's log, of protobufs."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, whole = file.read_bytes(), 7, b""
    assert content[:4] == b":W&B"
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        crc, size, kind = struct.unpack_from("<IHB", content, place)
        data = content[place + 7 : place + 7 + size]
        assert zlib.crc32(bytes([kind]) + data) == crc
        whole, place = whole + data, place + 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(whole)
            whole = b""


def history(folder: Path) -> list[dict[str, Any]]:
    (file,) = folder.glob("run-*.wandb")
    rows = [record.history.item for record in records(file) if record.WhichOneof("record_type") == "history"]
    return [{item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in row} for row in rows]


def test_wandb_has_each_trial_once_however_often_it_is_written(study: Path, tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    folder = Exporter(study, "wandb-offline", tmp_path / "out")()
    ids = {run.name: run.id for run in runs.read(study)[0].runs}

    def there() -> dict[str, Path]:
        return {path.name.rpartition("-")[2]: path for path in folder.glob("offline-run-*")}

    before = there()
    assert sorted(before) == sorted(ids.values())
    first = before[ids[NAMES[0]]]
    rows = history(first)
    assert [(row["_step"], row["validation_clean_accuracy"]) for row in rows] == [(1, 0.25), (2, 0.5), (3, 0.75)]
    started = datetime(2026, 11, 28, 9, 59, tzinfo=UTC).timestamp()
    assert [row["_timestamp"] for row in rows[:2]] == [started, started]
    assert (rows[-1]["goals/clean_accuracy"], rows[-1]["evaluations/test-4/last/clean"]) == (0.9, 0.75)
    exits = {}
    for name, run in ids.items():
        (file,) = before[run].glob("run-*.wandb")
        kinds = {record.WhichOneof("record_type"): record for record in records(file)}
        exits[name] = kinds["exit"].exit.exit_code
        assert kinds["run"].run.project == "small"
        assert kinds["run"].run.display_name == name
    assert exits == {name: int(name == NAMES[4]) for name in NAMES}
    grow(study, *TRIALS[:-1], {**TRIALS[-1], "status": "complete"}, TRIALS[0])
    (study / "study.json").write_text(json.dumps({"started_at": ["2026-11-28T10:00:00+00:00"]}))
    Exporter(study, "wandb-offline", tmp_path / "out")()
    after = there()
    assert len(after) == len(before) + 1
    changed = {run for run, path in before.items() if after[run] != path}
    assert changed == {ids[NAMES[6]]}


def test_text_that_is_not_ours_is_only_text(tmp_path: Path) -> None:
    row = {**TRIALS[4], "error": "\x1b[2J\x1b]0;owned\x07\r=cmd|'!A0", "param_method.layers": "\u202egnp.exe\n\x9b"}
    study = write(tmp_path, row)
    (run,) = runs.read(study)[0].runs
    assert is_harmless("".join(map(str, [*run.knobs.values(), *run.facts.values()])))
    folder = Exporter(study, "csv", tmp_path / "out")()
    assert is_harmless((folder / "trials.csv").read_text())


@pytest.mark.parametrize("name", ["../owned", "a/../../b", ".."])
def test_a_trial_that_is_called_as_a_path_is_written_nowhere_else(name: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    study = write(tmp_path, {**TRIALS[0], "trial_id": name})
    with pytest.raises(ValueError, match="is no name of a file"):
        Exporter(study, "tensorboard", tmp_path / "out")()


def test_an_export_that_follows_adds_what_is_new_and_outlasts_what_fails(study: Path, tmp_path: Path) -> None:
    exporter = Exporter(study, "csv", tmp_path / "out")
    file, mark = exporter() / "trials.csv", tmp_path / "out" / ".small.id"
    mine, counts, told = mark.read_bytes(), [len(pandas.read_csv(file))], list[str]()

    def wait(seconds: float) -> None:
        assert seconds >= AT_LEAST_S
        counts.append(len(pandas.read_csv(file)))
        if len(counts) == 3:
            grow(study, *TRIALS, TRIALS[0])
            (study / "study.json").write_text(json.dumps({"started_at": ["2026-11-28T10:00:00+00:00"]}))
        mark.write_bytes(mine if len(counts) > 4 else b"another")
        if len(counts) == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        follow(exporter, log=told.append, wait=wait)
    assert counts == [7, 7, 7, 7, 7, 8]
    assert len(told) == 1
    assert told[0].endswith("it holds another study that is called small; choose another folder; it is tried again")


def test_following_goes_on_until_ctrl_c(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "out" / "small" / "trials.csv"

    def wait(seconds: float) -> None:
        if len(pandas.read_csv(file)) > len(TRIALS):
            raise KeyboardInterrupt
        grow(study, *TRIALS, TRIALS[0])
        (study / "study.json").write_text(json.dumps({"started_at": ["2026-11-28T10:00:00+00:00"]}))

    monkeypatch.setattr("time.sleep", wait)
    arguments = ["results", "export", str(study), "--to", "csv", "--output", str(tmp_path / "out"), "--follow"]
    done = CliRunner().invoke(main, arguments)
    assert "it follows the study; Ctrl-C ends it" in done.output
    assert done.exit_code != 0
    assert len(pandas.read_csv(file)) == len(TRIALS) + 1
