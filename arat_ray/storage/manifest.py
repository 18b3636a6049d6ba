"""The manifest of a mirror: which version of a file is the one in the bucket.

One small JSON a file, in a tree beside the mirrors, replaced whole: workers and drivers of a machine write those of
their own files without waiting for one another. A file without an entry, or other than its entry says, has not been
pushed.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple

from arat_ray import whole_files
from arat_ray.storage.address import Mirrored, root
from arat_ray.storage.objects import Stat


class FileVersion(NamedTuple):
    """What tells two versions of a file of this machine apart."""

    size: int
    mtime_ns: int


class Entry(NamedTuple):
    """The file's version that is in the bucket, the object's that it is there, and the digest of what is in them.

    While a file is pushed its version and the object's are those from before, but the digest is the new one already: so
    that after a kill it can be told who wrote the object that is there now.
    """

    local: FileVersion | None
    remote: Stat | None
    sha256: str | None = None


NOTHING = Entry(None, None)


def read(path: Path) -> Entry:
    """The entry of a file of a mirror."""
    try:
        local, remote, sha256 = json.loads(_entry(path).read_bytes())
        if remote and not isinstance(remote[1], str):  # of before there were ETags: which version it is is not known
            remote = None
        return Entry(local and FileVersion(*local), remote and Stat(*remote), sha256)
    except (FileNotFoundError, ValueError, TypeError):  # as if it had not been pushed, which it then is again
        return NOTHING


def write(path: Path, entry: Entry) -> None:
    target = _entry(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    whole_files.replace(target, json.dumps(entry).encode(), suffix=os.getpid(), durable=False)


def forget(path: Path) -> None:
    _entry(path).unlink(missing_ok=True)


def version_of(path: Path | int) -> FileVersion | None:
    """The version of a file, or of an open one; None where there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return FileVersion(found.st_size, found.st_mtime_ns)


def folder_of(path: Path) -> Path:
    """Where the entries of a mirror's folder are."""
    return root() / ".marks" / Path(path).relative_to(root())


def _entry(path: Path) -> Path:
    assert isinstance(path, Mirrored), path
    return folder_of(path.with_name(f"{path.name}.json"))
