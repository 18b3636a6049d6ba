"""Image files as pixels, within bounds: what would take more memory than an image does is refused before it does."""

from __future__ import annotations

import io
import re
import stat
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
"""Those of photographs. Others run programs (EPS), or are of other things."""
ENCODED = 64_000_000
"""Bytes of an image file."""
PIXELS = 50_000_000
"""Of an image, before and after it is resized."""


def pixels(source: bytes | Path, where: str, *, channels: int | None, size: int | None = None) -> Any:
    """One image, uint8 [C, H, W]: grey (1) or RGB (3) as `channels` says, by default as it is stored.

    With `size`, the shorter side is resized to it and the centre [C, size, size] is kept. Of moving images it is the
    first frame. ValueError beginning with `where`.
    """
    from PIL import Image, UnidentifiedImageError

    Image.init()
    bombs = (Image.DecompressionBombError, Image.DecompressionBombWarning)
    try:
        content = _bounded(source)
        _check_webp(content[:30])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged metadata, which nothing here reads
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=[name for name in FORMATS if name in Image.OPEN]) as image:
                pixels = np.asarray(_converted(image, channels, size))
    except bombs as error:
        count = re.search(r"\d+", str(error))
        shown = f"{int(count[0]):,}" if count else "too many"
        raise ValueError(
            f"{where}: an image of {shown} pixels; at most {PIXELS:,} are read, make it smaller"
        ) from error
    except _TooLargeError as error:
        raise ValueError(f"{where}: {error}") from error
    except (
        OSError,
        SyntaxError,
        ValueError,
        OverflowError,
        MemoryError,
        struct.error,
        LookupError,
        TypeError,
    ) as error:
        # a broken header makes each of them; Syntax: a broken PNG
        reason = "no known format" if isinstance(error, UnidentifiedImageError) else error
        fix = "convert it to 8 bits a channel" if "8 bits" in str(error) else "repair or remove it"
        raise ValueError(f"{where}: unreadable image ({reason}); {fix}") from error
    return pixels.reshape(*pixels.shape[:2], -1).transpose(2, 0, 1)


class _TooLargeError(Exception):
    """What takes too much memory, and what to do."""


def _bounded(source: bytes | Path) -> bytes:
    """The bytes of an image file."""
    if isinstance(source, bytes):
        size = len(source)
    else:
        status = source.stat()
        if not stat.S_ISREG(status.st_mode):  # one that never ends, or never begins
            raise OSError("it is no regular file")
        size = status.st_size
    if size > ENCODED:
        raise _TooLargeError(too_large(size))
    return source if isinstance(source, bytes) else source.read_bytes()


def too_large(size: int) -> str:
    """Why an image file of so many bytes is not read."""
    return f"an image file of {size / 1e6:,.0f} MB, more than {ENCODED / 1e6:.0f} MB; make it smaller"


def _check_webp(head: bytes) -> None:
    """The size that a WebP says: Pillow makes room for it before it looks."""
    if head[:4] != b"RIFF" or head[8:12] != b"WEBP" or len(head) < 30:
        return
    kind, sizes = head[12:16], None
    if kind == b"VP8X":
        sizes = int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    elif kind == b"VP8L":
        packed = int.from_bytes(head[21:25], "little")
        sizes = (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 ":
        sizes = int.from_bytes(head[26:28], "little") & 0x3FFF, int.from_bytes(head[28:30], "little") & 0x3FFF
    if sizes:
        _check_size(*sizes)


def _check_size(width: int, height: int) -> None:
    if width * height > PIXELS:
        raise _TooLargeError(f"an image of {width:,} x {height:,} pixels; at most {PIXELS:,} are read, make it smaller")


def _converted(image: Any, channels: int | None, size: int | None) -> Any:
    _check_size(*image.size)
    if image.format == "TIFF":  # one tile is unpacked whole, however small the image is
        _check_size(image.tag_v2.get(322, 1), image.tag_v2.get(323, 1))
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"mode {image.mode}, more than 8 bits a channel")
    if size is not None:
        short, long = sorted(image.size)
        if size * size * long > PIXELS * max(short, 1):
            raise _TooLargeError(
                f"an image of {image.width:,} x {image.height:,} pixels with its shorter side at dataset.size {size} "
                f"has more than {PIXELS:,}; lower the size or crop the image"
            )
    grey = image.mode in ("1", "L", "LA") if channels is None else channels == 1
    decoded = image if image.mode == "RGB" and not grey else image.convert("L" if grey else "RGB")
    if size is not None:
        from torchvision.transforms.functional import center_crop, resize

        decoded = center_crop(resize(decoded, [size]), [size])
    return decoded
