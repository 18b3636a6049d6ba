"""Data sets of a few digits in files, to be moved about, and runs on them."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from arat_ray.training.data.splits import Digits, read

PGD = {"name": "pgd", "norm": "linf", "epsilon": 0.2, "step_size": 0.1, "steps": 1}


def _png(pixels: Any) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "png")
    return sink.getvalue()


def _digits(first: int, count: int) -> Iterable[tuple[bytes, int]]:
    digits = read(Digits(), "train")
    for i in range(first, first + count):
        yield _png(digits.images[i, 0].numpy()), int(digits.labels[i])


def parquet(path: Path, *, first: int = 0, count: int = 120) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    images, labels = zip(*_digits(first, count), strict=True)
    pq.write_table(pa.table({"image": images, "label": labels}), path)


def folders(path: Path, *, first: int = 0, count: int = 120) -> None:
    for i, (image, label) in enumerate(_digits(first, count)):
        (path / str(label)).mkdir(parents=True, exist_ok=True)
        (path / str(label) / f"{i}.png").write_bytes(image)


def write_set(kind: str, home: Path) -> dict[str, Any]:
    """A set below a folder, as `dataset:` names it."""
    if kind == "parquet":
        parquet(home / "train.parquet")
        parquet(home / "test.parquet", first=200, count=40)
        return {"name": kind, "train": str(home / "train.parquet"), "test": str(home / "test.parquet")}
    folders(home / "train")
    folders(home / "test", first=200, count=40)
    return {"name": kind, "train": str(home / "train"), "test": str(home / "test"), "size": 8, "channels": 1}


def experiment(dataset: dict[str, Any], *, epochs: int = 2, **train: Any) -> dict[str, Any]:
    return {
        "name": "moved",
        "train": {
            "dataset": dataset,
            "model": {"name": "tiny", "width": 2},
            "method": {"name": "pgd_at"},
            "attack": PGD,
            "epochs": epochs,
            "batch_size": 20,
            "seed": 0,
            **train,
        },
        "validate": {"every": 1, "images": 20, "attack": PGD},
    }
