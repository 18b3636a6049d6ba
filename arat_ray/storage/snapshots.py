"""What a file of a mirror held at one moment, while a study writes on."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from arat_ray.storage import manifest, objects
from arat_ray.storage.manifest import FileVersion

GROWING = (".log", ".jsonl")


class Snapshot(NamedTuple):
    """A version of a file, what is in it, and the digest of that."""

    version: FileVersion
    content: IO[bytes]
    sha256: str


@contextmanager
def snapshot(path: Path) -> Iterator[Snapshot]:
    """A file is replaced whole, so that an open one never changes; but for a journal, which grows line by line."""
    with path.open("rb") as file:
        version = manifest.version_of(file.fileno())
        assert version is not None
        content: IO[bytes] = file
        if "journal" in path.parts[-3:-1] and path.suffix in GROWING:
            lines = file.read(version.size)
            content = io.BytesIO(lines[: lines.rfind(b"\n") + 1])
        digest = hashlib.sha256()
        while chunk := content.read(objects.CHUNK):
            digest.update(chunk)
        content.seek(0)
        yield Snapshot(version, content, digest.hexdigest())
