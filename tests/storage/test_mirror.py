"""What a mirror and its bucket make of each other: up, down, in order, after kills, on several machines."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from arat_ray.storage import manifest, objects
from arat_ray.storage.address import Mirrored, mirror_of, parse, root
from arat_ray.storage.mirror import TABLES, UNSETTLED_S, Mirror
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


def test_only_what_changed_is_pulled_once_its_time_is_settled(
    study: Mirror, on: Callable[[str], Mirror], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arat_ray.storage.mirror.UNSETTLED_S", -UNSETTLED_S)
    other = on("other")
    got, get = list[str](), objects.get

    def noting(place: Any, name: str, path: Path) -> None:
        got.append(name)
        get(place, name, path)

    monkeypatch.setattr(objects, "get", noting)
    other.pull(TABLES)
    assert len(got) == 4
    other.pull(TABLES)
    assert len(got) == 4
    write(on("node"), EPOCHS, b"more epochs")
    on("node").push()
    on("other").pull(TABLES)
    assert got[4:] == [EPOCHS]
    assert content(other)[EPOCHS] == b"more epochs"


def test_an_object_that_may_change_within_the_same_second_is_looked_at_again(
    study: Mirror, on: Callable[[str], Mirror]
) -> None:
    other = on("other")
    other.pull(TABLES)
    write(on("node"), EPOCHS, b"EPOCHS")  # as large as before, within a second
    on("node").push()
    on("other").pull(TABLES)
    assert content(other)[EPOCHS] == b"EPOCHS"


def test_an_object_that_is_replaced_while_it_is_read_arrives_whole(
    study: Mirror, on: Callable[[str], Mirror], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, seen = objects.stats, list[str]()

    def replaced_after_the_first_look(place: Any, name: str) -> Any:
        found = whole(place, name)
        if name == EPOCHS and len(seen) < 2:
            seen.append(name)
            objects.put(place, name, io.BytesIO(b"longer than it was" * len(seen)))
        return found

    other = on("other")
    monkeypatch.setattr(objects, "stats", replaced_after_the_first_look)
    other.pull([EPOCHS])
    assert content(other)[EPOCHS] == b"longer than it was" * 2


def test_what_is_removed_from_the_bucket_goes_from_the_mirrors_but_not_what_was_never_pushed(study: Mirror) -> None:
    objects.filesystem(study.address).delete_file(f"{study.address.location}/{TRIALS}")
    objects.filesystem(study.address).delete_file(f"{study.address.location}/{EPOCHS}")
    write(study, EPOCHS, b"more epochs")
    study.pull(TABLES)
    assert TRIALS not in content(study)
    assert content(study)[EPOCHS] == b"more epochs"


def test_ray_dot_files_temporaries_and_locks_stay_at_home(study: Mirror) -> None:
    for name in ("ray/run/state.json", ".lock", "trials/.part-00001.parquet.tmp", "journal/optuna.log.lock", ".x/y"):
        write(study, name, b"x")
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
        "study.json", "checkpoints", "decisions", "epochs", "examples", "evaluations", "trials", "journal",
    ]  # fmt: skip
    assert (there(study.folder)[TRIALS], there(study.folder)["journal/optuna.log"]) == (b"new\n", b"new\n")
    monkeypatch.undo()


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
