"""The log behind the tables: every row as it came, appended as a line of JSON, so that a lost part can be made again.

`journal/rows-00000.jsonl` and so on. A file that is full is compressed (`.jsonl.gz`) and the next number begins. A last
line that was half written when the machine went down is skipped; what else cannot be read is skipped and told. What
`arat-ray evaluate` measured comes from other processes, and is a file of its own for each evaluation, in
`journal/evaluations/`.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from arat_ray import whole_files
from arat_ray.json_files import parse_json
from arat_ray.results.rows import EvaluationRow, ExampleRow
from arat_ray.results.schema import TABLES
from arat_ray.results.statuses import AT_REST

FOLDER = "journal"
EVALUATIONS = Path(FOLDER) / "evaluations"
SEGMENT_BYTES = 16 << 20
SKIPPED = "it is skipped"
EVALUATE_AGAIN = "it is skipped; `arat-ray evaluate` measures again what is in no table"
_SEGMENT = re.compile(r"rows-(\d+)\.jsonl(\.gz)?")

Row = dict[str, Any]
Key = tuple[str, int]


class LoggedRow(NamedTuple):
    """A line: a whole row of a table, or what has changed in one of `trials` since its line before."""

    table: str
    kind: Literal["row", "change"]
    row: Row
    at: str = ""
    """Its file and line."""


class RowLog:
    """The log of one study. One process writes to it at a time."""

    def __init__(self, study: Path, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.folder, self.segment_bytes = study / FOLDER, segment_bytes
        self.folder.mkdir(parents=True, exist_ok=True)
        for leftover in self.folder.glob(".rows-*"):  # of a process that was killed while it compressed
            leftover.unlink()
        numbered = _segments(study)
        self._number = max(numbered, default=0)
        self.is_empty = not any(path.stat().st_size for path in numbered.values())
        if numbered and numbered[self._number].suffix == ".gz":
            self._number += 1
        self._waiting: list[bytes] = []
        self._going_on: dict[Key, Row] = {}
        """Rows of trials that have not ended, as they were logged last."""

    def take(self, table: str, row: Mapping[str, Any]) -> None:
        """Take a row; it is in the log after the next `flush`."""
        self._line(table, "row", row)

    def take_trial(self, row: Mapping[str, Any]) -> None:
        """The same of a row of `trials`, which comes again and again: while it goes on, only what has changed."""
        key = (row["trial_id"], row["attempt"])
        before = self._going_on.get(key)
        if before is None:
            self._line("trials", "row", row)
        elif changed := {name: value for name, value in row.items() if before.get(name) != value}:
            self._line("trials", "change", {"trial_id": key[0], "attempt": key[1], **changed})
        if row.get("status") in AT_REST:
            self._going_on.pop(key, None)
        else:
            self._going_on[key] = dict(row)

    def flush(self) -> None:
        """Put what waits on disk, all of it or nothing; OSError where it was nothing."""
        if not self._waiting:
            return
        data = b"".join(self._waiting)
        with self._path.open("ab", buffering=0) as file:
            before = file.tell()
            if before and not _ends_a_line(self._path):
                data = b"\n" + data
            try:
                done = 0
                while done < len(data):
                    done += file.write(data[done:])
                os.fsync(file.fileno())
            except OSError:
                file.truncate(before)
                raise
        self._waiting.clear()
        if before + len(data) >= self.segment_bytes:
            self._compress()

    @property
    def _path(self) -> Path:
        return self.folder / f"rows-{self._number:05d}.jsonl"

    def _line(self, table: str, kind: str, row: Mapping[str, Any]) -> None:
        known = {name: value for name, value in row.items() if value is not None or kind == "change"}
        text = json.dumps({"table": table, kind: known}, default=_plain, separators=(",", ":"))
        self._waiting.append(text.encode() + b"\n")

    def _compress(self) -> None:
        """The full file compressed, in the place of itself; on a full disk it stays as it is."""
        with suppress(OSError):
            _write_gzip(self._path.with_suffix(".jsonl.gz"), self._path.read_bytes())
            self._path.unlink()
        self._number += 1


def read(study: Path, warn: Callable[[str], None] = lambda problem: None) -> Iterator[LoggedRow]:
    """All lines of a study's log that can be read, in the order in which they were written; none where it has none.

    `warn` gets files and lines that cannot.
    """
    for _, path in sorted(_segments(study).items()):
        text = _text(path, warn)
        for number, line in enumerate(text.split(b"\n"), start=1):
            try:
                if line:
                    yield _entry(line, f"{path}, line {number}")
            except ValueError as error:
                is_last = number > text.count(b"\n") and path.suffix != ".gz"
                if not (is_last and line.startswith(b"{")):  # else it was half written
                    warn(str(error))


def _entry(line: bytes, at: str) -> LoggedRow:
    """ValueError where a line is none."""
    fields = parse_json(line, at, fix=SKIPPED, shape={"table": str})
    kinds = list(fields.keys() - {"table"})
    if len(kinds) != 1 or kinds[0] not in ("row", "change"):
        raise ValueError(f"{at} holds neither a row nor a change; {SKIPPED}")
    return LoggedRow(fields["table"], kinds[0], _row(fields["table"], fields[kinds[0]], at), at)


def _row(table: str, row: Any, at: str) -> Row:
    """ValueError where it is no row of that table."""
    if table not in TABLES:
        raise ValueError(f"{at} is of a table {table!r} that there is not; {SKIPPED}")
    if not isinstance(row, dict):
        raise ValueError(f"{at} holds no row; {SKIPPED}")
    for name in TABLES[table].key:
        if not isinstance(row.get(name), str | int) or isinstance(row[name], bool):
            raise ValueError(f"{at} holds a row without its {name!r}; {SKIPPED}")
    return row


def log_evaluation(study: Path, evaluations: Sequence[EvaluationRow], examples: Sequence[ExampleRow]) -> None:
    """Keep the rows of one evaluation, under the id of its examples; OSError where that cannot be written."""
    folder = study / EVALUATIONS
    folder.mkdir(parents=True, exist_ok=True)
    content = {"evaluations": evaluations, "examples": examples}
    name = f"{evaluations[-1]['evaluation_id']}.json.gz"
    _write_gzip(folder / name, json.dumps(content, default=_plain, separators=(",", ":")).encode())


def read_evaluations(study: Path, warn: Callable[[str], None] = lambda problem: None) -> Iterator[LoggedRow]:
    """The rows of `evaluations` and `examples` of all evaluations that were kept, the oldest first.

    `warn` gets files that cannot be read.
    """
    for path in sorted((study / EVALUATIONS).glob("*.json.gz"), key=lambda path: (path.stat().st_mtime_ns, path.name)):
        try:
            shape = {"evaluations": list, "examples": list}
            content = parse_json(_text(path, warn), f"{path}", fix=EVALUATE_AGAIN, shape=shape)
            rows = [(table, _row(table, row, f"{path}")) for table in shape for row in content[table]]
        except ValueError as error:
            warn(str(error))
            continue
        yield from (LoggedRow(table, "row", row, f"{path}") for table, row in rows)


def _segments(study: Path) -> dict[int, Path]:
    """The files of a log by their numbers; compressed where there are both, because that one is whole."""
    found: dict[int, Path] = {}
    folder = study / FOLDER
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if match := _SEGMENT.fullmatch(path.name):
            found[int(match[1])] = path
    return found


def _text(path: Path, warn: Callable[[str], None]) -> bytes:
    """The content of a file; of a damaged compressed one what comes before the damage, as `warn` gets to know."""
    parts = list[bytes]()
    try:
        if path.suffix != ".gz":
            return path.read_bytes()
        inflate = zlib.decompressobj(wbits=31)
        with path.open("rb") as file:
            while chunk := file.read(1 << 16):
                parts.append(inflate.decompress(chunk))
        if not inflate.eof:
            warn(f"{path} is cut off; what comes before is read")
    except zlib.error:
        warn(f"{path} is damaged; what comes before is read")
    except OSError as error:
        warn(f"{path} cannot be read: {error.strerror}; {SKIPPED}")
    return b"".join(parts)


def _write_gzip(path: Path, content: bytes) -> None:
    whole_files.replace(path, gzip.compress(content, 1))


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _plain(value: Any) -> Any:
    """What JSON has no word for: times, and the numbers of numpy."""
    return value.isoformat() if isinstance(value, datetime) else value.item()
