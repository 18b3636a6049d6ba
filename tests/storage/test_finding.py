"""One rule for finding data: `--data`, what is named, $ARAT_DATA, ~/.cache/arat-ray."""

from __future__ import annotations

from pathlib import Path

import pytest

from arat_ray.storage import datasets, finding, trust
from arat_ray.training.data.torchvision_sets import Cifar10
from tests.storage.test_datasets import data, put

__all__ = ["data"]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder of the test's own, and no folder for data."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ARAT_DATA", raising=False)
    monkeypatch.delenv("ARAT_CACHE", raising=False)
    datasets.is_there.cache_clear()
    return tmp_path / "home"


def make(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def found(**named: Path | str) -> dict[str, Path | str]:
    return finding.find(named)


def test_the_places_are_tried_in_one_order(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named, given = tmp_path / "old/set/train.parquet", tmp_path / "given/train.parquet"
    own, default = tmp_path / "own/set/train.parquet", home / ".cache/arat-ray/train.parquet"
    monkeypatch.setenv("ARAT_DATA", str(tmp_path / "own"))
    make(named, given, own, default)
    with finding.given(tmp_path / "given"):
        assert found(train=named) == {"train": given}
    for there in (named, own, default):
        assert found(train=named) == {"train": there}
        there.unlink()
    assert found(train=named) == {"train": named}  # so that the message names it


@pytest.mark.parametrize(
    ("named", "below"),
    [
        ("/old/sets/a/train.parquet", "sets/a/train.parquet"),
        ("/old/sets/a/train.parquet", "a/train.parquet"),
        ("/old/sets/a/train.parquet", "train.parquet"),
        ("/run/../old/train.parquet", "old/train.parquet"),
        ("s3://bucket/sets/a/train.parquet", "a/train.parquet"),
    ],
)
def test_below_data_a_place_is_looked_for_by_the_end_of_its_path(named: str, below: str, tmp_path: Path) -> None:
    make(tmp_path / "new" / below)
    with finding.given(tmp_path / "new"):
        assert found(train=finding.location(named)) == {"train": tmp_path / "new" / below}


def test_the_longest_end_wins(tmp_path: Path) -> None:
    make(tmp_path / "a/train/x", tmp_path / "train/x")
    with finding.given(tmp_path):
        assert found(train=Path("/old/a/train")) == {"train": tmp_path / "a/train"}


@pytest.mark.parametrize("given", ["new.parquet", "folder"])
def test_data_may_be_itself_what_is_named(given: str, tmp_path: Path) -> None:
    make(tmp_path / "new.parquet", tmp_path / "folder/train-0.parquet")
    with finding.given(tmp_path / given):
        assert found(train=Path("/old/set.parquet")) == {"train": tmp_path / given}
        assert found(train=Path("/old/set"), test=Path("/old/set")) == dict.fromkeys(
            ("train", "test"), tmp_path / given
        )


def test_data_may_be_one_of_the_two_that_are_named(tmp_path: Path) -> None:
    make(tmp_path / "new/train/0/a.png", tmp_path / "new/test/0/a.png")
    with finding.given(tmp_path / "new/train"):
        assert found(train=Path("/old/train"), test=Path("/old/test")) == {
            "train": tmp_path / "new/train",
            "test": tmp_path / "new/test",
        }


def test_data_that_holds_nothing_of_what_is_named_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "new/other")
    message = f"--data {tmp_path}/new: it holds none of train, test"
    with finding.given(tmp_path / "new"), pytest.raises(ValueError, match=message):
        found(train=Path("/old/train"), test=Path("/old/test"))
    with pytest.raises(ValueError, match="there is no such file or folder"), finding.given(tmp_path / "none"):
        pass


def test_sets_that_are_downloaded_have_the_same_order(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARAT_DATA", str(tmp_path / "own"))
    own = [tmp_path / "own", home / ".cache/arat-ray"]
    assert finding.roots(None) == own
    assert finding.roots(tmp_path / "named") == [tmp_path / "named", *own]
    with finding.given(tmp_path):
        assert finding.roots(tmp_path / "named") == [tmp_path]
    with finding.without_names():
        assert finding.roots(tmp_path / "named") == own


def test_data_may_lie_in_a_bucket(data: str) -> None:
    put(data, "sets/a/train.parquet", b"1")
    with finding.given(f"{data}/sets"):
        assert found(train=Path("/old/a/train.parquet")) == {"train": f"{data}/sets/a/train.parquet"}
        with pytest.raises(ValueError, match="is read from a folder, not from a bucket"):
            finding.roots(None)


def test_a_place_whose_name_is_not_trusted_is_not_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = tmp_path / "theirs/train.parquet"
    make(named)
    looked: list[str] = []
    monkeypatch.setattr(finding, "_is_there", lambda place: looked.append(str(place)))
    with finding.without_names():
        (place,) = found(train=named).values()
        (address,) = found(train="s3://theirs/train.parquet").values()
    assert not any("theirs" in each and "home" not in each for each in looked)
    assert "theirs" not in f"{place}{address}"


def test_places_of_the_users_own_files_are_remembered_for_nobody_else_to_see(tmp_path: Path, home: Path) -> None:
    for place in ("/data/a", "s3://bucket/a"):
        assert not trust.is_trusted(place)
    trust.remember(["/data/a", "s3://bucket/a/"])
    trust.remember(["/data/b/../a"])
    assert trust.record().stat().st_mode & 0o777 == 0o600
    assert len(trust.record().read_text().splitlines()) == 2
    assert all(map(trust.is_trusted, ["/data/a", "/data/a/", "/data/./a", "s3://bucket/a"]))
    for other in ("/data", "/data/a/b", "/data/a/../b", "s3://bucket", "s3://bucket/a/b", "gs://bucket/a", ""):
        assert not trust.is_trusted(other)


def test_the_users_own_folders_are_trusted_and_nothing_that_climbs_out_of_them(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARAT_DATA", "/own")
    for own in ("/own", "/own/a", f"{home}/.cache/arat-ray/a"):
        assert trust.is_trusted(own)
    for other in ("/own/../etc", "/owner", f"{home}/.cache/arat-ray/../secret", "own/a", "$HOME/.cache/arat-ray"):
        assert not trust.is_trusted(other)


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_a_record_that_others_can_write_to_is_not_believed(mode: int, home: Path) -> None:
    trust.remember(["/data/a"])
    trust.record().chmod(mode)
    assert not trust.is_trusted("/data/a")


def test_a_record_that_cannot_be_kept_or_read_is_none(home: Path) -> None:
    home.mkdir()
    (home / ".cache").write_text("no folder")
    trust.remember(["/data/a"])
    assert not trust.is_trusted("/data/a")


def test_half_a_line_of_the_record_is_no_line(home: Path) -> None:
    trust.remember(["/data/a"])
    with trust.record().open("a") as file:
        file.write('"/data/b\n[1\n')
    assert trust.is_trusted("/data/a")
    assert not trust.is_trusted("/data/b")


def test_without_a_home_what_is_named_is_found_and_nothing_else_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", nobody)
    make(tmp_path / "train.parquet")
    assert found(train=tmp_path / "train.parquet") == {"train": tmp_path / "train.parquet"}
    assert finding.own_folders() == finding.roots(None) == []
    trust.remember([str(tmp_path)])
    assert not trust.is_trusted(str(tmp_path))
    with finding.without_names():
        (place,) = found(train=tmp_path / "train.parquet").values()
    assert str(tmp_path) not in str(place)
    with pytest.raises(ValueError, match="no home folder to keep a copy in; set ARAT_DATA"):
        datasets.cached("s3://bucket/x")
    with pytest.raises(ValueError, match="no home folder to look in; give --data, or set ARAT_DATA"):
        Cifar10().read("train")
