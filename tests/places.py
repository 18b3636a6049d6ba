"""Places where nothing can ever be written, each a real one, with what is said of it."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.disks import MNT_DETACH

NOBODY = 65534


def _too_long(folder: Path) -> Iterator[tuple[Path, str]]:
    yield folder / ("x" * 300), "File name too long; shorten `name:`"


def _too_long_in_bytes(folder: Path) -> Iterator[tuple[Path, str]]:
    yield folder / ("\N{CJK UNIFIED IDEOGRAPH-6F22}" * 90), "File name too long; shorten `name:`"


def _below_a_file(folder: Path) -> Iterator[tuple[Path, str]]:
    (folder / "file").touch()
    yield folder / "file" / "below", "Not a directory; a file is where a folder should be"


def _a_file(folder: Path) -> Iterator[tuple[Path, str]]:
    (folder / "file").touch()
    yield folder / "file", "File exists; a file is where a folder should be"


def _loop(folder: Path) -> Iterator[tuple[Path, str]]:
    (folder / "loop").symlink_to("loop")
    yield folder / "loop" / "below", "Too many levels of symbolic links; a symbolic link there leads back to itself"


def _read_only(folder: Path) -> Iterator[tuple[Path, str]]:
    place = folder / "mounted"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a read-only tmpfs takes root")
    try:
        yield place / "below", "Read-only file system; the file system is mounted read-only"
    finally:
        assert ctypes.CDLL(None).umount2(os.fsencode(place), MNT_DETACH) == 0


def _forbidden(folder: Path) -> Iterator[tuple[Path, str]]:
    place = folder / "theirs"
    place.mkdir(mode=0o500)
    is_root = os.geteuid() == 0
    if is_root:
        for path in [place, *list(place.parents)[:-2]]:
            path.chmod(path.stat().st_mode | 0o055)
        os.seteuid(NOBODY)
    try:
        yield place / "below", "Permission denied; give this user the right to write there"
    finally:
        if is_root:
            os.seteuid(0)


KINDS: list[Callable[[Path], Iterator[tuple[Path, str]]]] = [
    _too_long,
    _too_long_in_bytes,
    _below_a_file,
    _a_file,
    _loop,
    _read_only,
    _forbidden,
]
