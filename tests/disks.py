"""A disk of a few MiB that can really be full."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

MNT_DETACH = 2


def small_disk(folder: Path, *, mib: int) -> Iterator[Path]:
    """A tmpfs of that size, mounted as long as the generator lives; skips the test where this is not allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small tmpfs takes root")
    try:
        yield folder
    finally:
        assert ctypes.CDLL(None).umount2(os.fsencode(folder), MNT_DETACH) == 0


def fill(folder: Path, *, name: str = "ballast") -> None:
    """Leave no byte free on its disk."""
    with (folder / name).open("ab", buffering=0) as file:
        for size in (1 << 16, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                pass
