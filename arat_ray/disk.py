"""Disks that fail. Most failures pass, and are waited for: a full disk, a share that is away. Some never will."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable

from arat_ray.backoff import Backoff

FIXES = {
    errno.ENAMETOOLONG: "shorten `name:`, or choose a place with a shorter path; file systems count bytes",
    errno.EACCES: "give this user the right to write there, or choose another place",
    errno.EPERM: "give this user the right to write there, or choose another place",
    errno.EROFS: "the file system is mounted read-only; choose another place",
    errno.ENOTDIR: "a file is where a folder should be; move it away",
    errno.EEXIST: "a file is where a folder should be; move it away",
    errno.EISDIR: "a folder is where a file should be; move it away",
    errno.ELOOP: "a symbolic link there leads back to itself; remove it",
    errno.EFBIG: "the file system, or `ulimit -f`, allows no file of this size; choose another place",
    errno.EINVAL: "the file system does not take such a name; choose another place",
    errno.EILSEQ: "the file system does not take such a name; choose another place",
    errno.EOPNOTSUPP: "the file system cannot do that; choose another place",
    errno.EXDEV: "two file systems meet there; choose another place",
}
"""What never passes by itself, and what to do. A removed folder is not among it: its mount may come back."""


def is_lasting(error: OSError) -> bool:
    """Whether the same write could never succeed."""
    return error.errno in FIXES


def reason(error: OSError) -> str:
    """What failed, where, and what to do: `/results/x: Permission denied; give this user ...`."""
    where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
    fix = FIXES.get(error.errno or 0, "make room, or choose another place")
    return f"{where}{error.strerror or error}; {fix}"


class Disk:
    """Something that is written to again and again.

    A failure does not raise: writing is tried again after `retry_s[0]` seconds, then twice that, up to `retry_s[1]`,
    and `warn` is called once when it begins and once when it is over. One that is `broken` will not be over.
    """

    def __init__(self, what: str, *, warn: Callable[[str], None], retry_s: tuple[float, float]) -> None:
        self.what, self._warn, self._backoff = what, warn, Backoff(retry_s)
        self.broken: str | None = None
        """Why it can never be written, where that is so."""
        self._retry_at: float | None = None  # None while the disk is well

    @property
    def failing(self) -> bool:
        return self._backoff.failing

    @property
    def is_due(self) -> bool:
        """Whether to try now."""
        return self._retry_at is None or time.monotonic() >= self._retry_at

    def fails(self, error: OSError, *, kept: str) -> None:
        if self._backoff.fail():
            self._warn(f"cannot write {self.what} ({error}); {kept} kept in memory")
        self._retry_at = time.monotonic() + self._backoff.delay_s
        if is_lasting(error) and self.broken is None:
            self.broken = f"{self.what} can never be written: {reason(error)}"

    def works(self, *, waited: str) -> None:
        if self._backoff.succeed():
            self._retry_at, self.broken = None, None
            self._warn(f"{self.what} can be written again: {waited} had waited")
