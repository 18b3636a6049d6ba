"""Reading a record: its lines in order, and what is not as it was written.

A last line without its end was being written when the process or the machine went down: it counts as not written.
Everything else that is not as it should be is a `Damage`, and is never passed over.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from arat_ray.results.segments import (
    CLOSED,
    CRC,
    CRC_BYTES,
    HEADER,
    OPEN,
    SEALED,
    Line,
    files,
    folder_of,
    name,
    whole_bytes,
)


class Damage(NamedTuple):
    """Something in a record that is not as it was written."""

    at: str
    """The file, and the line in it."""
    what: str

    def __str__(self) -> str:
        return f"{self.at} {self.what}"


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
        whole = len(content) if is_whole else whole_bytes(content)
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


def _refuse(damage: Damage) -> None:
    raise ValueError(str(damage))


def record_of(study: Path) -> str:
    """The id of a study's record, as its first segment that can be read says; empty where none does."""
    found = Reading(folder_of(study), lambda damage: None)
    next((line for line in found if found.record), None)
    return found.record
