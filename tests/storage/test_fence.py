"""Two drivers of one study in a bucket: one of them has it, and the other overwrites no byte of its record."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO

import pytest

from arat_ray.storage import lock, objects
from arat_ray.storage.address import Address, mirror_of, parse
from arat_ray.storage.faults import BucketError, ConflictError
from arat_ray.storage.lock import Lock, TakenError
from arat_ray.storage.mirror import TABLES, Mirror
from arat_ray.storage.pushing import Pushing
from arat_ray.storage.snapshots import Snapshot, snapshot
from tests.cluster.studies import wait_until
from tests.storage.conftest import CREDENTIALS, there
from tests.storage.small_server import serving

OPEN, TRIALS = "journal/record-00000.jsonl", "trials/part-00000.parquet"
SEALED = f"{OPEN}.zst"
ZSTD = b"\x28\xb5\x2f\xfd a sealed segment"


class Driver:
    """A driver on a machine of its own."""

    def __init__(self, machine: str, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.machine, self.cache, self._monkeypatch = machine, tmp_path / machine, monkeypatch
        self.go()
        self.mirror, self.lock = Mirror(mirror_of(parse(address))), Lock(parse(address))
        self.told: list[str] = []
        self.pushing = Pushing(self.mirror, TABLES, log=self.told.append, lock=self.lock)

    def go(self) -> None:
        self._monkeypatch.setenv("ARAT_CACHE", str(self.cache))
        self._monkeypatch.setattr(lock, "machine", lambda: self.machine)

    def write(self, name: str, content: bytes) -> None:
        path = self.mirror.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name(".new").write_bytes(content)
        path.with_name(".new").replace(path)

    def begin(self) -> None:
        self.go()
        self.lock.acquire()
        self.mirror.pull(TABLES)
        self.mirror.restore()

    def push(self) -> bool:
        self.go()
        return self.pushing.flush()

    def pull(self, log: Callable[[str], None] = pytest.fail) -> None:
        self.go()
        self.mirror.pull(TABLES, log=log)

    def bucket(self) -> dict[str, bytes]:
        self.go()
        return there(self.mirror.folder)

    def record(self) -> bytes:
        return (self.mirror.folder / OPEN).read_bytes()


@pytest.fixture
def driver(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Driver]:
    monkeypatch.setattr(lock, "STALE_S", -1.0)  # whoever is silent is dead
    return lambda machine: Driver(machine, address, tmp_path, monkeypatch)


@pytest.mark.parametrize("scheme", ["s3", "file"])
def test_of_drivers_that_begin_in_the_same_instant_one_has_the_study(scheme: str, address: str, tmp_path: Path) -> None:
    for study in range(8):
        place = parse(f"{address}{study}" if scheme == "s3" else f"file://{tmp_path}/bucket{study}")
        barrier = threading.Barrier(4)

        def begin(place: Address = place, barrier: threading.Barrier = barrier) -> bool:
            one = Lock(place)
            barrier.wait()
            try:
                one.acquire()
            except TakenError:
                return False
            one.renew()
            return True

        with ThreadPoolExecutor(4) as pool:
            assert sorted(pool.map(lambda _: begin(), range(4))) == [False, False, False, True]


@pytest.mark.parametrize("scheme", ["s3", "file"])
def test_of_writers_that_put_in_the_same_instant_one_does_and_the_others_are_told(
    scheme: str, address: str, tmp_path: Path
) -> None:
    place = parse(address if scheme == "s3" else f"file://{tmp_path}/bucket")
    before = None
    for version in range(8):
        barrier = threading.Barrier(4)

        def put(
            content: bytes, before: objects.Stat | None = before, barrier: threading.Barrier = barrier
        ) -> objects.Stat | None:
            barrier.wait()
            try:
                return objects.put_over(place, OPEN, content, before)
            except ConflictError:
                return None

        contents = [f"{version} by {writer}".encode() for writer in range(4)]
        with ThreadPoolExecutor(4) as pool:
            done = dict(zip(contents, pool.map(put, contents), strict=True))
        ((won, before),) = [(content, stat) for content, stat in done.items() if stat]
        assert objects.read(place, OPEN) == won


def overtaken(driver: Callable[[str], Driver]) -> tuple[Driver, Driver]:
    """A driver that has begun a record, and one that was asked meanwhile and went on with it."""
    first, second = driver("first"), driver("second")
    first.begin()
    first.write(OPEN, b"begun\n")
    assert first.push()
    second.begin()
    second.write(OPEN, b"begun\nwent on\n")
    assert second.push()
    return first, second


def test_a_frozen_driver_that_was_overtaken_changes_no_byte_is_told_and_pushes_nothing_more(
    driver: Callable[[str], Driver],
) -> None:
    first = driver("first")
    first.begin()
    first.write(OPEN, b"begun\n")
    assert first.push()
    second = driver("second")
    second.begin()
    assert second.record() == b"begun\n"
    second.write(OPEN, b"begun\nwent on\n")
    assert second.push()

    first.lock._beat = time.monotonic()  # its beat is not due: it was frozen in the midst of a push
    first.write(OPEN, b"begun\nof the frozen one\n")
    first.write(TRIALS, b"made from it")
    for _ in range(2):
        assert not first.push()
    assert second.bucket() == {OPEN: b"begun\nwent on\n"}
    (text,) = first.told
    assert "was taken over by process" in text
    assert "from here on nothing is pushed" in text
    second.write(OPEN, b"begun\nwent on\nand on\n")
    assert second.push()
    assert second.told == []


FROZEN = """
import sys, time
from arat_ray.storage import lock
from arat_ray.storage.address import mirror_of, parse
from arat_ray.storage.mirror import TABLES, Mirror
from arat_ray.storage.pushing import Pushing

lock.machine = lambda: "another machine"
mirror, mine = Mirror(mirror_of(parse(sys.argv[1]))), lock.Lock(parse(sys.argv[1]))
mine.acquire()
pushing = Pushing(mirror, TABLES, log=lambda text: print(text, flush=True), lock=mine, every_s=0.01)
record = mirror.folder / "journal/record-00000.jsonl"
record.parent.mkdir(parents=True)
pushing.start()
while not pushing.is_lost:
    with record.open("ab") as file:
        file.write(b"first\\n")
    time.sleep(0.01)
"""


def test_a_process_that_is_stopped_and_goes_on_after_it_was_overtaken_changes_nothing(
    driver: Callable[[str], Driver], address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = driver("second")
    command = [sys.executable, "-c", FROZEN, address]
    environment = os.environ | {"ARAT_CACHE": str(second.cache.with_name("first"))}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: second.bucket().get(OPEN, b"").count(b"first") > 3, 30, "lines in the bucket")
        os.kill(process.pid, signal.SIGSTOP)
        second.begin()
        second.write(OPEN, second.record() + b"second\n")
        assert second.push()
        os.kill(process.pid, signal.SIGCONT)
        said, _ = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert "was taken over by process" in said
    assert "from here on nothing is pushed" in said
    assert second.bucket() == {OPEN: second.record()}
    assert second.record().endswith(b"first\nsecond\n")


def test_what_a_frozen_driver_sends_before_its_successor_has_written_anything_does_not_stay(
    driver: Callable[[str], Driver],
) -> None:
    first, second = driver("first"), driver("second")
    first.begin()
    first.write(OPEN, b"begun\n")
    assert first.push()
    second.begin()
    first.lock._beat = time.monotonic()
    first.write(OPEN, b"begun\nof the frozen one\n")
    assert first.push(), "nobody could know"
    second.write(OPEN, b"begun\nwent on\n")
    assert second.push()
    assert second.bucket() == {OPEN: b"begun\nwent on\n"}
    first.write(OPEN, b"begun\nof the frozen one\nmore\n")
    assert not first.push()
    assert second.bucket() == {OPEN: b"begun\nwent on\n"}
    assert second.told == []


def test_a_segment_that_an_overtaken_driver_sealed_is_none(driver: Callable[[str], Driver]) -> None:
    first, _ = overtaken(driver)
    (first.mirror.folder / OPEN).unlink()
    first.write(SEALED, ZSTD)
    told: list[str] = []
    again = driver("first")
    again.begin()
    again.pull(told.append)
    assert again.record() == b"begun\nwent on\n"
    assert not (again.mirror.folder / SEALED).exists(), "readers would prefer it"
    assert again.bucket() == {OPEN: b"begun\nwent on\n"}


def test_an_overtaken_driver_seals_nothing_and_takes_nothing_away(driver: Callable[[str], Driver]) -> None:
    first, second = overtaken(driver)
    first.lock._beat = time.monotonic()
    (first.mirror.folder / OPEN).unlink()
    first.write(SEALED, ZSTD)
    assert not first.push()
    assert "was taken over" in first.told[0]
    assert second.bucket() == {OPEN: b"begun\nwent on\n"}


def test_a_sealed_segment_that_is_gone_from_a_bucket_which_kept_the_open_one_stays_here(
    driver: Callable[[str], Driver],
) -> None:
    first, told = driver("first"), list[str]()
    first.begin()
    first.write(SEALED, ZSTD)
    assert first.push()
    objects.delete(first.mirror.address, SEALED)
    objects.put_over(first.mirror.address, OPEN, b"begun\n", None)
    first.pull(told.append)
    assert (first.mirror.folder / SEALED).read_bytes() == ZSTD
    assert not (first.mirror.folder / OPEN).exists()
    assert ["are gone from the bucket" in text for text in told] == [True]


def test_an_answer_that_was_lost_is_no_conflict(address: str) -> None:
    place = parse(address)
    one = objects.put_over(place, OPEN, b"one", None)
    assert objects.put_over(place, OPEN, b"one", None) == one
    two = objects.put_over(place, OPEN, b"two", one)
    assert objects.put_over(place, OPEN, b"two", one) == two
    with pytest.raises(ConflictError):
        objects.put_over(place, OPEN, b"three", one)
    mine = Lock(place)
    mine.acquire()
    before = mine._version
    mine.renew()
    mine._version = before  # as if no answer to that had come
    mine.renew()
    mine.release()
    Lock(place).acquire()


def test_a_sealed_segment_takes_the_place_of_the_open_one_once_it_is_there(driver: Callable[[str], Driver]) -> None:
    first, reader = driver("first"), driver("reader")
    first.begin()
    first.write(OPEN, b"begun\n")
    assert first.push()
    reader.pull()
    assert reader.record() == b"begun\n"
    (first.mirror.folder / OPEN).unlink()
    first.write(SEALED, ZSTD)
    first.write("journal/record-00001.jsonl", b"on\n")
    first.pull()
    assert not (first.mirror.folder / OPEN).exists(), "what is in the bucket is the beginning of what was sealed"
    assert first.push()
    assert set(first.bucket()) == {SEALED, "journal/record-00001.jsonl"}
    reader.pull()
    assert not (reader.mirror.folder / OPEN).exists()
    assert (reader.mirror.folder / SEALED).read_bytes() == ZSTD


def test_what_is_sealed_and_begun_while_a_push_reads_goes_up_before_what_was_made_from_it(
    driver: Callable[[str], Driver], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, put = driver("first"), objects.put
    first.begin()
    first.write(OPEN, b"begun\n")
    assert first.push()
    first.write(OPEN, b"begun\nmore\n")
    first.write(TRIALS, b"of before")

    def seal() -> None:
        first.write(SEALED, ZSTD)
        (first.mirror.folder / OPEN).unlink()
        first.write("journal/record-00001.jsonl", b"on\n")

    def sealed_meanwhile(path: Path) -> AbstractContextManager[Snapshot]:
        if path.name in OPEN and path.exists():
            seal()
            first.write(TRIALS, b"made from both")
        return snapshot(path)

    def noting(place: Address, name: str, content: IO[bytes]) -> objects.Stat:
        assert {SEALED, "journal/record-00001.jsonl"} <= set(objects.stats(place, ""))
        return put(place, name, content)

    monkeypatch.setattr("arat_ray.storage.mirror.snapshot", sealed_meanwhile)
    monkeypatch.setattr(objects, "put", noting)
    assert first.push()
    assert first.told == []
    assert first.push()
    assert first.bucket() == {SEALED: ZSTD, "journal/record-00001.jsonl": b"on\n", TRIALS: b"made from both"}


def test_checkpoints_go_up_then_the_record_then_what_is_made_from_it(
    driver: Callable[[str], Driver], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, pushed, put, put_over = driver("first"), list[str](), objects.put, objects.put_over
    evaluated, last = "journal/evaluations/a.jsonl.zst", "checkpoints/small-00000/last.pt"
    again = "journal/rewritten-1/record-00000.jsonl"
    in_order = [last, evaluated, OPEN, again, "study.json", "epochs/part-00000.parquet", TRIALS]
    first.begin()
    first.write("journal/optuna.log", b"a view, which stays here\n")
    for name in reversed(in_order):
        first.write(name, b"one\n")

    def noting(place: Address, name: str, content: IO[bytes]) -> objects.Stat:
        pushed.append(name)
        return put(place, name, content)

    def noting_over(place: Address, name: str, content: bytes, before: objects.Stat | None) -> objects.Stat:
        pushed.append(name)
        return put_over(place, name, content, before)

    monkeypatch.setattr(objects, "put", noting)
    monkeypatch.setattr(objects, "put_over", noting_over)
    first.mirror.push(lock=first.lock)
    assert pushed == in_order


def test_what_is_read_is_never_newer_than_the_record(
    driver: Callable[[str], Driver], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, reader, get = driver("first"), driver("reader"), objects.get
    first.begin()
    for name in (OPEN, TRIALS, "study.json"):
        first.write(name, b"1\n")
    assert first.push()

    def pushed_meanwhile(place: Address, name: str, path: Path) -> objects.Stat:
        if name in (TRIALS, "study.json"):
            first.write(OPEN, first.record() + b"more\n")
            first.write(name, first.record())
            assert first.push()
            reader.go()
        return get(place, name, path)

    monkeypatch.setattr(objects, "get", pushed_meanwhile)
    reader.pull()
    for name in (TRIALS, "study.json"):
        assert reader.record().startswith((reader.mirror.folder / name).read_bytes())
    assert reader.record() == first.record()


def test_where_nothing_may_be_deleted_the_open_segment_stays_and_is_passed_over(
    driver: Callable[[str], Driver], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, reader, asked = driver("first"), driver("reader"), list[str]()

    def denied(place: Address, name: str) -> None:
        asked.append(name)
        raise BucketError("access is denied", passes=False)

    monkeypatch.setattr(objects, "delete", denied)
    first.begin()
    first.write(OPEN, b"begun\n")
    assert first.push()
    (first.mirror.folder / OPEN).unlink()
    first.write(SEALED, ZSTD)
    for _ in range(2):
        assert first.push()
    assert asked == [OPEN]
    assert set(first.bucket()) == {OPEN, SEALED}
    reader.pull()
    assert not (reader.mirror.folder / OPEN).exists()


def test_a_bucket_that_is_emptied_under_a_driver_is_filled_again(driver: Callable[[str], Driver]) -> None:
    first = driver("first")
    first.begin()
    first.write(OPEN, b"begun\n")
    first.write(TRIALS, b"trials")
    assert first.push()
    for name in (OPEN, TRIALS, ".lock-study"):
        objects.delete(first.mirror.address, name)
    first.write(OPEN, b"begun\nmore\n")
    first.push()
    assert first.push()
    assert first.bucket() == {OPEN: b"begun\nmore\n", TRIALS: b"trials"}
    assert first.told == []


@pytest.mark.parametrize("conditions", ["ignored", "refused"])
def test_a_server_without_conditional_writes_is_named_and_still_keeps_drivers_apart(
    conditions: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with serving() as server:
        server.conditions = conditions
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        place, told = parse("s3://bucket/small"), list[str]()
        first = Lock(place)
        first.acquire(log=told.append)
        (text,) = told
        assert text.startswith(f"{server.url} does not know conditional writes")
        with pytest.raises(TakenError):
            Lock(place).acquire()
        first.renew()
        one = objects.put_over(place, OPEN, b"one", None)
        with pytest.raises(ConflictError):
            objects.put_over(place, OPEN, b"two", None)
        objects.put_over(place, OPEN, b"two", one)
        first.release()
        Lock(place).acquire()
