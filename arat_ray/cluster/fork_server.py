"""A fork server: the workers of a Ray that runs on this machine alone are forks of a process that has torch already.

Ray starts each worker as a new Python, which then imports torch and pandas for seconds. Here a process only forks, once
for each worker; `worker_start` asks it to, in the place of Ray's `setup_worker`, and starts the worker in Ray's own way
where it is not there. A command forks it as long as it has computed nothing (`started`); for others, such as notebooks,
it is a new Python that imports torch while Ray starts (`spawned`). It ends with the driver.

Ray itself is imported after the fork: it reads settings of a worker, such as RAY_RAYLET_PID, once and then.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import importlib
import json
import os
import runpy
import secrets
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

PRELOADED = (
    *("torch", "pandas", "pyarrow.fs", "arat_ray.training.loop", "arat_ray.training.checkpoint_writer"),
    *("fsspec", "google.protobuf.json_format", "jsonschema", "msgpack", "pydantic", "requests"),  # of Ray's own imports
)
FOR_SEVERAL_WORKERS = "torch._dynamo"
"""What torch imports to let several workers add up their gradients. The server does while Ray starts, but not where
there is a GPU: some versions of torch ask for it then, and of a process that has asked no fork may use one.
"""
DEVICES = ("/dev/nvidia", "/dev/kfd")
"""Files that a process has open which has begun to use a GPU. No fork of it could use one."""
M_ARENA_MAX = -8  # of glibc's malloc.h
OOM_SCORE = "RAY_worker_oom_score_adjustment"
LENGTH = struct.Struct("<I")
"""What precedes a request: its length, and with it the three files for standard input, output and error."""

PROGRAM = """
import json, os, sys
if not sys.flags.safe_path:
    sys.path[0] = os.path.dirname(sys.executable)
from arat_ray.cluster import fork_server
fork_server.serve_alone(**json.loads(sys.argv[1]))
"""
"""Of a new Python that is to be the server. As workers do, it imports what is installed, and nothing from where the
driver runs."""

Start = Callable[[socket.socket, int, int], Callable[[], None]]
"""Begins a server, with what it listens on and both ends of a pipe, of which this process keeps the second one; how to
end it."""

_served: list[str] = []


def address() -> str | None:
    """Where the fork server of this process is, in the abstract namespace of Unix sockets; None where it has none."""
    return _served[-1] if _served else None


@contextmanager
def started(cluster: str | None, *, several_workers: bool = False) -> Iterator[None]:
    """Have a fork server in this block, where workers can be forks and no other `cluster` is to be joined.

    Where trials take several workers, it has what these need as well.

    To be called by a process that is the program's own and has computed nothing: OpenMP's threads, among others, do not
    outlive a fork.
    """
    if (cluster or os.environ.get("RAY_ADDRESS") or "local") != "local" or not _can_fork():
        yield
        return
    for module in PRELOADED:
        importlib.import_module(module)
    if not _can_fork():
        yield
        return
    with _server(functools.partial(_fork, several_workers)):
        yield


@contextmanager
def spawned(*, several_workers: bool = False) -> Iterator[None]:
    """Have a fork server in this block that is a program of its own, unless one is there; for any process on Linux.

    Workers that ask before it is ready wait for it, a minute at most.
    """
    if sys.platform != "linux" or _served:
        yield
        return
    with _server(functools.partial(_spawn, several_workers)):
        yield


@contextmanager
def _server(start: Start) -> Iterator[None]:
    """Have the server in this block that `start` begins; where it cannot, workers start in Ray's own way."""
    begun = _begun(start)
    if begun is None:
        yield
        return
    name, alive, end = begun
    _served.append(name)
    try:
        yield
    finally:
        _served.remove(name)
        os.close(alive)
        end()  # it may be importing still, and leaves nothing behind


def _begun(start: Start) -> tuple[str, int, Callable[[], None]] | None:
    """The name of a new server, what it lives as long as, and how to end it; None where there is no room for one."""
    name = f"arat-ray-{secrets.token_hex(16)}"
    ended, alive = os.pipe()
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"\0{name}")
            listener.listen(64)
            return name, alive, start(listener, ended, alive)
    except OSError:
        os.close(alive)
        return None
    finally:
        os.close(ended)


def _fork(several_workers: bool, listener: socket.socket, ended: int, alive: int) -> Callable[[], None]:
    pid = os.fork()
    if pid == 0:
        os.close(alive)
        _serve(listener, ended, _needed(several_workers))

    def end() -> None:
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    return end


def _spawn(several_workers: bool, listener: socket.socket, ended: int, alive: int) -> Callable[[], None]:
    given = {"listener": listener.fileno(), "ended": ended, "modules": [*PRELOADED, *_needed(several_workers)]}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, json.dumps(given)],
        pass_fds=(listener.fileno(), ended),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def end() -> None:
        process.kill()
        process.wait()

    return end


def serve_alone(listener: int, ended: int, modules: Sequence[str]) -> NoReturn:
    """Be the server that `spawned` begins."""
    _serve(socket.socket(fileno=listener), ended, modules)


def _can_fork() -> bool:
    if sys.platform != "linux" or threading.active_count() > 1 or "ray" in sys.modules:
        return False
    with suppress(OSError):
        return not any(_target(file).startswith(DEVICES) for file in Path("/proc/self/fd").iterdir())
    return False


def _has_gpu() -> bool:
    return any(str(file).startswith(DEVICES) for file in Path("/dev").iterdir())


def _needed(several_workers: bool) -> list[str]:
    """Beside what all workers need."""
    return [FOR_SEVERAL_WORKERS] if several_workers and not _has_gpu() else []


def _target(file: Path) -> str:
    with suppress(OSError):  # the folder that is being read was open itself
        return os.readlink(file)
    return ""


def _serve(listener: socket.socket, ended: int, modules: Sequence[str]) -> NoReturn:
    """Import, and fork for each request until the other end of `ended` is closed, as it is when the driver is gone."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the driver
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a worker
        nothing = os.open(os.devnull, os.O_RDWR)
        for standard in range(3):  # whoever reads what the driver writes is not kept waiting
            os.dup2(nothing, standard)
        os.close(nothing)
        for module in modules:
            importlib.import_module(module)
        if not _can_fork():
            os._exit(1)
        while True:
            ready, _, _ = select.select([listener.fileno(), ended], [], [])
            if ended in ready:
                os._exit(0)
            connection, _ = listener.accept()
            with connection:
                _answer(connection, (listener, ended))
    finally:
        os._exit(1)


def _answer(connection: socket.socket, own: tuple[socket.socket, int]) -> None:
    """Fork the worker that is asked for, and say its process id; whoever is not this user is not answered."""
    if peer(connection) != os.geteuid():
        return
    connection.settimeout(10)
    files: list[int] = []
    try:
        head, files, _, _ = socket.recv_fds(connection, LENGTH.size, 3)
        (length,) = LENGTH.unpack(head)
        request = json.loads(_read(connection, length))
        if _is_alone(connection):
            return
        pid = os.fork()
        if pid == 0:
            own[0].close()
            os.close(own[1])
            connection.close()
            _become(request, files)
        try:
            connection.sendall(str(pid).encode())
        except OSError:  # who asked has just given up, and starts it otherwise
            os.kill(pid, signal.SIGKILL)
    except (OSError, ValueError, struct.error):  # one that asked is gone, or has said something else
        return
    finally:
        for file in files:
            os.close(file)


def _is_alone(connection: socket.socket) -> bool:
    """Whether nobody is at the other end any more: who waited for too long starts the worker otherwise."""
    said, _, _ = select.select([connection], [], [], 0)
    return bool(said) and not connection.recv(1, socket.MSG_PEEK)


def _read(connection: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        more = connection.recv(length - len(data))
        if not more:
            raise ConnectionError
        data += more
    return data


def _become(request: dict[str, Any], files: list[int]) -> NoReturn:
    """Be the worker: `request` says with what arguments, environment, folder and blocked signals."""
    code = 1
    try:
        for standard, file in enumerate(files):
            os.dup2(file, standard)
            os.close(file)
        for each in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(each, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, request["blocked"])
        os.environ.clear()
        os.environ.update(request["environment"])
        _use_one_heap()
        os.chdir(request["folder"])
        with suppress(OSError):  # the first to end where memory runs out, as Ray wants it
            Path("/proc/self/oom_score_adj").write_text(os.environ.get(OOM_SCORE, "1000"))
        sys.argv = request["arguments"]
        if not sys.flags.safe_path:
            sys.path[0] = os.path.dirname(sys.argv[0])  # in the place of the driver's
        atexit._clear()  # what the driver had registered is for the driver
        runpy.run_path(sys.argv[0], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001  of whatever kind: it must not go on as the driver
        traceback.print_exc()
    finally:
        with suppress(Exception):
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _use_one_heap() -> None:
    """What MALLOC_ARENA_MAX (`arat_ray.cluster`) says to a new process, and to none that is forked.

    glibc has a heap for each thread that runs beside others, and gives it to another thread when that has ended. Each
    trial is a thread, so that in time each of a worker's heaps would hold what one trial needs.
    """
    with suppress(AttributeError, ValueError):  # another C library, no number
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, int(os.environ.get("MALLOC_ARENA_MAX", "1")))


def peer(connection: socket.socket) -> int:
    """The user whose process is at the other end."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[1])
