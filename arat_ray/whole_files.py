"""Atomic replacement of files: a reader finds the old file or the new one, never half of one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replaced(path: Path, *, suffix: object = "tmp", durable: bool = True) -> Iterator[BinaryIO]:
    """A file to write to, which takes the place of `path` at the end of the block; its folder exists.

    Where the block or the disk fails, the old file stays and nothing else does; an OSError of either names `path`.
    `durable`: a power failure does not empty the new file. Where several processes may write `path`, `suffix` tells
    their temporary files apart.
    """
    temporary = path.with_name(f".{path.name}.{suffix}")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):  # half a file would only make a full disk fuller
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            error.filename = f"{path}"  # a write and an fsync do not say which file they were to
        raise


def replace(path: Path, content: bytes, *, suffix: object = "tmp", durable: bool = True) -> None:
    """The same, of what is at hand."""
    with replaced(path, suffix=suffix, durable=durable) as file:
        file.write(content)


def sync(folder: Path) -> None:
    """Have the names in a folder on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        error.filename = f"{folder}"
        raise
    finally:
        os.close(descriptor)
