"""A few bytes that unpack to gigabytes: refused by file, row and reason before they do."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.training.data.pictures import image, png, write

SMALL = png(image())
READ = """
import json, resource, sys
from arat_ray.training.data.image_files import ImageFolder, ParquetImages
for path in sys.argv[1:]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    kind, size = (ParquetImages, None) if path.endswith(".parquet") else (ImageFolder, 8)
    if path.endswith("stretched.parquet"):
        size = 4000
    try:
        told = f"read {len(kind(train=path, size=size).read('train').labels)}"
    except ValueError as error:
        told = str(error)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps([path, told, grown * 1024]), flush=True)
"""


def png_of(width: int, height: int, data: bytes = b"") -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def webp_of(width: int, height: int) -> bytes:
    sizes = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + (10).to_bytes(4, "little") + bytes(4) + sizes + b"VP8L" + (8).to_bytes(4, "little") + bytes(8)
    return b"RIFF" + len(body).to_bytes(4, "little") + body


def saved(picture: Image.Image, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, form, **options)
    return stream.getvalue()


def tiff_of_tiles(side: int) -> bytes:
    """Of 16 x 16 pixels in one tile of so many."""
    tags = {256: 16, 257: 16, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side, 324: 200, 325: 20}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    head = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + entries + bytes(4)
    return head.ljust(200, b"\0") + zlib.compress(bytes(100)).ljust(20, b"\0")


def bmp_of(width: int, height: int) -> bytes:
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)


def gif_of(side: int) -> bytes:
    """A frame far beyond the screen that it says."""
    screen = b"GIF89a" + struct.pack("<HHBBB", 8, 8, 0, 0, 0)
    return screen + b"\x2c" + struct.pack("<HHHHB", 0, 0, side, side, 0) + b"\x02\x02\x44\x01\x00;"


def columns(path: Path, footer: bytes) -> None:
    path.write_bytes(b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1")


def schema_of(count: int) -> bytes:
    """The start of a footer: version 1, then so many columns of 32-bit numbers, called c."""
    assert count < 1 << 21
    number = bytes([count & 127 | 128, count >> 7 & 127 | 128, count >> 14])
    return b"\x15\x02\x19\xfc" + number + b"\x15\x02\x25\x00\x18\x01c\x00" * count + b"\x00"


def one_image_often(path: Path, rows: int, cell: bytes) -> None:
    cells = pa.DictionaryArray.from_arrays(np.zeros(rows, np.int32), pa.array([cell], pa.binary()))
    pq.write_table(pa.table({"image": cells, "label": np.arange(rows) % 2}), path, store_schema=False)


def long_texts(path: Path) -> None:
    columns = {"image": [SMALL] * 2, "label": ["x" * 130_000_000, "y"]}
    pq.write_table(pa.table(columns), path, compression="zstd")


def nested(path: Path) -> None:
    kind = pa.int8()
    for _ in range(200):
        kind = pa.struct([("x", kind)])
    pq.write_table(pa.schema([("image", kind)]).empty_table(), path, store_schema=False)


def shared_beginnings(path: Path) -> None:
    """60 cells of 8 MB, each the one before but for its end."""
    cells = pa.array([bytes(8_000_000) + bytes([i]) for i in range(60)], pa.binary())
    pq.write_table(
        pa.table({"image": cells, "label": np.arange(60) % 2}),
        path,
        use_dictionary=False,
        column_encoding={"image": "DELTA_BYTE_ARRAY", "label": "PLAIN"},
        compression="zstd",
    )


def folder(path: Path) -> None:
    for name, content in (("cat", SMALL), ("dog", png_of(30_000, 30_000))):
        (path / name).mkdir(parents=True)
        (path / name / "a.png").write_bytes(content)


def pictures(content: bytes) -> Callable[[Path], Any]:
    return lambda path: write(path, [SMALL, content], [0, 1], plain=True)


def labels(odd: Any) -> Callable[[Path], Any]:
    return lambda path: write(path, [SMALL] * 200, [odd if i == 100 else i % 4 for i in range(200)])


IMAGES: dict[str, tuple[bytes, str]] = {
    "png": (png_of(30_000, 30_000), "an image of 900,000,000 pixels; at most 50,000,000 are read"),
    "png-little-data": (png_of(7_000, 7_000, bytes(100)), "unreadable image ("),
    "png-just-too-large": (png_of(9_000, 9_000), "an image of 9,000 x 9,000 pixels; at most 50,000,000"),
    "png-that-warns": (png_of(13_000, 13_000), "an image of 169,000,000 pixels"),
    "jpeg": (saved(Image.new("L", (30_000, 2_000)), "JPEG"), "an image of 30,000 x 2,000 pixels"),
    "webp": (webp_of(16_383, 16_383), "an image of 16,383 x 16,383 pixels"),
    "bmp": (bmp_of(30_000, 30_000), "an image of 900,000,000 pixels; at most 50,000,000 are read"),
    "gif": (gif_of(60_000), "an image of 3,600,000,000 pixels"),
    "tiff": (tiff_of_tiles(40_000), "an image of 40,000 x 40,000 pixels"),
    "file": (SMALL + bytes(70_000_000), "an image file of 70 MB, more than 64 MB"),
}
BOMBS: dict[str, tuple[Callable[[Path], Any], str]] = {
    **{f"{name}.parquet": (pictures(content), f"row 1 (from 0): {told}") for name, (content, told) in IMAGES.items()},
    "stretched.parquet": (pictures(png_of(20_000, 1)), "with its shorter side at dataset.size 4000 has more than"),
    "cell.parquet": (pictures(bytes(130_000_000)), "rows 0 to 1 (from 0): a page of img is 130 MB unpacked"),
    "repeated.parquet": (lambda path: one_image_often(path, 2_000, bytes(8_000_000)), "row 0 (from 0): unreadable"),
    "shared.parquet": (shared_beginnings, "row 0 (from 0): unreadable image"),
    "rows.parquet": (lambda path: one_image_often(path, 10**6, SMALL), "rows in "),
    "million-columns.parquet": (lambda path: columns(path, schema_of(10**6)), ": 1,000,000 columns, more than the"),
    "footer.parquet": (lambda path: columns(path, bytes(33_000_000)), ": its footer takes 33 MB, more than the 32 MB"),
    "nested.parquet": (nested, ": columns within columns, more than 16 levels"),
    "label.parquet": (labels(10**9), "row 100 (from 0): label 1000000000, but no image has label 4 to 999999999"),
    "lowest.parquet": (labels(-(2**63)), "row 100 (from 0): label -9223372036854775808 is no class"),
    "texts.parquet": (long_texts, "a page of label is 130 MB unpacked"),
    "folder": (folder, "an image of 900,000,000 pixels; at most 50,000,000 are read"),
}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, int]]:
    """Of each bomb, what one process says that reads all of them, and by how much its memory grew meanwhile."""
    root = tmp_path_factory.mktemp("bombs")
    for name, (lay, _) in BOMBS.items():
        lay(root / name)
    write(root / "first.parquet", [SMALL] * 2, [0, 1])  # so that what is loaded once is
    command = [sys.executable, "-c", READ, str(root / "first.parquet"), *(str(root / name) for name in BOMBS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {Path(path).name: (said, grown) for path, said, grown in lines}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_by_its_name_and_reason_and_does_not_unpack(
    name: str, told: dict[str, tuple[str, int]]
) -> None:
    said, grown = told[name]
    assert f"/{name}" in said
    assert BOMBS[name][1] in said
    assert grown < 400_000_000
