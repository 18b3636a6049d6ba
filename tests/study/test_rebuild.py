"""Tables that were damaged, made again from what else a study's folder holds."""

from __future__ import annotations

import fcntl
import io
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner
from rich.console import Console

from arat_ray.cli import main
from arat_ray.experiment.spec import Experiment
from arat_ray.results import log, reader
from arat_ray.results.schema import TABLES
from arat_ray.study import folder as study_folder
from arat_ray.study.progress import Progress
from arat_ray.study.recorder import Recorder
from arat_ray.study.recover import NOT_KNOWN
from arat_ray.study.trials import StudyTrials
from arat_ray.study.writer import StudyWriter
from arat_ray.training import checkpoint
from arat_ray.training.checkpoint import Checkpoint
from tests.frontier.tables import judged
from tests.study.conftest import EXPERIMENT

Make = Callable[..., Experiment]
Rows = dict[tuple[Any, ...], dict[str, Any]]
EPOCHS = 4
CHANGES: dict[str, Any] = {
    "train": EXPERIMENT["train"] | {"epochs": EPOCHS},
    "early_stopping": {"name": "pareto_asha", "min_epochs": 2, "reduction_factor": 2},
    "constraints": {"robust_accuracy": {"min": 0.2}},
    "resources": {"price": {"usd_per_device_hour": 2}},
    "budget": {"trials": 6},
}
ENDS = {0: (0.9, 0.1), 1: (0.92, 0.5), 2: None, 3: (0.95, 0.55), 4: (0.5, 0.2), 5: (0.97, 0.3)}
"""Goals after the last epoch: trial 0 breaks its constraint, 2 fails, 3 loses a worker, 4 is stopped, 5 interrupted."""


def row_of(number: int, epoch: int) -> Any:
    clean, robust = ENDS[number] or (0.0, 0.0)
    measured = {"validation_clean_accuracy": clean, "validation_robust_accuracy": robust, "validation_images": 1000}
    layers = {"gradient_cosine_by_layer": {"bn3": 0.1 * epoch}}
    return {"epoch": epoch, "loss_clean": 1 / epoch, "epoch_s": 1.0, **layers, **(measured if epoch % 2 == 0 else {})}


def run(recorder: Recorder, study_trials: StudyTrials, experiment: Experiment, study: Path) -> None:
    """Six trials as they would run one after another, with checkpoints of no weights."""
    for _ in range(6):
        number, sampled = study_trials.ask()
        train = experiment.resolve(sampled)
        recorder.start(number, sampled, train)
        if ENDS[number] is None:
            recorder.end(number, "the loss became nan")
            continue
        for epoch in range(1, EPOCHS + 1):
            row = row_of(number, epoch)
            stop = recorder.decide(number, row)
            recorder.report(number, {"row": row, "replayed": False, "device": "cpu", "peak_memory_gib": 0.5})
            if epoch % 2 == 0:
                save(study, experiment, recorder.running[number].row["trial_id"], train.model_dump(mode="json"), epoch)
            if number == 3 and epoch == 2:
                recorder.retry(number, "node lost")
            if (stop and not stop.goes_on) or (number == 5 and epoch == 3):
                break
        if number != 5:
            recorder.end(number)
    assert recorder.close("interrupted")


def save(study: Path, experiment: Experiment, name: str, train: dict[str, Any], epoch: int) -> None:
    empty: dict[str, torch.Tensor] = {}
    history = [row_of(int(name[-5:]), each) for each in range(1, epoch + 1)]
    state = Checkpoint(train, experiment.validation.model_dump(mode="json"), "", epoch, empty, {}, None, empty, history)
    checkpoint.save(state, study / "checkpoints" / name / checkpoint.LAST)


@pytest.fixture
def study(make: Make, tmp_path: Path) -> Path:
    experiment, source, folder = make(**CHANGES), tmp_path / "small.yaml", tmp_path / "small"
    source.write_text(yaml.safe_dump(EXPERIMENT | CHANGES))
    with study_folder.claim(folder, experiment, source, kind="tune", resume=False):
        params, described = study_folder.param_types(experiment), study_folder.metadata(experiment)
        writer = StudyWriter(folder, params=params, metadata=described, warn=pytest.fail, decisions=True)
        study_trials = StudyTrials(folder, experiment)
        progress = Progress(Console(file=io.StringIO()), goals=experiment.maximize, total=6, ended=0, epochs=EPOCHS)
        run(Recorder(folder, experiment, writer, study_trials, progress), study_trials, experiment, folder)
    return folder


def rows(study: Path, name: str) -> Rows:
    return {tuple(row[key] for key in TABLES[name].key): row for row in reader.read(study, name).to_pylist()}


def whole(study: Path) -> dict[str, Any]:
    return {name: reader.read(study, name) for name in TABLES if reader.part_files(study / name)}


def truncate(study: Path, *names: str) -> None:
    for name in names:
        part = study / name / "part-00000.parquet"
        part.write_bytes(part.read_bytes()[:-100])


def call(*words: str | Path, code: int = 0) -> str:
    result = CliRunner().invoke(main, list(map(str, words)))
    assert result.exit_code == code, result.output
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def test_a_whole_study_is_left_as_it_is(study: Path) -> None:
    before = {path: path.stat().st_ino for path in study.rglob("*.parquet")}
    assert "trials: 7 rows; as it was" in call("results", "rebuild", study)
    assert {path: path.stat().st_ino for path in study.rglob("*.parquet")} == before


@pytest.mark.parametrize("damage", ["truncated", "deleted"])
def test_from_the_log_every_row_comes_back_as_it_was(study: Path, damage: str) -> None:
    judged(study, "small-00000", "rrc")
    evaluations = (reader.read(study, name).to_pylist() for name in ("evaluations", "examples"))
    log.log_evaluation(study, *evaluations)
    before = whole(study)
    assert list(before) == list(TABLES)
    if damage == "truncated":
        truncate(study, *TABLES)
    else:
        for name in TABLES:
            shutil.rmtree(study / name)
    assert f"arat-ray results rebuild {study}" in call("pareto", study, code=2)
    said = call("results", "rebuild", study)
    assert "trials: 7 rows; damaged or missing: part-00000.parquet; 7 of them not in what could be read" in said
    for name, table in whole(study).items():
        assert table.equals(before[name], check_metadata=True), name
    kept = list(study.glob("*.before-rebuild-*"))
    assert len(kept) == (len(TABLES) if damage == "truncated" else 0)
    assert {path.name.split(".")[0] for path in kept} <= set(TABLES)


def test_without_the_log_checkpoints_and_journal_say_all_but_what_is_documented(study: Path) -> None:
    before = {name: rows(study, name) for name in ("trials", "epochs")}
    (study / "journal/rows-00000.jsonl").unlink()
    truncate(study, "trials", "epochs", "decisions")
    said = call("results", "rebuild", study)
    assert f"without {', '.join(NOT_KNOWN)}, which the log alone knows: small-00000" in said
    assert "in no source: small-00004: why it was stopped\n" in said
    assert {row["status"] for row in before["trials"].values()} == {"complete", "failed", "pruned", "stopped"}
    assert before["trials"]["small-00000", 1]["broken_constraints"] == "robust_accuracy 0.1 is below 0.2"
    after = {name: rows(study, name) for name in ("trials", "epochs")}
    # which attempt an epoch belonged to is not known either, and the third epoch of trial 5 came after its checkpoint
    found = {(name, epoch): row for (name, _, epoch), row in after["epochs"].items()}
    expected = {(name, epoch): row for (name, _, epoch), row in before["epochs"].items()}
    del expected["small-00005", 3]
    assert found.keys() == expected.keys()
    assert all(found[key] | {"attempt": 0} == expected[key] | {"attempt": 0} for key in found)
    last = {name: row for (name, _), row in before["trials"].items()}
    assert {name for name, _ in after["trials"]} == set(last)
    for (name, _), row in after["trials"].items():
        unknown = {*NOT_KNOWN, "attempt", "started_at", "ended_at"}
        unknown |= {"epochs_done"} if name == "small-00005" else set()
        assert {key: value for key, value in row.items() if key not in unknown} == {
            key: value for key, value in last[name].items() if key not in unknown
        }
        assert abs((row["started_at"] - last[name]["started_at"]).total_seconds()) < 60
        assert all(row[column] is None for column in NOT_KNOWN)


def test_rows_that_only_a_readable_part_has_are_kept_and_a_change_in_the_log_is_taken(study: Path) -> None:
    before = whole(study)
    path = study / "journal/rows-00000.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[: len(lines) // 2]))
    truncate(study, "epochs")
    said = call("results", "rebuild", study)
    assert "trials: 7 rows; as it was" in said
    assert "from checkpoints: small-0000" in said
    assert "in no source: small-00005: 1 of 3 epochs, the first is 3" in said
    assert reader.read(study, "trials").equals(before["trials"])
    after = rows(study, "epochs")
    expected = {tuple(row[key] for key in TABLES["epochs"].key): row for row in before["epochs"].to_pylist()}
    assert expected.keys() - after.keys() == {("small-00005", 1, 3)}
    assert all(after[key] == expected[key] for key in after)
    path.write_text("".join(lines).replace("the loss became nan", "the loss became infinite"))
    assert "error changed in 1;" in call("results", "rebuild", study)


def test_a_deleted_part_in_between_is_told_and_made_again(study: Path) -> None:
    before = reader.read(study, "epochs")
    for number in range(3):  # as parts of eight rows would lie
        import pyarrow.parquet as pq

        pq.write_table(before.slice(8 * number, 8), study / f"epochs/part-{number:05d}.parquet")
    (study / "epochs/part-00001.parquet").unlink()
    message = f"{study}/epochs/part-00001.parquet is missing; make it again with: arat-ray results rebuild {study}"
    with pytest.raises(ValueError, match=re.escape(message)):
        reader.read(study, "epochs")
    assert "damaged or missing: part-00001.parquet" in call("results", "rebuild", study)
    assert reader.read(study, "epochs").equals(before)


def test_it_is_refused_while_somebody_writes_and_where_there_is_no_study(study: Path, tmp_path: Path) -> None:
    with (study / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "is being written to by another process" in call("results", "rebuild", study, code=2)
    assert "there is no study.yaml in it" in call("results", "rebuild", tmp_path, code=2)


def test_a_rebuild_that_was_killed_between_its_two_renames_is_taken_up(study: Path) -> None:
    before = reader.read(study, "epochs")
    shutil.rmtree(study / "journal")
    shutil.rmtree(study / "checkpoints")
    (study / "epochs").rename(study / "epochs.before-rebuild-20261122-000000.000000")
    call("results", "rebuild", study)
    assert reader.read(study, "epochs").equals(before)


def test_a_study_whose_table_is_gone_is_not_begun_anew(make: Make, study: Path) -> None:
    experiment = make(**CHANGES)
    shutil.rmtree(study / "epochs")
    params, described = study_folder.param_types(experiment), study_folder.metadata(experiment)
    with pytest.raises(ValueError, match=re.escape("lost its table 'epochs'; make it again with: arat-ray results")):
        StudyWriter(study, params=params, metadata=described, warn=pytest.fail, decisions=True)
