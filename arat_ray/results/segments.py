"""Segments: the files of a record, whose lines say of themselves whether they are whole.

`record-00000.jsonl` and so on. A line is a JSON object that ends with its number in the record and with the CRC-32 of
all that comes before: `{"epoch":{...},"n":17,"crc":"5f3a9c01"}`. The first line of a segment says whose it is. A
segment that is full is sealed: compressed as a whole with Zstandard, with a last line that holds the CRC-32 of all
others, and never changed again.

A last line without its end was being written when the process or the machine went down: it counts as not written.
Everything else that is not as it should be is a `Damage`, and is never passed over.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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


class Damage(NamedTuple):
    """Something in a record that is not as it was written."""

    at: str
    """The file, and the line in it."""
    what: str

    def __str__(self) -> str:
        return f"{self.at} {self.what}"


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
        self._size = _whole(self._path.read_bytes()) if self._path.exists() else 0
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
            sync(self.folder)
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
    sync(folder.parent)
    return folder


def record_of(study: Path) -> str:
    """The id of a study's record, as its first segment that can be read says; empty where none does."""
    found = Reading(folder_of(study), lambda damage: None)
    next((line for line in found if found.record), None)
    return found.record


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
    sync(path.parent)


def files(folder: Path) -> dict[int, Path]:
    """The segments in a folder by their numbers; the sealed one where there are both, for the other is a leftover."""
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if match := _SEGMENT.fullmatch(path.name):
            found[int(match[1])] = path
    return found


class Segment(NamedTuple):
    """A segment as it is read."""

    number: int
    path: Path
    content: bytes
    """Whole lines, the header among them."""
    is_whole: bool
    """Whether nothing in it can have changed, so that its lines need not be checked one by one."""


class Reading:
    """A record as it is read: iterate over its lines; afterwards `record` is its id and `lines` how many it has.

    `damaged` gets what is not as it should be, and reading goes on behind it; without one the first is a ValueError.
    """

    def __init__(self, folder: Path, damaged: Callable[[Damage], None] | None = None) -> None:
        self.folder, self.record, self.lines = folder, "", 0
        self._damaged = damaged or _refuse

    def __iter__(self) -> Iterator[Line]:
        for segment in self.segments():
            yield from self.lines_of(segment)

    def segments(self, *, after: int = -1) -> Iterator[Segment]:
        """The segments behind one of that number; the lines of each are to be taken before the next."""
        there = files(self.folder)
        last = max(there, default=-1)
        for number in range(after + 1, last + 1):
            if number not in there:
                self._damaged(Damage(f"{self.folder / name(number)}{OPEN}", "is missing"))
                continue
            if segment := self._segment(number, there[number], is_last=number == last):
                yield segment

    def one(self, path: Path) -> Iterator[Line]:
        """The lines of a sealed file that is a record by itself."""
        if segment := self._segment(0, path, is_last=False):
            yield from self.lines_of(segment)

    def others_of(self, segment: Segment, kind: bytes) -> tuple[list[Line], int]:
        """The lines of a whole segment but for those of one kind, and how many those are: no look at each of them."""
        content, found = segment.content, list[Line]()
        header = content.find(b"\n")
        list(self._lines(segment.number, segment.path, [content[:header]], is_whole=False))
        at, first = header, self.lines
        for match in re.compile(rb'\n(?=\{"(?!%b"))' % re.escape(kind)).finditer(content, header):
            self.lines += content.count(b"\n", at, match.start())
            at = match.start()
            found.append(_line(content[at + 1 : content.index(b"\n", at + 1)], self.lines))
        self.lines += content.count(b"\n", at, len(content) - 1)
        return found, self.lines - first - len(found)

    def lines_of(self, segment: Segment) -> Iterator[Line]:
        """The lines of a segment, checked."""
        lines = segment.content.split(b"\n")[:-1]
        yield from self._lines(segment.number, segment.path, lines, is_whole=segment.is_whole)

    def _segment(self, number: int, path: Path, *, is_last: bool) -> Segment | None:
        try:
            content = path.read_bytes()
        except OSError as error:
            self._damaged(Damage(f"{path}", f"cannot be read: {error.strerror}"))
            return None
        is_whole = False
        if path.name.endswith(CLOSED):
            content, is_whole = self._unsealed(path, content)
        whole = len(content) if is_whole else _whole(content)
        rest = content[whole:]
        if rest and not (is_last and path.name.endswith(OPEN) and _is_torn(rest)):
            self._damaged(Damage(f"{path}", f"does not end with a whole line: {len(rest)} bytes are damaged"))
        if not whole and not (is_last and path.name.endswith(OPEN)):
            self._damaged(Damage(f"{path}", "holds no line"))
        return Segment(number, path, content[:whole], is_whole)

    def _lines(self, number: int, path: Path, lines: Sequence[bytes], *, is_whole: bool) -> Iterator[Line]:
        for i, text in enumerate(lines):
            if is_whole and i:
                yield _line(text, self.lines)
                self.lines += 1
                continue
            at = f"{path}, line {i + 1}"
            found = _checked(text)
            if found is None:
                self._damaged(Damage(at, "is damaged: its checksum is another"))
                continue
            if found.kind == HEADER:
                header = found.event[HEADER.decode()]
                if header["number"] != number or (self.record and header["record"] != self.record):
                    self._damaged(Damage(f"{path}", "is of another record"))
                    return
                if not self.record and not self.lines:  # or not read from its beginning
                    self.lines = found.number
                self.record = self.record or header["record"]
            elif i == 0:
                self._damaged(Damage(at, "is no beginning of a segment"))
            if found.number != self.lines:
                self._damaged(Damage(at, f"is line {found.number} of the record where line {self.lines} should be"))
                self.lines = found.number
            if found.kind != HEADER:
                yield found
                self.lines += 1

    def _unsealed(self, path: Path, content: bytes) -> tuple[bytes, bool]:
        """The lines of a sealed segment, and whether they are known to be those that were sealed."""
        lines, problem = decompressed(content)
        if problem:
            self._damaged(Damage(f"{path}", problem))
        end = lines.rfind(b"\n", 0, len(lines) - 1) + 1
        body, seal = lines[:end], lines[end:]
        if not seal.startswith(b'{"%b":' % SEALED):
            if not problem:
                self._damaged(Damage(f"{path}", "lacks its seal"))
            return lines, False
        return body, seal == b'{"%b":{"crc":"%08x"}}\n' % (SEALED, zlib.crc32(body))


def decompressed(content: bytes) -> tuple[bytes, str]:
    """What is in compressed bytes, as far as it can be had, and what is wrong with them, if anything is."""
    parts = list[bytes]()
    try:
        with pa.CompressedInputStream(pa.BufferReader(content), "zstd") as stream:
            while part := stream.read(4 << 20):
                parts.append(part)
    except OSError:
        return b"".join(parts), "is damaged and cannot be decompressed"
    return b"".join(parts), "" if content else "is empty"


def _checked(text: bytes) -> Line | None:
    """A line whose checksum is right."""
    head, tail = text[:-CRC_BYTES], text[-CRC_BYTES:]
    if tail != b'%b%08x"}' % (CRC, zlib.crc32(head)):
        return None
    return _line(text, int(head[head.rindex(b":") + 1 :]))


def _line(text: bytes, number: int) -> Line:
    return Line(text[2 : text.index(b'"', 2)], text, number)


def _is_torn(rest: bytes) -> bool:
    """Whether bytes without an end are the beginning of a line, and not a whole one with another byte as its end."""
    return rest.startswith(b'{"'[: len(rest)]) and _checked(rest[:-1]) is None


def _whole(content: bytes) -> int:
    """Bytes up to the end of the last whole line."""
    return content.rfind(b"\n") + 1


def _refuse(damage: Damage) -> None:
    raise ValueError(str(damage))


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


def _plain(value: Any) -> Any:
    """What JSON has no word for: times, and the numbers of numpy."""
    return value.isoformat() if isinstance(value, datetime) else value.item()
