"""Locks between processes: one holder at a time, on whatever file system (`storage.lock` is that of a bucket).

Where the file system knows `flock`, the kernel keeps the lock and frees it when its holder ends, however that is.
Lustre without `-o flock`, NFS without its lock service and some others refuse it; there a lease takes its place: a file
that only one process can create (O_EXCL), which says who that is and is touched every BEAT_S. It counts as free when
its process has ended, which other processes of the same machine see at once and other machines when it was not touched
for STALE_S. A holder that was frozen for longer and finds itself succeeded ends at once, as if it had been killed.

POSIX locks (`fcntl.lockf`) are no way between: those file systems refuse them as well, and a process loses its own
wherever it closes the same file once more.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from arat_ray.exit_codes import NOT_SAVED

BEAT_S, STALE_S = 15.0, 120.0
LOOK_S = 0.1
GLANCE_S = 0.3
"""How long a lock that is held may be held by one who only looks (`is_held`)."""
NO_FLOCK = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.EPERM, errno.ENOTTY}
HELD = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}
"""SMB says EACCES of a lock that another one has."""


class HeldError(ValueError):
    """Another process has the lock of a folder."""

    def __init__(self, path: Path, holder: dict[str, Any] | None = None) -> None:
        who = f" ({holder['pid']} on {holder['host']})" if holder and {"pid", "host"} <= holder.keys() else ""
        super().__init__(f"{path.parent} is being written to by another process{who}; wait for it or stop it")


@contextmanager
def held(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock `path`, a file that stays, within the block; its folder must be there.

    HeldError where another process has it, unless this one is to `wait`; OSError where the file cannot be made.
    """
    deadline = None if wait else time.monotonic() + GLANCE_S
    with path.open("a+") as file:
        if not _flock(file, fcntl.LOCK_EX, deadline):
            with _lease(path, deadline):
                yield
            return
        if (holder := _holder(path)) is not None:  # of a machine whose mount has no flock
            raise HeldError(path, holder)
        with suppress(OSError):  # a full disk; the name is for people alone
            os.truncate(file.fileno(), 0)
            os.write(file.fileno(), json.dumps(_me()).encode())  # past the buffer, which closing would write again
        yield


def refuse(path: Path) -> None:
    """HeldError where another process has the lock; nothing is made, and nothing taken."""
    if is_held(path):
        raise HeldError(path, _holder(path) or _said(path))


def is_held(path: Path) -> bool:
    """Whether a process has the lock; as far as one can know where the file may not be read."""
    with suppress(OSError, ValueError), path.open() as file:  # a name with a zero in it is no file's
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in HELD:
                return True
        return _holder(path) is not None
    return False


def machine() -> str:
    """Where process ids mean the same: this boot, and in a container this one."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # no Linux
        return platform.node()


def started(pid: int) -> str | None:
    """When a process of this machine was started, which tells two of one id apart; None where it is gone."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state == "Z" else fields[18]  # field 22 of proc(5)


def _flock(file: IO[str], kind: int, deadline: float | None) -> bool:
    """Take the lock as the kernel keeps it; False where this file system knows no such locks."""
    while True:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB if deadline else kind)
        except OSError as error:
            if error.errno in HELD:
                if deadline and time.monotonic() >= deadline:
                    raise HeldError(Path(file.name), _said(Path(file.name))) from None
                time.sleep(LOOK_S)
                continue
            if error.errno in NO_FLOCK:
                return False
            raise
        return True


def _me() -> dict[str, Any]:
    pid = os.getpid()
    return {
        "token": uuid.uuid4().hex,
        "host": socket.gethostname(),
        "pid": pid,
        "started": started(pid),
        "machine": machine(),
    }


def _said(path: Path) -> dict[str, Any] | None:
    """What a lock file says of its last holder; None where it says nothing."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _at(path: Path) -> Path:
    """Where the lease of a lock is."""
    return path.with_name(f"{path.name}.lease")


@contextmanager
def _lease(path: Path, deadline: float | None) -> Iterator[None]:
    lease, me = _at(path), _me()
    while True:
        try:
            opened = os.open(lease, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            holder = _holder(path)
            if deadline and time.monotonic() >= deadline:
                raise HeldError(path, holder) from None
            time.sleep(LOOK_S)
        else:
            break
    try:
        with open(opened, "w") as file:
            file.write(json.dumps(me))
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        lease.unlink(missing_ok=True)
        raise
    over = threading.Event()
    beating = threading.Thread(target=_beat, args=(lease, me["token"], over), daemon=True, name=f"lease {lease}")
    beating.start()
    try:
        yield
    finally:
        over.set()
        with suppress(OSError):
            if (_said(lease) or {}).get("token") == me["token"]:
                lease.unlink()


def _beat(lease: Path, token: str, over: threading.Event) -> None:
    while not over.wait(BEAT_S):
        try:
            with lease.open() as file:
                said = json.loads(file.read() or "{}")
            if said.get("token") != token:
                sys.stderr.write(f"{lease.parent} was taken over by another process while this one did not answer\n")
                os._exit(NOT_SAVED)  # what it computed since then is not where it belongs
            os.utime(lease)
        except (OSError, ValueError):  # a file system that is away: so it is for the others
            continue


def _holder(path: Path) -> dict[str, Any] | None:
    """Who has the lease and is alive, as far as one can know; a lease of nobody is taken away."""
    lease = _at(path)
    try:
        with lease.open() as file:  # opened, because an NFS client may remember old times of a closed one
            touched = os.fstat(file.fileno()).st_mtime
            text = file.read()
    except FileNotFoundError:
        return None
    except OSError:
        return {}
    try:
        holder: dict[str, Any] = json.loads(text)
        is_here = holder["machine"] == machine() and holder["started"] is not None
        is_alive = started(holder["pid"]) == holder["started"] if is_here else None
    except (ValueError, KeyError, TypeError, AttributeError):  # it is being written, or was when its machine went down
        holder, is_alive = {}, None
    if is_alive is None:
        is_alive = _now_at(lease) - touched < STALE_S
    if is_alive:
        return holder
    _remove(lease, text)
    return None


def _now_at(lease: Path) -> float:
    """The time by the clock that the file system writes down."""
    probe = lease.with_name(f"{lease.name}.{uuid.uuid4().hex}")
    try:
        probe.touch(exist_ok=False)
        return probe.stat().st_mtime
    except OSError:  # it may not be written here
        return time.time()
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)


def _remove(lease: Path, text: str) -> None:
    """Take away a lease that says this; another one that came meanwhile is put back."""
    aside = lease.with_name(f"{lease.name}.{uuid.uuid4().hex}")
    with suppress(OSError):
        lease.rename(aside)
        if aside.read_text() != text:
            aside.rename(lease)
        else:
            aside.unlink()
