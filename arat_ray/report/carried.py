"""The tables inside a report: the Parquet parts of its studies as they are, in a zip archive that compresses nothing.

Parts are compressed already, and what is stored as it is cannot unpack to more than the file holds. The archive lies in
the page byte by byte, as base64 would add a third; but for `<`, without which nothing in it can be markup.
"""

from __future__ import annotations

import base64
import io
import os
import re
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from arat_ray import whole_files
from arat_ray.results import reader
from arat_ray.results.schema import TABLES
from arat_ray.text import line

UTF8 = 0x800
"""Of an entry's flags, that its name is UTF-8; the others stand for encryption and the like."""
ESCAPED = {b"\\": b"\\b", b"<": b"\\l"}
_TABLES = re.compile(rb'<script type="text/plain" id="tables">([^<]*)</script>')
_FILE = re.compile(rf"[^/\\\0]{{1,255}}/(?:study\.json|study\.yaml|(?:{'|'.join(TABLES)})/part-\d{{5,9}}\.parquet)")


def escaped(studies: Sequence[Path]) -> bytes:
    """The archive of `pack`, as it lies in a page."""
    packed = pack(studies)
    for byte, escape in ESCAPED.items():
        packed = packed.replace(byte, escape)
    return packed


def _unescaped(content: bytes) -> bytes:
    """ValueError where an earlier version wrote base64 that was changed."""
    if not content.startswith(b"PK"):
        return base64.b64decode(content, validate=True)
    return re.sub(rb"\\[bl]", lambda found: b"<" if found[0] == b"\\l" else b"\\", content)


def pack(studies: Sequence[Path]) -> bytes:
    """The archive: of each study a folder of its name with its tables, study.json and study.yaml."""
    buffer, taken = io.BytesIO(), set[str]()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for study in studies:
            folder = _free(name_of(study), taken)
            for path in _files(study):
                # without the time of packing: the same tables are the same bytes
                archive.writestr(zipfile.ZipInfo(f"{folder}/{path.relative_to(study)}"), path.read_bytes())
    return buffer.getvalue()


def name_of(study: Path) -> str:
    """The name of its folder, also of `.` and `..`."""
    return os.path.basename(os.path.abspath(study))


def _free(name: str, taken: set[str]) -> str:
    """A name that no other study has; letters that a file system or an archive may refuse are spelled out."""
    name = line(name).replace("\\", "-")
    names = (name if count == 1 else f"{name}-{count}" for count in range(1, len(taken) + 2))
    free = next(each for each in names if each not in taken)
    taken.add(free)
    return free


def _files(study: Path) -> Iterator[Path]:
    for table in TABLES:
        yield from reader.parts_without_a_gap(study / table)
    yield from (path for name in ("study.json", "study.yaml") if (path := study / name).is_file())


def extract(report: Path, folder: Path) -> list[Path]:
    """Write the tables of a report below a folder, byte for byte as they were; the folders of its studies.

    ValueError where the file is no report or holds anything else than tables, and where a study is there already.
    """
    try:
        found = _TABLES.search(report.read_bytes())
    except OSError as error:
        raise ValueError(f"{report} cannot be read: {error.strerror}") from error
    if found is None:
        raise ValueError(f"{report} carries no tables: `arat-ray report STUDY -o FILE` writes files that do")
    with _whole(report):
        packed = _unescaped(found[1])
        archive = zipfile.ZipFile(io.BytesIO(packed))
    entries = archive.infolist()
    if strange := [entry.filename for entry in entries if not _is_ours(entry)]:
        raise ValueError(f"{report} holds {strange[0]!r}, which no report does: it was changed; nothing was written")
    if sum(entry.file_size for entry in entries) > len(packed):
        raise ValueError(f"{report} would unpack to more than it holds: it was changed; nothing was written")
    studies = list(dict.fromkeys(folder / entry.filename.partition("/")[0] for entry in entries))
    if there := [study for study in studies if study.exists()]:
        raise ValueError(f"{there[0]} is there already: choose another folder with -o")
    with _whole(report):
        contents = {entry.filename: archive.read(entry) for entry in entries}
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        whole_files.replace(path, content)
    return studies


@contextmanager
def _whole(report: Path) -> Iterator[None]:
    """ValueError that names the report, where what it carries cannot be read within the block."""
    try:
        yield
    except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError) as error:
        raise ValueError(f"{report} is damaged ({error}): get it again") from error


def _is_ours(entry: zipfile.ZipInfo) -> bool:
    is_stored = entry.compress_type == zipfile.ZIP_STORED and entry.compress_size == entry.file_size
    is_plain = not entry.flag_bits & ~UTF8
    return (
        is_stored
        and is_plain
        and bool(_FILE.fullmatch(entry.filename))
        and entry.filename.partition("/")[0] not in (".", "..")
    )
