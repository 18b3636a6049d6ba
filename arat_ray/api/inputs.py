"""What users write in Python as what all code takes, and errors in the words of Python. Loads nothing heavy."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from arat_ray.storage.address import path_of

AnyPath = str | os.PathLike[str]
"""A path, or the address of a bucket, such as s3://bucket/study."""
_OPTION = re.compile(r"--([a-z]+(?:-[a-z]+)*)")
_FLAGS = ("resume", "front", "raw", "partial")
_RENAMED = {"from": "earlier"}


def as_path(path: AnyPath) -> Path:
    """The path, `~` filled in; of an address that of its mirror on this machine."""
    return path if isinstance(path, Path) else path_of(os.path.expanduser(os.fspath(path)))


@contextmanager
def in_python() -> Iterator[None]:
    """Errors speak of keyword arguments where the command line has options; whole commands in them stay as they are."""
    try:
        yield
    except ValueError as error:
        text = str(error)
        if "arat-ray " not in text and error.args == (text,):
            error.args = (_OPTION.sub(_keyword, text),)
        raise


def _keyword(option: re.Match[str]) -> str:
    name = option[1].replace("-", "_")
    return f"{_RENAMED.get(name, name)}{'=True' * (name in _FLAGS)}"
