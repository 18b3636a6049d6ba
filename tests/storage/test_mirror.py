"""What a mirror and its bucket make of each other: up, down, in order, after kills, on several machines."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest

from arat_ray.storage import manifest, objects, session
from arat_ray.storage.address import Mirrored, mirror_of, parse, root
from arat_ray.storage.mirror import TABLES, Mirror
from arat_ray.storage.objects import Stat
from tests.storage.conftest import there

STUDY = {
    "study.json": b"{}",
    "journal/optuna.log": b"one\n",
    "trials/part-00000.parquet": b"trials",
    "epochs/part-00000.parquet": b"epochs",
    "checkpoints/small-00000/last.pt": b"weights",
}
LAST, EPOCHS, TRIALS = "checkpoints/small-00000/last.pt", "epochs/part-00000.parquet", "trials/part-00000.parquet"


def write(mirror: Mirror, name: str, data: bytes) -> None:
    """As a study does: whole, under another name first."""
    path = mirror.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name(f".{path.name}").write_bytes(data)
    path.with_name(f".{path.name}").replace(path)


def content(mirror: Mirror) -> dict[str, bytes]:
    """All files of a mirror."""
    files = sorted(path for path in mirror.folder.rglob("*") if path.is_file())
    return {str(path.relative_to(mirror.folder)): path.read_bytes() for path in files}


@pytest.fixture
def study(folder: Mirrored) -> Mirror:
    """A study that was pushed."""
    mirror = Mirror(folder)
    for name, data in STUDY.items():
        write(mirror, name, data)
    assert mirror.push() == len(STUDY)
    return mirror


@pytest.fixture
def on(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Mirror]:
    """Go to a machine: its mirror of the study."""

    def go(machine: str) -> Mirror:
        monkeypatch.setenv("ARAT_CACHE", str(tmp_path / machine))
        return Mirror(mirror_of(parse(address)))

    return go


def test_a_study_arrives_on_another_machine_as_it_was(study: Mirror, on: Callable[[str], Mirror]) -> None:
    other = on("other")
    other.pull(TABLES)
    assert content(other) == {name: data for name, data in STUDY.items() if name != LAST}
    other.pull([LAST])
    assert content(other) == STUDY
    assert other.unpushed() == []


def test_only_what_changed_is_pushed(study: Mirror) -> None:
    assert study.push() == 0
    write(study, EPOCHS, b"more epochs")
    assert study.push() == 1
    assert there(study.folder) == STUDY | {EPOCHS: b"more epochs"}


def test_only_what_changed_is_pulled_even_what_is_as_large_and_as_old(
    study: Mirror, on: Callable[[str], Mirror], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = on("other")
    got, get = list[str](), objects.get

    def noting(place: Any, name: str, path: Path) -> Stat:
        got.append(name)
        return get(place, name, path)

    monkeypatch.setattr(objects, "get", noting)
    other.pull(TABLES)
    assert len(got) == 4
    other.pull(TABLES)
    assert len(got) == 4
    write(on("node"), EPOCHS, b"EPOCHS")
    on("node").push()
    on("other").pull(TABLES)
    assert got[4:] == [EPOCHS]
    assert content(other)[EPOCHS] == b"EPOCHS"


@pytest.mark.parametrize("scheme", ["s3", "file"])
@pytest.mark.parametrize(
    "data", [gzip.compress(b"rows"), b"\x28\xb5\x2f\xfd\x04\x00zstd", b"", os.urandom(20 << 20)],
    ids=["gzip", "zstd", "empty", "in parts"],
)  # fmt: skip
def test_bytes_go_up_and_come_down_as_they_are(data: bytes, scheme: str, address: str, tmp_path: Path) -> None:
    place = parse(address if scheme == "s3" else f"file://{tmp_path}/bucket")
    for name in ("rows-00000.jsonl.gz", "a b/[x] %20 ü#1.zst"):
        put = objects.put(place, name, io.BytesIO(data))
        assert objects.get(place, name, tmp_path / "copy") == put == objects.stats(place, name)[name]
        assert (tmp_path / "copy").read_bytes() == objects.read(place, name) == data
        assert objects.stats(place, "")[name] == put


def test_an_object_that_is_replaced_while_it_is_read_arrives_whole(address: str, tmp_path: Path) -> None:
    place = parse(address)
    one, two = os.urandom(40 << 20), os.urandom(40 << 20)
    objects.put(place, "last.pt", io.BytesIO(one))

    def replace() -> None:
        objects.put(place, "last.pt", io.BytesIO(two))

    writing = threading.Thread(target=replace)
    writing.start()
    stat = objects.get(place, "last.pt", tmp_path / "copy")
    writing.join()
    found = (tmp_path / "copy").read_bytes()
    assert found in (one, two)
    assert (stat == objects.stats(place, "last.pt")["last.pt"]) == (found == two)


def test_what_an_entry_of_before_there_were_versions_knew_is_fetched_once_more_and_not_sent(study: Mirror) -> None:
    for name in (EPOCHS, TRIALS):
        entry = manifest.read(study.folder / name)
        assert entry.local is not None
        before = [list(entry.local), [6, 1764300000000000000], entry.sha256]
        manifest._entry(study.folder / name).write_text(json.dumps(before))
    write(study, EPOCHS, b"more epochs")
    assert study.unpushed() == [EPOCHS]
    study.pull(TABLES, log=pytest.fail)
    assert study.unpushed() == [EPOCHS]
    assert manifest.read(study.folder / TRIALS).remote == objects.stats(study.address, TRIALS)[TRIALS]
    study.push()
    assert there(study.folder) == STUDY | {EPOCHS: b"more epochs"}


def test_the_empty_objects_that_consoles_make_of_folders_are_no_files(
    study: Mirror, on: Callable[[str], Mirror]
) -> None:
    bucket, _, prefix = f"{study.folder}".removeprefix("s3://").partition("/")
    client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    for folder in ("", "trials/", "notes/"):
        client.put_object(Bucket=bucket, Key=f"{prefix}/{folder}", Body=b"")
    assert set(objects.stats(study.address, "")) == set(STUDY)
    other = on("other")
    other.pull([""])
    assert content(other) == STUDY


def test_what_is_gone_from_the_bucket_is_told_stays_here_and_goes_up_again(study: Mirror) -> None:
    told: list[str] = []
    for name in (TRIALS, EPOCHS, LAST):
        objects.delete(study.address, name)
    write(study, EPOCHS, b"more epochs")
    study.pull(TABLES, log=told.append)
    assert content(study) == STUDY | {EPOCHS: b"more epochs"}
    assert [text.partition(";")[0] for text in told] == [
        f"1 files of {study.folder} are gone from the bucket, {TRIALS} first"
    ]
    assert study.unpushed() == [EPOCHS], "who only reads puts nothing back"
    assert study.restore() == 2
    assert study.push() == 3
    assert there(study.folder) == STUDY | {EPOCHS: b"more epochs"}


def test_an_emptied_bucket_changes_nothing_here_and_is_filled_again_by_who_writes(study: Mirror) -> None:
    told: list[str] = []
    for name in STUDY:
        objects.delete(study.address, name)
    session.pull(study.folder, log=told.append)
    assert content(study) == STUDY
    assert ["4 files" in text and "are gone from the bucket" in text for text in told] == [True]
    assert there(study.folder) == {}
    with session.writing(study.folder, log=told.append):
        pass
    assert there(study.folder) == STUDY
    assert told[-1] == f"5 files of {study.folder} that are gone from the bucket are pushed again"


def test_ray_dot_files_temporaries_and_locks_stay_at_home(study: Mirror) -> None:
    for name in ("ray/run/state.json", ".lock", "trials/.part-00001.parquet.tmp", "journal/optuna.log.lock", ".x/y"):
        write(study, name, b"x")
    (study.folder / "trials/nowhere").symlink_to("nothing")
    assert study.push() == 0


def test_rows_go_up_before_what_speaks_of_them(study: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [
        *STUDY,
        "decisions/part-00000.parquet",
        "evaluations/part-00000.parquet",
        "examples/part-00000.parquet",
    ]:
        write(study, name, b"new\n")
    pushed, put = list[str](), objects.put

    def noting(place: Any, name: str, file: Any) -> Any:
        pushed.append(name.partition("/")[0])
        write(study, TRIALS, b"newer, of epochs that are not up yet")
        with (study.folder / "journal/optuna.log").open("ab") as journal:
            journal.write(b"newer\nhalf a line")
        return put(place, name, file)

    (study.folder / "journal/optuna.log").write_bytes(b"new\nhalf")
    monkeypatch.setattr(objects, "put", noting)
    study.push()
    assert pushed == [
        "checkpoints", "study.json", "decisions", "epochs", "examples", "evaluations", "trials", "journal",
    ]  # fmt: skip
    assert (there(study.folder)[TRIALS], there(study.folder)["journal/optuna.log"]) == (b"new\n", b"new\n")
    monkeypatch.undo()


@pytest.mark.parametrize("where", ["journal", "journal/rewritten-1"])
def test_of_a_record_that_is_being_written_its_whole_lines_go_up(study: Mirror, where: str) -> None:
    write(study, f"{where}/record-00000.jsonl", b"a line\nhalf of")
    study.push()
    assert there(study.folder)[f"{where}/record-00000.jsonl"] == b"a line\n"


def test_unpushed_rows_survive_a_pull_and_go_up_later(study: Mirror) -> None:
    write(study, EPOCHS, b"more epochs")
    study.pull(TABLES)
    assert content(study)[EPOCHS] == b"more epochs"
    assert study.unpushed() == [EPOCHS]


def test_after_a_kill_between_sending_and_noting_the_newer_file_of_this_machine_counts(
    study: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(study, EPOCHS, b"more epochs")
    write_entry, written = manifest.write, list[Any]()

    def killed_at_the_second(path: Path, entry: Any) -> None:
        written.append(entry)
        if len(written) == 2:
            raise KeyboardInterrupt
        write_entry(path, entry)

    monkeypatch.setattr(manifest, "write", killed_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        study.push()
    monkeypatch.setattr(manifest, "write", write_entry)
    assert there(study.folder)[EPOCHS] == b"more epochs"
    write(study, EPOCHS, b"even more epochs")
    study.pull(TABLES, log=pytest.fail)
    assert content(study)[EPOCHS] == b"even more epochs"
    study.push()
    assert there(study.folder)[EPOCHS] == b"even more epochs"


def test_a_study_that_went_on_elsewhere_counts_and_what_was_never_pushed_is_set_aside(
    study: Mirror, on: Callable[[str], Mirror]
) -> None:
    write(study, EPOCHS, b"epochs of a lost hour")
    write(study, "journal/optuna.log", b"one\nof a lost hour\n")
    other = on("other")
    other.pull(TABLES)
    write(other, EPOCHS, b"epochs measured again")
    other.push()
    told: list[str] = []
    here = on("node")
    here.pull(TABLES, log=told.append)
    assert content(here)[EPOCHS] == b"epochs measured again"
    assert content(here)["journal/optuna.log"] == b"one\n"  # one study, and not half of each
    assert here.unpushed() == []
    (text,) = told
    assert f"{here.folder} went on elsewhere" in text
    kept = {path.name: path.read_bytes() for path in (root() / ".set-aside").rglob("*") if path.is_file()}
    assert kept == {"part-00000.parquet": b"epochs of a lost hour", "optuna.log": b"one\nof a lost hour\n"}


def test_another_study_of_the_same_name_is_not_mixed_with_the_copy_of_the_one_of_before(
    study: Mirror, on: Callable[[str], Mirror]
) -> None:
    described = [json.dumps({"started_at": [f"2026-11-2{day}T10:00:00+00:00"]}).encode() for day in range(3)]
    write(study, "study.json", described[0])
    study.push()
    study.pull(TABLES, log=pytest.fail)
    for name in STUDY:
        objects.delete(study.address, name)
    other = on("other")
    write(other, "study.json", described[1])
    write(other, TRIALS, b"other trials")
    other.push()
    here, told = on("node"), list[str]()
    write(here, EPOCHS, b"never pushed")
    here.pull(TABLES, log=told.append)
    assert content(here) == {"study.json": described[1], TRIALS: b"other trials"}
    assert here.unpushed() == []
    (text,) = told
    assert f"{here.folder} holds another study by now" in text
    (aside,) = (path.parent for path in (root() / ".set-aside").rglob("study.json"))
    kept = {str(path.relative_to(aside)): path.read_bytes() for path in aside.rglob("*") if path.is_file()}
    assert kept == STUDY | {"study.json": described[0], EPOCHS: b"never pushed"}


def test_a_trial_goes_on_from_its_newest_checkpoint_whichever_node_has_it(
    study: Mirror, on: Callable[[str], Mirror]
) -> None:
    other = on("other")
    other.pull([LAST])
    write(other, LAST, b"of epoch 2")
    other.push()
    here = on("node")
    here.pull([LAST])
    assert content(here)[LAST] == b"of epoch 2"
    write(here, LAST, b"of epoch 3")  # not pushed, and nobody has gone on
    here.pull([LAST])
    assert content(here)[LAST] == b"of epoch 3"


def test_a_lost_mirror_is_no_loss(study: Mirror) -> None:
    shutil.rmtree(root())
    study.pull([*TABLES, "checkpoints/"])
    assert content(study) == STUDY


def test_a_folder_can_stand_for_a_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARAT_CACHE", str(tmp_path / "node"))
    mirror = Mirror(mirror_of(parse(f"file://{tmp_path}/bucket/small")))
    write(mirror, TRIALS, b"trials")
    mirror.push()
    assert (tmp_path / "bucket" / "small" / TRIALS).read_bytes() == b"trials"
    assert os.listdir(tmp_path / "bucket" / "small" / "trials") == ["part-00000.parquet"]
    shutil.rmtree(root())
    mirror.pull(TABLES)
    assert content(mirror) == {TRIALS: b"trials"}
