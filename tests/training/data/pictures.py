"""Small image sets: random pictures, in Parquet as on the Hugging Face hub and in a folder for each class."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image


def image(value: int = 0, *, mode: str = "RGB", size: tuple[int, int] = (4, 3)) -> Image.Image:
    """A random image, another for each value."""
    pixels = np.random.default_rng(value).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def png(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


def write(
    path: Path,
    images: Sequence[bytes | None],
    labels: list[Any],
    *,
    names: list[str] | None = None,
    plain: bool = False,
    columns: tuple[str, str] = ("img", "label"),
) -> Path:
    cells = pa.array(images, pa.binary())
    if not plain:
        paths = pa.array([f"{i}.png" for i in range(len(images))], pa.string())
        cells = pa.StructArray.from_arrays([cells, paths], ["bytes", "path"])
    table = pa.table({columns[0]: cells, columns[1]: labels})
    if names:
        feature = {"names": names, "_type": "ClassLabel"}
        info = {"info": {"features": {columns[1]: feature}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def refusal(dataset: Any, split: Any = "train") -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        dataset.read(split)
    return str(caught.value)


def folder_of(root: Path, **classes: int) -> Path:
    for k, (name, n) in enumerate(classes.items()):
        (root / name).mkdir(parents=True)
        for i in range(n):
            image(100 * k + i, size=(12, 9)).save(root / name / f"{i}.png")
    return root
