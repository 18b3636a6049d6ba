"""Segments: what was written comes back line by line, and whatever is not as it was written is named."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from arat_ray.results import segments
from arat_ray.results.reading import Damage, Reading, decompressed, record_of
from arat_ray.results.segments import Line, Segments, folder_of, rewrite

SMALL = 1500


def events(count: int) -> list[dict[str, Any]]:
    """Epochs of two trials, with an end in between."""
    found: list[dict[str, Any]] = []
    for i in range(count):
        found.append({"epoch": {"trial_id": f"x-{i % 2:05d}", "epoch": i, "loss": 0.1 * i, "text": 'quo"te\n\\'}})
        if i % 7 == 3:
            found.append({"ended": {"trial_id": f"x-{i % 2:05d}"}})
    return found


def written(folder: Path, count: int = 60, *, segment_bytes: int = SMALL) -> list[dict[str, Any]]:
    some, record = events(count), Segments(folder, segment_bytes=segment_bytes)
    for i, event in enumerate(some):
        assert record.take(event) == i
        if i % 3 == 0:
            record.flush()
    record.flush()
    return some


def damages(folder: Path) -> tuple[list[Line], list[Damage]]:
    found: list[Damage] = []
    return list(Reading(folder, found.append)), found


def test_what_was_taken_comes_back_in_order_over_sealed_and_open_segments(tmp_path: Path) -> None:
    some = written(tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert [name.removeprefix("record-0000") for name in names[:2]] == ["0.jsonl.zst", "1.jsonl.zst"]
    assert names[-1].endswith(".jsonl")
    reading = Reading(tmp_path)
    lines = list(reading)
    assert [line.event for line in lines] == some
    assert [line.number for line in lines] == list(range(len(some)))
    assert {line.kind for line in lines} == {b"epoch", b"ended"}
    assert reading.lines == len(some)
    more = Segments(tmp_path, record=reading.record, lines=reading.lines, segment_bytes=SMALL)
    more.take({"epoch": {"trial_id": "x-00009"}})
    more.flush()
    assert [line.event for line in Reading(tmp_path)][-2:] == [some[-1], {"epoch": {"trial_id": "x-00009"}}]


def test_lines_of_other_kinds_are_found_without_a_look_at_each(tmp_path: Path) -> None:
    written(tmp_path, 200)
    reading, plain = Reading(tmp_path), Reading(tmp_path)
    for segment, same in zip(reading.segments(), plain.segments(), strict=True):
        every = list(plain.lines_of(same))
        if segment.is_whole:
            others, count = reading.others_of(segment, b"epoch")
            assert others == [line for line in every if line.kind != b"epoch"]
            assert count == len(every) - len(others)
        else:
            list(reading.lines_of(segment))
        assert reading.lines == plain.lines


def test_times_and_numbers_of_numpy_are_written_as_json_has_them(tmp_path: Path) -> None:
    record = Segments(tmp_path)
    record.take({"ended": {"at": datetime(2026, 11, 28, tzinfo=UTC), "loss": np.float64(0.1), "epoch": np.int64(3)}})
    record.flush()
    assert [line.event for line in Reading(tmp_path)] == [
        {"ended": {"at": "2026-11-28T00:00:00+00:00", "loss": 0.1, "epoch": 3}}
    ]


def test_no_flipped_bit_is_passed_over(tmp_path: Path) -> None:
    some, draw = written(tmp_path), random.Random(0)
    for path in sorted(tmp_path.iterdir()):
        content = path.read_bytes()
        for _ in range(400):
            place = draw.randrange(8 * len(content))
            flipped = bytearray(content)
            flipped[place // 8] ^= 1 << place % 8
            path.write_bytes(flipped)
            lines, found = damages(tmp_path)
            is_same = [line.event for line in lines] == some  # a few bits of a compressed frame say nothing
            assert found or (is_same and path.suffix == ".zst"), f"{path.name}, bit {place}"
            assert {str(line.event) for line in lines} <= set(map(str, some)), "what is read is right"
        path.write_bytes(content)


def test_a_cut_at_any_byte_of_the_open_segment_leaves_its_whole_lines_and_is_no_damage(tmp_path: Path) -> None:
    some = written(tmp_path, 12, segment_bytes=10**6)
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    for size in range(len(content)):
        path.write_bytes(content[:size])
        lines, found = damages(tmp_path)
        assert not found, size
        assert [line.event for line in lines] == some[: max(content[:size].count(b"\n") - 1, 0)]


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("record-00000.jsonl.zst", None, "record-00000.jsonl is missing"),
        ("record-00001.jsonl.zst", None, "record-00001.jsonl is missing"),
        ("record-00001.jsonl.zst", b"", "record-00001.jsonl.zst is empty"),
        ("record-00001.jsonl.zst", bytes(300), "is damaged and cannot be decompressed"),
        ("record-00001.jsonl.zst", "half", "is damaged and cannot be decompressed"),
        ("record-00001.jsonl.zst", "the one before", "is of another record"),
        ("open", bytes(300), "does not end with a whole line: 300 bytes are damaged"),
        ("open", "a line less", "where line"),
        ("open", "a line twice", "where line"),
    ],
)
def test_damaged_files_are_named(name: str, damage: bytes | str | None, words: str, tmp_path: Path) -> None:
    written(tmp_path)
    path = sorted(tmp_path.iterdir())[-1] if name == "open" else tmp_path / name
    content = path.read_bytes()
    lines = content.splitlines(keepends=True)
    if damage is None:
        path.unlink()
    elif damage == "the one before":
        path.write_bytes((tmp_path / "record-00000.jsonl.zst").read_bytes())
    elif damage == "half":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "a line less":
        path.write_bytes(b"".join([*lines[:2], *lines[3:]]))
    elif damage == "a line twice":
        path.write_bytes(b"".join([*lines[:3], *lines[2:]]))
    else:
        assert isinstance(damage, bytes)
        path.write_bytes(damage)
    _, found = damages(tmp_path)
    assert any(words in str(each) for each in found), found
    with pytest.raises(ValueError, match=path.name.partition(".")[0]):
        list(Reading(tmp_path))


def test_a_segment_of_another_record_is_told(tmp_path: Path) -> None:
    written(tmp_path / "a")
    written(tmp_path / "b")
    (tmp_path / "a/record-00001.jsonl.zst").write_bytes((tmp_path / "b/record-00001.jsonl.zst").read_bytes())
    _, found = damages(tmp_path / "a")
    assert "record-00001.jsonl.zst is of another record" in str(found[0])


FULL = """
import pathlib, resource, sys
from arat_ray.results.segments import Segments
record = Segments(pathlib.Path(sys.argv[1]))
for i in range(3):
    record.take({"epoch": {"epoch": i}})
record.flush()
resource.setrlimit(resource.RLIMIT_FSIZE, (record._size + 20, resource.RLIM_INFINITY))
record.take({"epoch": {"epoch": 3}})
for _ in range(2):
    try:
        record.flush()
    except OSError:
        print(record.pending, len((pathlib.Path(sys.argv[1]) / "record-00000.jsonl").read_bytes()) == record._size)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
record.take({"epoch": {"epoch": 4}})
record.flush()
"""


def test_a_full_disk_leaves_whole_lines_and_loses_none(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["1", "True"] * 2
    assert [line.event["epoch"]["epoch"] for line in Reading(tmp_path)] == [0, 1, 2, 3, 4]


def test_a_segment_that_cannot_be_sealed_stays_open_and_the_next_one_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, lines: bytes) -> None:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(segments, "write_sealed", full)
        some = written(tmp_path)
    assert not list(tmp_path.glob("*.zst"))
    assert [line.event for line in Reading(tmp_path)] == some


def test_a_process_killed_between_sealing_and_removing_leaves_one_segment(tmp_path: Path) -> None:
    some = written(tmp_path)
    sealed = tmp_path / "record-00001.jsonl.zst"
    content, _ = decompressed(sealed.read_bytes())
    (tmp_path / "record-00001.jsonl").write_bytes(content[: content.rfind(b"\n", 0, -1) + 1])
    reading = Reading(tmp_path)
    assert [line.event for line in reading] == some
    last = max(segments.files(tmp_path))
    for path in list(tmp_path.iterdir()):  # as if it had been killed at the first one
        if int(path.name[7:12]) > 1:
            path.unlink()
    reading = Reading(tmp_path)
    lines = list(reading)
    assert last > 1
    Segments(tmp_path, record=reading.record, lines=len(lines))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["record-00000.jsonl.zst", "record-00001.jsonl.zst"]


def test_a_record_that_is_written_again_counts_from_the_moment_that_it_is_there(tmp_path: Path) -> None:
    some = written(tmp_path / "journal")
    record = record_of(tmp_path)
    assert folder_of(tmp_path) == tmp_path / "journal"
    for number in (1, 2):
        assert rewrite(tmp_path, some[:number], record=record) == tmp_path / "journal" / f"rewritten-{number}"
        assert (record_of(tmp_path), len(list(Reading(folder_of(tmp_path))))) == (record, number)
    assert [line.event for line in Reading(tmp_path / "journal")] == some, "the old one stays"
