"""One holder at a time, with `flock` and where the file system has none. Holders are real processes."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from arat_ray import locks
from arat_ray.exit_codes import NOT_SAVED
from tests.no_flock import can_be_refused, refuse_flock

HOLD = """
import sys
from pathlib import Path
from arat_ray import locks
try:
    with locks.held(Path(sys.argv[1])):
        print("held", flush=True)
        sys.stdin.read()
except locks.HeldError as error:
    print(error, flush=True)
"""
WITHOUT = [*sorted(locks.NO_FLOCK)]


@pytest.fixture(params=["flock", *(errno.errorcode[number] for number in WITHOUT)])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file system with `flock`, and others that refuse it in this process, each in its way."""
    if request.param != "flock":
        number = getattr(errno, request.param)

        def refused(file: Any, operation: int) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "flock", refused)
    return str(request.param)


@contextmanager
def holder(path: Path, *, has_flock: bool = True) -> Iterator[subprocess.Popen[str]]:
    """A process that was asked to hold the lock; its first line has come."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=None if has_flock else refuse_flock,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def test_one_has_it_and_another_is_refused_in_words(kind: str, tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    assert not locks.is_held(path)
    with locks.held(path):
        assert locks.is_held(path)
        with pytest.raises(
            locks.HeldError, match=f"{tmp_path} is being written to by another process .{os.getpid()} on"
        ):
            locks.held(path).__enter__()
        with pytest.raises(ValueError, match="wait for it or stop it"):
            locks.refuse(path)
    assert not locks.is_held(path)
    locks.refuse(path)
    with locks.held(path):
        pass
    assert [each.name for each in tmp_path.iterdir()] == [".lock"]


def test_who_waits_gets_it_when_it_is_free(kind: str, tmp_path: Path) -> None:
    path, order = tmp_path / ".lock", list[str]()

    def wait() -> None:
        with locks.held(path, wait=True):
            order.append("second")

    thread = threading.Thread(target=wait)
    with locks.held(path):
        thread.start()
        time.sleep(2 * locks.LOOK_S)  # enough to be wrong, if it were
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_a_look_keeps_nobody_from_taking_it(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    path.touch()
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        threading.Timer(locks.GLANCE_S / 3, fcntl.flock, (file, fcntl.LOCK_UN)).start()
        with locks.held(path):
            pass


@pytest.mark.skipif(not can_be_refused(), reason="takes seccomp")
@pytest.mark.parametrize("has_flock", [True, False], ids=["flock", "none"])
def test_processes_keep_each_other_out_and_a_killed_one_leaves_it_free(has_flock: bool, tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with holder(path, has_flock=has_flock) as first:
        assert said(first) == "held"
        assert (tmp_path / ".lock.lease").exists() != has_flock
        assert locks.is_held(path)
        with holder(path, has_flock=has_flock) as second:
            assert said(second).startswith(f"{tmp_path} is being written to by another process ({first.pid} on ")
        first.kill()
        first.wait()
        assert not locks.is_held(path)
        with holder(path, has_flock=has_flock) as third:
            assert said(third) == "held"


@pytest.mark.skipif(not can_be_refused(), reason="takes seccomp")
def test_a_machine_that_has_flock_heeds_the_lease_of_one_that_has_not(tmp_path: Path) -> None:
    with holder(tmp_path / ".lock", has_flock=False) as first:
        assert said(first) == "held"
        with pytest.raises(locks.HeldError):
            locks.held(tmp_path / ".lock").__enter__()


def test_a_full_disk_keeps_nobody_from_a_lock(tmp_path: Path) -> None:
    path, limits = tmp_path / ".lock", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        with locks.held(path):
            assert locks.is_held(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b""


@pytest.mark.parametrize(
    ("content", "silent_s", "is_held"),
    [
        ({"machine": "another", "pid": 1, "started": "1", "host": "node7"}, 0, True),
        ({"machine": "another", "pid": 1, "started": "1", "host": "node7"}, locks.STALE_S + 1, False),
        ({"machine": locks.machine(), "pid": os.getpid(), "started": "another time", "host": "here"}, 0, False),
        ({"machine": locks.machine(), "pid": os.getpid(), "started": locks.started(os.getpid())}, 9999, True),
        ("", 0, True),
        ("", locks.STALE_S + 1, False),
        ('{"machi', locks.STALE_S + 1, False),
        ([1], 0, True),
    ],
)
def test_a_lease_is_free_when_its_process_has_ended_or_its_machine_is_silent(
    content: Any, silent_s: float, is_held: bool, tmp_path: Path
) -> None:
    lease, path = tmp_path / ".lock.lease", tmp_path / ".lock"
    path.touch()
    lease.write_text(content if isinstance(content, str) else json.dumps(content))
    os.utime(lease, (time.time() - silent_s,) * 2)
    assert locks.is_held(path) == is_held
    assert lease.exists() == is_held


def test_a_lease_that_is_held_does_not_grow_old(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(locks, "BEAT_S", 0.01)
    lease = tmp_path / ".lock.lease"
    monkeypatch.setattr(fcntl, "flock", _refused)
    with locks.held(tmp_path / ".lock"):
        os.utime(lease, (0, 0))
        while lease.stat().st_mtime == 0:
            time.sleep(0.01)
    assert not lease.exists()


@pytest.mark.skipif(not can_be_refused(), reason="takes seccomp")
def test_a_frozen_holder_that_was_succeeded_ends_at_once(tmp_path: Path) -> None:
    program = f"from arat_ray import locks; locks.BEAT_S = 0.05\n{HOLD}"
    command = [sys.executable, "-c", program, str(tmp_path / ".lock")]
    first = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=refuse_flock,
    )
    assert said(first) == "held"
    (tmp_path / ".lock.lease").write_text(json.dumps({"token": "another's"}))
    assert first.wait() == NOT_SAVED  # with its input still open
    assert "taken over by another process" in first.communicate()[1]
    assert (tmp_path / ".lock.lease").exists()


def test_no_other_module_has_a_lock_of_its_own() -> None:
    sources = [path for path in Path(locks.__file__).parent.rglob("*.py") if path.name != "locks.py"]
    with_locks = [path.name for path in sources if "fcntl" in path.read_text() or "filelock" in path.read_text()]
    assert not with_locks


def _refused(file: Any, operation: int) -> None:
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
