"""Foreign names become paths below a folder, or are refused by name."""

from __future__ import annotations

import os
from pathlib import Path

import boto3
import pytest

from arat_ray.storage import datasets, session
from arat_ray.storage.address import Mirrored, mirror_of, parse
from arat_ray.storage.mirror import Mirror
from arat_ray.storage.names import all_below, below, check_experiment_name, tame

HOSTILE = {
    "up": "../escaped",
    "up below": "a/../../escaped",
    "up and in again": "a/../b",
    "only up": "..",
    "ends up": "a/..",
    "absolute": "/tmp/escaped",
    "an empty part": "a//b",
    "a folder's name": "a/",
    "here": "./a",
    "ends here": "a/.",
    "backslashes": "a\\..\\escaped",
    "a long part": "x" * 300,
    "many parts": "/".join(["part"] * 900),
}
NEVER_IN_A_BUCKET = {
    "empty": "",
    "NUL": "a\0b",
    "a line end": "a\nb",
    "an escape code": "\x1b]0;title\x07",
    "C1": "a\x9bb",
    "no Unicode": "\udcff",
    "none": None,
    "a number": 7,
    "a path": Path("/etc/passwd"),
    "bytes by length": "ü" * 128,
}


@pytest.mark.parametrize("name", [*HOSTILE.values(), *NEVER_IN_A_BUCKET.values()])
def test_a_foreign_name_that_leads_elsewhere_is_refused_by_name(name: object, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no name of a file below") as refused:
        below(tmp_path, name)
    assert repr(name)[:100] in str(refused.value)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize(
    "name", ["a", "a/b.pt", "a..b", "...", ".hidden/a", "ü/漢", "with space/[/x]", "-rf", "~/a", "$HOME"]
)
def test_any_other_name_is_a_path_below(name: str, tmp_path: Path) -> None:
    assert below(tmp_path, name) == tmp_path / name


def test_names_that_are_a_file_and_a_folder_at_once_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'a/b' is a file, and a folder of 'a/b/c'"):
        all_below(tmp_path, ["a/b", "a/b/c"])


def test_a_link_that_is_there_leads_nobody_out(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "cache")
    (tmp_path / "cache" / "trials").symlink_to(tmp_path)
    assert all_below(tmp_path / "linked", ["a/b"]) == {"a/b": tmp_path / "linked" / "a" / "b"}
    with pytest.raises(ValueError, match="a link leads out"):
        all_below(tmp_path / "linked", ["trials/part"])


@pytest.mark.parametrize("text", ["../../x", "...", "", "漢" * 200, "a b/c", "\x1b[31m"])
def test_any_text_can_be_made_the_name_of_an_experiment(text: str) -> None:
    for keep_end in (False, True):
        name = tame(text, keep_end=keep_end)
        assert check_experiment_name(name) == name


def plant(address: str, *names: str) -> None:
    """Keys that no filesystem would have."""
    bucket, _, prefix = address.removeprefix("s3://").partition("/")
    client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    for name in names:
        client.put_object(Bucket=bucket, Key=f"{prefix}/{name}", Body=b"planted")


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]


@pytest.mark.parametrize("name", [name for name in HOSTILE.values() if not name.endswith("/")])
def test_a_bucket_cannot_write_outside_of_the_caches(
    name: str, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARAT_DATA", str(tmp_path / "data"))
    datasets.cached.cache_clear()
    plant(address, "trials/part-00000.parquet", name if name.startswith("/") else f"trials/{name}")
    with pytest.raises(ValueError, match="is no name of a file below"):
        datasets.cached(address)
    with pytest.raises(ValueError, match="is no name of a file below"):
        session.pull(mirror_of(parse(address)), [""], log=pytest.fail)
    assert not files(tmp_path)
    assert not Path("/tmp/escaped").exists()


def test_a_bucket_with_a_key_that_is_a_file_and_a_folder_is_refused_by_name(
    address: str, folder: Mirrored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARAT_DATA", str(tmp_path / "data"))
    datasets.cached.cache_clear()
    plant(address, "trials/a", "trials/a/b")
    for read in (lambda: datasets.cached(address), lambda: session.pull(folder, ["trials/"], log=pytest.fail)):
        with pytest.raises(ValueError, match="'trials/a' is a file, and a folder of 'trials/a/b'"):
            read()


def test_a_bucket_follows_no_link_of_the_mirror(address: str, folder: Mirrored, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder.mkdir(parents=True)
    (folder / "trials").symlink_to(elsewhere)
    plant(address, "trials/part-00000.parquet")
    with pytest.raises(ValueError, match="a link leads out"):
        Mirror(folder).pull(["trials/"])
    assert not files(elsewhere)


def test_a_study_that_cannot_be_opened_for_writing_is_not_left_locked(address: str, folder: Mirrored) -> None:
    plant(address, "trials/../../escaped")
    for _ in range(2):
        with pytest.raises(ValueError, match="is no name of a file below"), session.writing(folder, log=pytest.fail):
            pass
