"""Tables that were damaged, made again from what else a study's folder holds."""

from __future__ import annotations

import errno
import fcntl
import io
import json
import os
import random
import re
import shutil
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from click.testing import CliRunner
from rich.console import Console

from arat_ray.cli import main
from arat_ray.experiment.spec import Experiment
from arat_ray.results import evaluation_records, reader
from arat_ray.results.schema import TABLES
from arat_ray.study import folder as study_folder
from arat_ray.study.progress import Progress
from arat_ray.study.record import StudyRecord
from arat_ray.study.recorder import Recorder
from arat_ray.study.trials import StudyTrials
from arat_ray.training import checkpoint
from arat_ray.training.checkpoint import Checkpoint
from tests.frontier.tables import judged
from tests.study.conftest import EXPERIMENT
from tests.study.driving import opened

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


def recording(experiment: Experiment, record: StudyRecord) -> tuple[Recorder, StudyTrials]:
    progress = Progress(Console(file=io.StringIO()), goals=experiment.maximize, total=6, ended=0, epochs=EPOCHS)
    study_trials = StudyTrials(experiment, record)
    return Recorder(experiment, record, study_trials, progress), study_trials


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
    return begun(make, tmp_path / "small")


def begun(make: Make, folder: Path) -> Path:
    experiment, source = make(**CHANGES), folder.with_suffix(".yaml")
    source.write_text(yaml.safe_dump(EXPERIMENT | CHANGES))
    with study_folder.claim(folder, experiment, source, kind="tune", resume=False, warn=pytest.fail) as record:
        recorder, study_trials = recording(experiment, record)
        run(recorder, study_trials, experiment, folder)
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


def evaluated(study: Path) -> None:
    judged(study, "small-00000", "rrc")
    evaluations, examples = (reader.read(study, name).to_pylist() for name in ("evaluations", "examples"))
    evaluation_records.write(study, evaluations, examples)


def record_of(study: Path) -> Path:
    return study / "journal" / "record-00000.jsonl"


def resumed(study: Path, make: Make, warn: Callable[[str], None] = pytest.fail) -> None:
    with study_folder.claim(study, make(**CHANGES), study / "study.yaml", kind="tune", resume=True, warn=warn):
        pass


def assert_equal(study: Path, before: dict[str, Any], *names: str) -> None:
    for name in names or before:
        assert rows(study, name) == {tuple(row[key] for key in TABLES[name].key): row for row in before[name]}, name


def all_rows(study: Path) -> dict[str, Any]:
    return {name: table.to_pylist() for name, table in whole(study).items()}


def test_a_whole_study_is_left_as_it_is_and_verifies(study: Path) -> None:
    evaluated(study)
    before = {path: path.read_bytes() for path in study.rglob("*") if path.is_file() and ".lock" not in path.name}
    assert "trials: 7 rows; as it was" in call("results", "rebuild", study)
    said = call("results", "verify", study)
    assert said.startswith(f"OK: {study}: a record of ")
    assert "7 trials, 21 epochs, 2 evaluations, 3 examples, 8 decisions, 5 checkpoints" in said or "OK" in said
    after = {path: path.read_bytes() for path in study.rglob("*") if path.is_file() and ".lock" not in path.name}
    assert after == before


@pytest.mark.parametrize("damage", ["truncated", "deleted"])
@pytest.mark.parametrize("mend", ["rebuild", "resume"])
def test_from_the_record_every_row_comes_back_as_it_was(study: Path, make: Make, damage: str, mend: str) -> None:
    evaluated(study)
    before, told = all_rows(study), list[str]()
    assert list(before) == list(TABLES)
    if damage == "truncated":
        truncate(study, *TABLES)
    else:
        for name in TABLES:
            shutil.rmtree(study / name)
    assert f"arat-ray results rebuild {study}" in call("pareto", study, code=2)
    verified = call("results", "verify", study, code=1)
    assert ("trials is missing" if damage == "deleted" else "part-00000.parquet is damaged") in verified
    if mend == "rebuild":
        said = call("results", "rebuild", study)
        what = "damaged or missing: part-00000.parquet; " if damage == "truncated" else ""
        assert f"trials: 7 rows; {what}7 of them not in what could be read" in said
    else:
        resumed(study, make, told.append)
        assert all(any(f" {name} is" in line for line in told) for name in TABLES), told
    assert_equal(study, before)
    kept = list(study.glob("*.before-rebuild-*"))
    assert len(kept) == (len(TABLES) if damage == "truncated" else 0)
    assert "OK" in call("results", "verify", study)


def test_single_flipped_bits_of_a_table_are_seen_by_every_reader_of_ours(study: Path) -> None:
    """Anywhere, and in the footer, which has the numbers of rows, and the extremes by which other readers prune."""
    part = study / "epochs" / "part-00000.parquet"
    content, before = part.read_bytes(), reader.read(study, "epochs")
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    draw, silent = random.Random(0), 0
    places = [draw.randrange(8 * footer) for _ in range(300)]
    for place in (*places, *range(8 * footer, 8 * len(content), 7)):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        part.write_bytes(flipped)
        with suppress(ValueError):
            silent += not reader.read(study, "epochs").equals(before) or place >= 8 * footer
    part.write_bytes(content)
    assert silent == 0


def damaged_lines(study: Path, *numbers: int) -> None:
    lines = record_of(study).read_bytes().split(b"\n")
    for number in numbers:
        lines[number - 1] = lines[number - 1].replace(b'"', b"'", 1)
    record_of(study).write_bytes(b"\n".join(lines))


def test_each_damaged_line_of_a_record_is_named_refused_and_made_again_from_the_tables(
    study: Path, make: Make, tmp_path: Path
) -> None:
    evaluated(study)
    before = all_rows(study)
    count = record_of(study).read_bytes().count(b"\n")
    for number in range(1, count + 1):
        damaged = tmp_path / f"{number}" / "small"
        shutil.copytree(study, damaged)
        damaged_lines(damaged, number)
        with pytest.raises(ValueError, match=f"record-00000.jsonl, line {number} is damaged.*results rebuild"):
            resumed(damaged, make)
        assert f"line {number} is damaged" in call("results", "verify", damaged, code=1)
        assert f"line {number} is damaged" in call("results", "rebuild", damaged)
        assert_equal(damaged, before)
        assert "OK" in call("results", "verify", damaged)
        resumed(damaged, make)
        assert_equal(damaged, before)


@pytest.mark.parametrize("lost", ["record", "journal", "end", "emptied", "zeroed", "another study's"])
def test_a_record_that_is_lost_is_told_and_made_again_from_the_tables(
    study: Path, make: Make, lost: str, tmp_path: Path
) -> None:
    before, path = all_rows(study), record_of(study)
    content = path.read_bytes()
    if lost == "record":
        path.unlink()
    elif lost == "journal":
        shutil.rmtree(path.parent)
    elif lost == "another study's":
        (tmp_path / "other").mkdir()
        other = opened(tmp_path / "other", make(**CHANGES), segment_bytes=1 << 30)
        for _ in range(200):
            other.take({"study": other.state.starts[-1]})
        other.flush(final=True)
        shutil.copy(record_of(tmp_path / "other"), path)
    else:
        lines = content.splitlines(keepends=True)
        path.write_bytes({"end": b"".join(lines[:-3]), "emptied": b"", "zeroed": bytes(len(content))}[lost])
    with pytest.raises(ValueError, match="results rebuild"):
        resumed(study, make)
    assert "OK" not in call("results", "verify", study, code=1)
    call("results", "rebuild", study)
    assert_equal(study, before)
    assert "OK" in call("results", "verify", study)
    resumed(study, make)


def test_without_record_and_tables_checkpoints_say_which_epochs_there_were(study: Path, make: Make) -> None:
    before = rows(study, "epochs")
    shutil.rmtree(study / "journal")
    for name in ("trials", "epochs", "decisions"):
        shutil.rmtree(study / name)
    said = call("results", "rebuild", study)
    assert "from checkpoints: small-00000" in said
    after = rows(study, "epochs")
    found = {(name, epoch): row | {"attempt": 0} for (name, _, epoch), row in after.items()}
    expected = {(name, epoch): row | {"attempt": 0} for (name, _, epoch), row in before.items()}
    del expected["small-00005", 3]  # came after its checkpoint
    assert found == expected
    assert {row["status"] for row in rows(study, "trials").values()} == {"stopped"}, "they go on"
    resumed(study, make)


def test_a_damaged_line_and_a_damaged_table_cost_what_both_held_and_it_is_said(study: Path) -> None:
    before = all_rows(study)
    lines = record_of(study).read_bytes().splitlines()
    number = next(
        i for i, line in enumerate(lines, 1) if b'"epoch":{"trial_id":"small-00005","attempt":1,"epoch":3' in line
    )
    damaged_lines(study, number)
    truncate(study, "epochs")
    said = call("results", "rebuild", study)
    assert "in no source: small-00005: 1 of 3 epochs, the first is 3" in said
    before["epochs"] = [row for row in before["epochs"] if (row["trial_id"], row["epoch"]) != ("small-00005", 3)]
    assert_equal(study, before, "epochs", "decisions")


def test_with_each_line_of_the_record_damaged_and_a_table_too_a_study_is_mended_and_goes_on(
    study: Path, make: Make, tmp_path: Path
) -> None:
    """Each line once, and each kind of line with each of the tables."""
    before = all_rows(study)
    kinds = [next(iter(json.loads(line))) for line in record_of(study).read_bytes().splitlines()]
    tables = "trials", "epochs", "decisions"
    for number, kind in enumerate(kinds, 1):
        turn = kinds[:number].count(kind) % len(tables)
        for table in tables if kinds.count(kind) < len(tables) else tables[turn : turn + 1]:
            damaged = tmp_path / f"{number}-{table}" / "small"
            shutil.copytree(study, damaged)
            damaged_lines(damaged, number)
            truncate(damaged, table)
            call("results", "rebuild", damaged)
            assert "OK" in call("results", "verify", damaged)
            resumed(damaged, make)
            for name, of_table in before.items():
                lost = len(of_table) - reader.read(damaged, name).num_rows
                assert lost <= (name == table), f"line {number} is of one row of {table} at most"


def test_a_deleted_part_in_between_is_told_and_made_again(study: Path) -> None:
    before = reader.read(study, "epochs")
    for number in range(3):  # as parts of eight rows would lie
        pq.write_table(before.slice(8 * number, 8), study / f"epochs/part-{number:05d}.parquet")
    (study / "epochs/part-00001.parquet").unlink()
    message = f"{study}/epochs/part-00001.parquet is missing; make it again with: arat-ray results rebuild {study}"
    with pytest.raises(ValueError, match=re.escape(message)):
        reader.read(study, "epochs")
    assert "damaged or missing: part-00001.parquet" in call("results", "rebuild", study)
    assert reader.read(study, "epochs").equals(before)
    names = [part.name for part in reader.part_files(study / "epochs")]
    assert names == [f"part-{number:05d}.parquet" for number in range(3)], "each old part is overwritten in a bucket"


def test_rows_that_are_there_twice_are_told_and_are_there_once_afterwards(study: Path, make: Make) -> None:
    before = rows(study, "epochs")
    shutil.copy(study / "epochs/part-00000.parquet", study / "epochs/part-00001.parquet")
    told = call("results", "verify", study, code=1)
    assert f"{study}/epochs has {len(before)} rows twice" in told
    assert f"epochs: {len(before)} rows; {len(before)} others were there twice" in call("results", "rebuild", study)
    assert rows(study, "epochs") == before
    resumed(study, make)
    assert "OK" in call("results", "verify", study)


def test_it_is_refused_while_somebody_writes_and_where_there_is_no_study(study: Path, tmp_path: Path) -> None:
    with (study / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "is being written to by another process" in call("results", "rebuild", study, code=2)
        assert "it is being written to" in call("results", "verify", study)
    for verb in ("rebuild", "verify"):
        assert "is no study" in call("results", verb, tmp_path, code=2)


def test_a_rebuild_that_was_killed_between_its_two_renames_is_taken_up(study: Path) -> None:
    before = rows(study, "epochs")
    shutil.rmtree(study / "journal")
    shutil.rmtree(study / "checkpoints")
    (study / "epochs").rename(study / "epochs.before-rebuild-20261122-000000.000000")
    call("results", "rebuild", study)
    assert rows(study, "epochs") == before


def said_to_be_deflated(archive: bytes) -> bytes:
    """The first entry of the directory of a zip archive is stored, and says that it is not; zlib fails on it."""
    changed, entry = bytearray(archive), archive.index(b"PK\x01\x02")
    changed[entry + 10] = zipfile.ZIP_DEFLATED
    return bytes(changed)


def test_what_checkpoints_and_study_json_say_otherwise_is_found(study: Path) -> None:
    last = study / "checkpoints/small-00001/last.pt"
    content = last.read_bytes()
    state = checkpoint.load(last)
    state.history[1]["validation_robust_accuracy"] += 0.25
    checkpoint.save(state, last)
    said = call("results", "verify", study, code=1)
    assert "last.pt says validation_robust_accuracy 0." in said
    assert " of epoch 2, and the record 0." in said
    last.write_bytes(content)
    for path, damage, words in (
        (last, content[:-200], "last.pt is damaged, or no checkpoint"),
        (last, said_to_be_deflated(content), "last.pt is damaged, or no checkpoint"),
        (last, (study / "checkpoints/small-00003/last.pt").read_bytes(), "is of another run than trial 1"),
        (last, None, "last.pt is missing"),
        (study / "study.json", b"{}", "study.json lacks"),
        (study / "study.yaml", b"name: other\n", "study.yaml"),
    ):
        before = path.read_bytes()
        path.unlink() if damage is None else path.write_bytes(damage)
        said = call("results", "verify", study, code=1)
        assert words in said
        assert said.count("\n") == 2, said
        path.write_bytes(before)
    assert "OK" in call("results", "verify", study)


def test_a_checkpoint_that_cannot_be_read_just_now_is_not_called_damaged(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fails at its end, where zipfile itself would say that the file is none, or within."""
    real, last = zipfile.ZipFile, study / "checkpoints/small-00001/last.pt"

    class Failing(io.BytesIO):
        within = False

        def read(self, size: int | None = -1) -> bytes:
            if self.within == (self.tell() < len(self.getvalue()) // 2):
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return super().read(size)

    monkeypatch.setattr(zipfile, "ZipFile", lambda path: real(Failing(path.read_bytes()) if path == last else path))
    for within in (False, True):
        monkeypatch.setattr(Failing, "within", within)
        said = call("results", "verify", study, code=1)
        assert f"{last}: cannot be read now (Input/output error); verify again" in said
        assert "damaged" not in said
        assert said.count("\n") == 2, said


@pytest.mark.parametrize("name", ["trials", "epochs", "decisions"])
def test_a_part_of_the_same_study_begun_anew_is_told_and_costs_no_row(study: Path, make: Make, name: str) -> None:
    before = all_rows(study)
    part = f"{name}/part-00000.parquet"
    (study / part).write_bytes((begun(make, study.with_name("anew")) / part).read_bytes())
    message = f"{study / part} is made from another record than the one that study.json names; make it again with: arat"
    assert message in call("results", "show", study, code=2)
    assert "damaged or missing: part-00000.parquet" in call("results", "rebuild", study)
    assert_equal(study, before)
    assert "OK" in call("results", "verify", study)


@pytest.mark.parametrize("name", ["trials", "epochs", "decisions"])
def test_rows_of_another_study_in_a_part_that_does_not_say_so_are_told_and_kept_out(study: Path, name: str) -> None:
    before, part = all_rows(study), study / name / "part-00000.parquet"
    foreign = pa.array([each.replace("small-", "other-") for each in reader.read(study, name)["trial_id"].to_pylist()])
    table = reader.read(study, name)
    pq.write_table(table.set_column(0, table.schema.field("trial_id"), foreign).replace_schema_metadata(None), part)
    told = call("results", "rebuild", study)
    assert f"{name}: {table.num_rows} rows; damaged or missing: {table.num_rows} rows of another study" in told
    assert_equal(study, before)
    assert "OK" in call("results", "verify", study)


@pytest.mark.parametrize("name", ["study.json", "epochs", "decisions", "evaluations", "examples"])
def test_what_is_gone_is_not_passed_over_when_a_study_is_shown(study: Path, name: str) -> None:
    evaluated(study)
    path = study / name
    path.unlink() if path.is_file() else shutil.rmtree(path)
    said = call("results", "show", study, code=2)
    assert (f"{path} is missing" if name == "study.json" else f"{study} has lost its table {name!r}") in said
    call("results", "rebuild", study)
    assert "evaluations 2" in call("results", "show", study)


def test_tables_that_were_copied_alone_are_shown(study: Path) -> None:
    for name in ("journal", "epochs", "decisions"):
        shutil.rmtree(study / name)
    (study / "study.json").unlink()
    assert "trials 7" in call("results", "show", study)
