"""A file is replaced whole or not at all."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest

from arat_ray import whole_files

ROOT = Path(__file__).parents[1]
OWN_WAY = {"network.py", "mirror.py", "rerun_config.py", "token.py"}
"""Two files at once; one that is fetched; one that is read before it counts; one that only its owner may read."""


@pytest.mark.parametrize("durable", [True, False])
def test_the_new_file_is_there_at_the_end_of_the_block_and_not_before(durable: bool, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with whole_files.replaced(path, durable=durable) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("failure", [OSError, RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file_and_nothing_else(failure: type[BaseException], tmp_path: Path) -> None:
    path = tmp_path / "file"
    whole_files.replace(path, b"old")

    def fail() -> None:
        with whole_files.replaced(path) as file:
            file.write(b"half")
            raise failure

    with pytest.raises(failure):
        fail()
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_disk_that_fails_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(OSError, match=r"No space left on device: '.*/file'"), whole_files.replaced(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as `write` and `fsync` do


def test_nobody_else_replaces_files() -> None:
    sources = (path for path in (ROOT / "arat_ray").rglob("*.py") if path.name not in OWN_WAY | {"whole_files.py"})
    found = [path.name for path in sources if re.search(r"os\.replace\(|temporary\.replace\(", path.read_text())]
    assert found == []
