"""Segments: the files of a record, whose lines say of themselves whether they are whole.

`record-00000.jsonl` and so on. A line is a JSON object that ends with its number in the record and with the CRC-32 of
all that comes before: `{"epoch":{...},"n":17,"crc":"5f3a9c01"}`. The first line of a segment says whose it is. A
segment that is full is sealed: compressed as a whole with Zstandard, with a last line that holds the CRC-32 of all
others, and never changed again.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from arat_ray import whole_files

SEGMENT_BYTES = 1 << 18
"""Of an open segment; large enough to compress well, small enough to be sent to a bucket whole every few seconds."""
FOLDER, REWRITTEN = "journal", "rewritten"
LINES_AT_ONCE = 1000
HEADER, SEALED = b"segment", b"sealed"
OPEN, CLOSED = ".jsonl", ".jsonl.zst"
CRC = b',"crc":"'
CRC_BYTES = len(CRC) + 8 + len(b'"}')
_SEGMENT = re.compile(r"record-(\d{5,})\.jsonl(\.zst)?")

Event = dict[str, Any]


class Line(NamedTuple):
    """One line of a record: what kind of event it is, the line as it stands, and its number."""

    kind: bytes
    text: bytes
    number: int

    @property
    def event(self) -> Event:
        """`{kind: ..., ...}`, without number and CRC."""
        event: Event = json.loads(self.text)
        event.pop("n", None)
        event.pop("crc", None)
        return event


class Segments:
    """The record in a folder, to be added to by one process.

    `record` is the id of the record and `lines` how many lines it has, both as `read` found them.
    """

    def __init__(self, folder: Path, *, record: str = "", lines: int = 0, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.folder, self.lines, self.segment_bytes = folder, lines, segment_bytes
        self.record = record or uuid.uuid4().hex
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(".record-*"):  # of a process that was killed while it sealed
            leftover.unlink()
        there = files(folder)
        self._number = max(there, default=0)
        if there and there[self._number].name.endswith(CLOSED):
            (folder / f"{name(self._number)}{OPEN}").unlink(missing_ok=True)
            self._number += 1
        self._size = whole_bytes(self._path.read_bytes()) if self._path.exists() else 0
        """Bytes of the open segment that are on disk for good."""
        self._waiting: list[bytes] = []

    @property
    def pending(self) -> int:
        """How many lines are not on disk yet."""
        return len(self._waiting)

    def take(self, event: Mapping[str, Any]) -> int:
        """Take an event, `{kind: ..., ...}`; its number. It is on disk after the next `flush`."""
        self._waiting.append(line(event, self.lines))
        self.lines += 1
        return self.lines - 1

    def flush(self) -> None:
        """Put what waits on disk, all of it or nothing; OSError where it was nothing."""
        if not self._waiting:
            return
        head = []
        if not self._size:  # its header takes the number of no line
            head = [line({HEADER.decode(): {"record": self.record, "number": self._number}}, self._first)]
        data = b"".join([*head, *self._waiting])
        with self._path.open("r+b" if self._path.exists() else "xb", buffering=0) as file:
            file.truncate(self._size)  # half a line of a process that was killed, or of a disk that was full
            file.seek(self._size)
            done = 0
            try:
                while done < len(data):
                    done += file.write(data[done:])
                os.fsync(file.fileno())
            except OSError:
                with suppress(OSError):  # else the next flush does it
                    file.truncate(self._size)
                raise
        if head:
            whole_files.sync(self.folder)
        self._size += len(data)
        self._waiting.clear()
        if self._size >= self.segment_bytes:
            self._seal()

    @property
    def _path(self) -> Path:
        return self.folder / f"{name(self._number)}{OPEN}"

    @property
    def _first(self) -> int:
        """The number of the first line that waits."""
        return self.lines - len(self._waiting)

    def _seal(self) -> None:
        """The full segment compressed, in the place of itself; on a full disk it stays as it is."""
        with suppress(OSError):
            write_sealed(self.folder / f"{name(self._number)}{CLOSED}", self._path.read_bytes()[: self._size])
            self._path.unlink()
        self._number, self._size = self._number + 1, 0


def folder_of(study: Path) -> Path:
    """Where the record of a study is: in `journal/`, or where it was rewritten last."""
    numbered = {int(path.name.rpartition("-")[2]): path for path in (study / FOLDER).glob(f"{REWRITTEN}-[0-9]*")}
    return numbered[max(numbered)] if numbered else study / FOLDER


def rewrite(study: Path, events: Iterable[Mapping[str, Any]], *, record: str = "") -> Path:
    """Write a whole new record for a study, which counts from the moment that it is there; where it is.

    It has the same id, if `record` is one. The old one stays where it was. OSError where it cannot be written: then
    nothing has changed.
    """
    before = folder_of(study)
    number = 1 + (int(before.name.rpartition("-")[2]) if before.name != FOLDER else 0)
    beside = study / FOLDER / f".{REWRITTEN}"
    shutil.rmtree(beside, ignore_errors=True)  # of a process that was killed
    segments = Segments(beside, record=record)
    for i, event in enumerate(events):
        segments.take(event)
        if i % LINES_AT_ONCE == LINES_AT_ONCE - 1:
            segments.flush()
    segments.flush()
    folder = beside.rename(study / FOLDER / f"{REWRITTEN}-{number}")
    whole_files.sync(folder.parent)
    return folder


def name(number: int) -> str:
    return f"record-{number:05d}"


def line(event: Mapping[str, Any], number: int) -> bytes:
    """An event as a line of a record."""
    head = json.dumps(event, default=_plain, separators=(",", ":"))
    text = f'{head[:-1]},"n":{number}'.encode()
    return b'%b%b%08x"}\n' % (text, CRC, zlib.crc32(text))


def write_sealed(path: Path, lines: bytes) -> None:
    """Whole lines as a sealed segment, put in place whole; OSError where it cannot be written."""
    seal = json.dumps({SEALED.decode(): {"crc": f"{zlib.crc32(lines):08x}"}}, separators=(",", ":"))
    whole_files.replace(path, pa.Codec("zstd").compress(lines + seal.encode() + b"\n", asbytes=True))
    whole_files.sync(path.parent)


def files(folder: Path) -> dict[int, Path]:
    """The segments in a folder by their numbers; the sealed one where there are both, for the other is a leftover."""
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if match := _SEGMENT.fullmatch(path.name):
            found[int(match[1])] = path
    return found


def whole_bytes(content: bytes) -> int:
    """Bytes up to the end of the last whole line."""
    return content.rfind(b"\n") + 1


def _plain(value: Any) -> Any:
    """What JSON has no word for: times, and the numbers of numpy."""
    return value.isoformat() if isinstance(value, datetime) else value.item()
