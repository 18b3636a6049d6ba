"""Data sets in a bucket: one download a machine, whole or not at all."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from arat_ray.storage import datasets, objects
from arat_ray.storage.address import Address, parse
from arat_ray.training.data.image_files import ImageFolder, ParquetImages
from tests.storage.conftest import Server


@pytest.fixture
def data(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket's folder for data, and an empty cache on this machine."""
    monkeypatch.setenv("ARAT_DATA", str(tmp_path / "data"))
    datasets.cached.cache_clear()
    return address


def png(value: int) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), value, np.uint8)).save(sink, "png")
    return sink.getvalue()


def put(address: str, name: str, content: bytes) -> None:
    objects.put(parse(address), name, io.BytesIO(content))


def parquet(values: list[int]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"image": [png(value) for value in values], "label": values}), sink)
    return sink.getvalue()


def test_parquet_and_image_folders_are_read_from_a_bucket(data: str) -> None:
    put(data, "set/train-0.parquet", parquet([0, 1]))
    put(data, "set/test-0.parquet", parquet([1]))
    for label in (0, 1):
        put(data, f"folder/{label}/a.png", png(label))
    of_parts = ParquetImages(train=f"{data}/set", test=f"{data}/set/test-0.parquet")
    assert of_parts.read("train").labels.tolist() == [0, 1]
    assert of_parts.read("test").images[0, 0, 0, 0] == 1
    of_files = ImageFolder(train=f"{data}/folder", size=4)
    assert sorted(of_files.read("train").labels.tolist()) == [0, 1]
    again = ParquetImages.model_validate(of_parts.model_dump(mode="json"))
    assert again == of_parts
    assert again.train == f"{data}/set"  # the same on every machine


FETCH = "import sys; from arat_ray.storage.datasets import cached; print(cached(sys.argv[1]))"


def test_processes_of_a_machine_fetch_a_set_once(data: str, tmp_path: Path) -> None:
    put(data, "train.parquet", os.urandom(1 << 20))
    command = [sys.executable, "-c", FETCH, f"{data}/train.parquet"]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    found = {process.communicate()[0].strip() for process in processes}
    (path,) = found
    assert len(list((tmp_path / "data").rglob("train.parquet/*/train.parquet"))) == 1
    assert Path(path).stat().st_size == 1 << 20
    inode = Path(path).stat().st_ino
    assert datasets.cached(f"{data}/train.parquet").stat().st_ino == inode


def test_a_set_that_changes_is_another_copy_and_an_outage_is_ridden_on_the_last_one(
    data: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(data, "train.parquet", b"one")
    first = datasets.cached(f"{data}/train.parquet")
    datasets.cached.cache_clear()
    put(data, "train.parquet", b"longer")
    second = datasets.cached(f"{data}/train.parquet")
    assert (first.read_bytes(), second.read_bytes()) == (b"one", b"longer")
    datasets.cached.cache_clear()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert datasets.cached(f"{data}/train.parquet") == second


def test_half_a_set_is_never_taken_for_one(data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    put(data, "set/a", b"aaa")
    whole, looks = datasets._listing, list[None]()

    def written_to(place: Address) -> dict[str, objects.Stat]:
        found = whole(place)
        looks.append(None)
        put(data, "set/a", b"bbbb" * len(looks))
        return found

    monkeypatch.setattr(datasets, "_listing", written_to)
    with pytest.raises(ValueError, match="was written to while it was fetched"):
        datasets.cached(f"{data}/set")
    monkeypatch.setattr(datasets, "_listing", whole)
    assert (datasets.cached(f"{data}/set") / "a").read_bytes().startswith(b"bbbb")


def test_a_set_that_is_not_there_is_an_error_that_names_the_key(data: str) -> None:
    with pytest.raises(ValueError, match=r"dataset.train: s3://.*/none: there is no such file or folder"):
        ParquetImages(train=f"{data}/none").read("train")
    with pytest.raises(ValueError, match="unknown scheme 's4'"):
        ParquetImages(train="s4://bucket/train.parquet")
