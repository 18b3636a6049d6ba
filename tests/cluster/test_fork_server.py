"""Workers that are forks of the driver's, and those that cannot be; with small scripts in the place of Ray's."""

from __future__ import annotations

import json
import os
import platform
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from arat_ray.cluster import fork_server, parts, worker_start
from arat_ray.cluster.parts import WORKER_START, left_out
from arat_ray.cluster.ray_internals import psutil, services
from tests.cluster.studies import wait_until

DRIVER = """
import atexit, sys
from pathlib import Path
from arat_ray.cluster import fork_server
fork_server.PRELOADED = ("colorsys",)
fork_server.FOR_SEVERAL_WORKERS = "tabnanny"
atexit.register(lambda: print("the driver ends", flush=True))
{before}
with {way}several_workers={several_workers}):
    print(fork_server.address(), flush=True)
    sys.stdin.read()
"""
SETUP = "import json, sys; print('set up', json.dumps(sys.argv[1:]))"
WORKER = """
import json, os, pathlib, signal, sys
HANDLED = signal.SIGINT, signal.SIGTERM, signal.SIGCHLD
print(json.dumps({
    "arguments": sys.argv, "name": __name__, "preloaded": "colorsys" in sys.modules,
    "for several workers": "tabnanny" in sys.modules, "folder": os.getcwd(),
    "environment": dict(os.environ), "first": sys.path[0], "oom": pathlib.Path("/proc/self/oom_score_adj").read_text(),
    "blocked": signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []),
    "parent": os.getppid(), "pid": os.getpid(),
    "handlers": [getattr(signal.getsignal(each), "name", "") for each in HANDLED],
}), flush=True)
print("heard", sys.stdin.readline(), file=sys.stderr, flush=True)
sys.exit(7)
"""
HEAPS = """
import ctypes, sys, threading
together = threading.Barrier(4)
def allocate():
    kept = ctypes.create_string_buffer(10**6)
    together.wait()
threads = [threading.Thread(target=allocate) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fopen(sys.argv[1].encode(), b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
"""
FORKED, SPAWNED = "fork_server.started({cluster}, ", "fork_server.spawned("
BOTH = pytest.mark.parametrize("way", [FORKED, SPAWNED], ids=["a fork", "a new Python"])
NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="to be another user takes root")
only_linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no worker is a fork")
pytestmark = only_linux


@contextmanager
def driver(
    *,
    way: str = FORKED,
    cluster: str | None = None,
    before: str = "",
    several_workers: bool = False,
    **environment: str,
) -> Iterator[tuple[Any, str]]:
    """A driver in the middle of its block: its process, and the name of its fork server."""
    block = way.format(cluster=repr(cluster))
    program = DRIVER.format(way=block, before=before, several_workers=several_workers)
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | environment,
    )
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Start a worker as a raylet does."""
    (tmp_path / "setup.py").write_text(SETUP)
    (tmp_path / "worker.py").write_text(WORKER)

    def started(server: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        words = [WORKER_START, server, tmp_path / "setup.py", "-s", tmp_path / "worker.py", *arguments]
        command = [sys.executable, "-I", "-S", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, **options)

    return started


@BOTH
def test_a_worker_is_a_fork_with_what_the_raylet_gives_it(
    start: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, way: str
) -> None:
    context = {"command_prefix": [], "env_vars": {"TUNE_X": "1"}, "py_executable": sys.executable, "java_jars": []}
    given = [f"--serialized-runtime-env-context={json.dumps(context)}", "--language=PYTHON", "--node-id=ff"]
    environment = {"PATH": "/bin", "RAY_JOB_ID": "01000000", "odd": "\udcff ü"}
    with driver(way=way, SECRET="of the driver") as (process, server):
        done = start(server, *given, env=environment, cwd=tmp_path, input="a line\n", preexec_fn=_block_ctrl_c)
        found = json.loads(done.stdout)
        (forker,) = psutil.Process(process.pid).children()
    assert done.stderr == "heard a line\n\n"
    assert found["arguments"] == [str(tmp_path / "worker.py"), "--node-id=ff"]
    assert (found["name"], found["preloaded"], found["blocked"]) == ("__main__", True, True)
    assert found["parent"] == forker.pid
    assert found["folder"] == found["first"] == str(tmp_path)
    assert {name: value for name, value in found["environment"].items() if name != "LC_CTYPE"} == environment | {
        "TUNE_X": "1"
    }
    assert found["oom"].strip() == "1000"
    assert found["handlers"] == ["", "SIG_DFL", "SIG_DFL"]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="others have one heap, or say nothing of it")
def test_the_threads_of_a_worker_that_is_a_fork_have_one_heap(
    start: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    (tmp_path / "worker.py").write_text(HEAPS)
    heaps = []
    with driver() as (_, server):
        for asked in ({}, {"MALLOC_ARENA_MAX": "3"}):
            done = start(server, str(tmp_path / "heaps.xml"), env=asked)
            assert (done.returncode, done.stderr) == (0, "")
            heaps.append((tmp_path / "heaps.xml").read_text().count("<heap nr="))
    assert heaps == [1, 3], "unless the environment says otherwise"
    subprocess.run([sys.executable, "-c", HEAPS, tmp_path / "heaps.xml"], check=True, env={"PATH": "/bin"})
    assert (tmp_path / "heaps.xml").read_text().count("<heap nr=") > 1, "as it would be"


def _block_ctrl_c() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])


@BOTH
def test_a_worker_ends_without_doing_what_the_driver_has_left_for_its_end(
    start: Callable[..., subprocess.CompletedProcess[str]], way: str
) -> None:
    with driver(way=way) as (process, server):
        done = start(server, input="\n")
        assert "the driver ends" not in done.stdout
        assert process.poll() is None
        second = json.loads(start(server, input="\n").stdout)
        assert second["pid"] != json.loads(done.stdout)["pid"]
        assert process.stdin is not None
        process.stdin.close()  # the end of the block
        assert process.stdout is not None
        assert process.stdout.read() == "the driver ends\n"
        assert process.wait(timeout=30) == 0
    assert not psutil.pid_exists(second["parent"])


@pytest.mark.parametrize(
    "context",
    [
        {"py_executable": "/usr/bin/other"},
        {"command_prefix": ["numactl"]},
        {"override_worker_entrypoint": "/other.py"},
        {"env_vars": {"PATH": "/more:${PATH}"}},
    ],
    ids=lambda context: next(iter(context)),
)
def test_a_worker_that_needs_more_than_variables_starts_in_rays_own_way(
    context: dict[str, Any], start: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    given = f"--serialized-runtime-env-context={json.dumps(context)}"
    with driver() as (_, server):
        done = start(server, given, "--language=PYTHON")
    assert done.stdout == f"set up {json.dumps(['-s', str(tmp_path / 'worker.py'), given, '--language=PYTHON'])}\n"
    assert done.returncode == 0


@BOTH
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_the_server_ends_with_its_driver_and_workers_start_in_rays_own_way_then(
    end: signal.Signals, start: Callable[..., subprocess.CompletedProcess[str]], way: str
) -> None:
    with driver(way=way) as (process, server):
        (forker,) = psutil.Process(process.pid).children()
        assert json.loads(start(server, input="\n").stdout)["preloaded"]
        os.kill(forker.pid, signal.SIGINT)  # a Ctrl-C
        assert json.loads(start(server, input="\n").stdout)["parent"] == forker.pid
        process.send_signal(end)
        process.wait(timeout=30)
        psutil.wait_procs([forker], timeout=30)
        assert not psutil.pid_exists(forker.pid)
        assert start(server).stdout.startswith("set up")


@as_root
@BOTH
def test_the_server_forks_for_its_own_user_alone_and_a_worker_tells_nothing_to_another_users(
    start: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, way: str
) -> None:
    request, answer = json.dumps(worker_start.request([str(tmp_path / "worker.py")])).encode(), b""
    with driver(way=way) as (_, server), socket.socket(socket.AF_UNIX) as connection:
        with as_nobody():
            connection.connect(f"\0{server}")
        with suppress(ConnectionError):  # which the server may have closed by now
            socket.send_fds(connection, [fork_server.LENGTH.pack(len(request))], [0, 1, 2])
            connection.sendall(request)
            answer = connection.recv(16)
    assert answer == b""
    name = f"arat-ray-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{name}")
        with as_nobody():
            listener.listen()
        assert start(name).stdout.startswith("set up")
        connection, _ = listener.accept()
        with connection:
            assert connection.recv(1) == b""


@contextmanager
def as_nobody() -> Iterator[None]:
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(
    "case",
    [
        {"cluster": "10.0.0.1:6379"},
        {"RAY_ADDRESS": "auto"},
        {"before": "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()"},
        {"before": "sys.modules['ray'] = sys"},
        {"before": "fork_server.DEVICES = '/dev/zero'; device = open('/dev/zero')"},
        {"before": "fork_server.PRELOADED = ('ray',)"},
        {"before": "sys.platform = 'darwin'"},
    ],
    ids=lambda case: str(next(iter(case.values()))).partition(";")[0],
)
def test_there_is_no_fork_server_where_forks_could_not_be_workers(case: dict[str, Any]) -> None:
    with driver(**case) as (process, server):
        assert server == "None"
        assert not psutil.Process(process.pid).children()


@pytest.mark.parametrize(
    "before",
    [
        "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()",
        "sys.modules['ray'] = sys",
        "import os; os.chdir({folder!r})",
        "sys.path.insert(0, {folder!r})",
    ],
    ids=lambda before: before.partition(";")[0],
)
def test_a_server_that_is_a_program_of_its_own_is_there_whatever_the_driver_has_done(
    before: str, start: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    (tmp_path / "colorsys.py").write_text("raise SystemExit")  # as somebody's random.py is
    before = before.format(folder=str(tmp_path))
    with driver(way=SPAWNED, before=before) as (process, server):
        found = json.loads(start(server, input="\n").stdout)
        (forker,) = psutil.Process(process.pid).children()
    assert (found["preloaded"], found["parent"]) == (True, forker.pid)


@pytest.mark.parametrize("module", ["no_such_module", "threaded"])
def test_a_server_that_cannot_begin_leaves_the_workers_to_ray(
    module: str, start: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """One lacks what workers need, of the other no fork could be a worker."""
    thread = "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()"
    (tmp_path / "threaded.py").write_text(thread)
    path, before = os.pathsep.join([str(tmp_path), *sys.path]), f"fork_server.PRELOADED = ({module!r},)"
    with driver(way=SPAWNED, before=before, PYTHONPATH=path) as (process, server):
        (forker,) = psutil.Process(process.pid).children()
        assert start(server).stdout.startswith("set up")
        wait_until(lambda: forker.status() == psutil.STATUS_ZOMBIE, 60, "its end")
        assert start(server).stdout.startswith("set up")
        assert process.poll() is None


def test_where_no_process_can_be_started_there_is_no_server_and_nothing_is_left_open() -> None:
    opened = "len(os.listdir('/proc/self/fd'))"
    before = f"import os; sys.executable = '/no/such/python'; files = {opened}"
    way = f"fork_server.spawned():\n    print({opened} - files)\nwith fork_server.spawned("
    with driver(way=way, before=before) as (process, first):
        assert process.stdout is not None
        assert (first, process.stdout.readline()) == ("0", "None\n")


def test_no_second_server_is_begun() -> None:
    with driver(way="fork_server.started(None), fork_server.spawned(") as (process, _):
        assert len(psutil.Process(process.pid).children()) == 1


def test_who_has_given_up_gets_no_worker(
    start: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    closed = tmp_path / "closed"
    (tmp_path / "slow.py").write_text(f"import os, time\nwhile not os.path.exists({str(closed)!r}): time.sleep(0.05)")
    (tmp_path / "other.py").write_text("import time; time.sleep(100)")
    request = json.dumps(worker_start.request([str(tmp_path / "other.py")])).encode()
    before = "fork_server.PRELOADED = ('slow',)"
    with driver(way=SPAWNED, before=before, PYTHONPATH=os.pathsep.join([str(tmp_path), *sys.path])) as (
        process,
        server,
    ):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(f"\0{server}")
            socket.send_fds(connection, [fork_server.LENGTH.pack(len(request))], [0, 1, 2])
            connection.sendall(request)
        closed.touch()
        assert json.loads(start(server, input="\n").stdout)["name"] == "__main__"  # answered after it
        (forker,) = psutil.Process(process.pid).children()
        wait_until(lambda: not forker.children(), 30, "the one that was answered, who alone is there")


@BOTH
@pytest.mark.parametrize(
    ("several_workers", "device", "is_there"),
    [(False, "/dev/nvidia-none", False), (True, "/dev/nvidia-none", True), (True, "/dev/zero", False)],
    ids=["one worker", "several workers", "several workers and a GPU"],
)
def test_what_several_workers_need_is_there_where_trials_have_several_and_no_gpu(
    start: Callable[..., subprocess.CompletedProcess[str]], several_workers: bool, device: str, is_there: bool, way: str
) -> None:
    with driver(way=way, several_workers=several_workers, before=f"fork_server.DEVICES = {device!r}") as (_, server):
        found = json.loads(start(server, input="\n").stdout)
    assert (found["preloaded"], found["for several workers"]) == (True, is_there)


def test_a_server_outlives_those_who_ask_for_nonsense_or_go_away(
    start: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    with driver() as (_, server):
        for said in (b"", b"\x05\x00\x00\x00", b"\x02\x00\x00\x00[]", b"\x02\x00\x00\x00{}", b"\xff\xff\xff\xff{"):
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(f"\0{server}")
                connection.sendall(said)
                connection.shutdown(socket.SHUT_WR)
                connection.recv(16)
        assert json.loads(start(server, input="\n").stdout)["preloaded"]


def test_a_raylet_is_told_to_ask_the_server_of_its_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(services, "start_ray_process", lambda command, kind: started.append(command))
    own = subprocess.list2cmdline([sys.executable, "/ray/setup_worker.py", "-s", "/ray/default_worker.py", "--x=a b"])
    command = ["raylet", f"--session_dir={tmp_path}", "--node_id=ff", f"--python_worker_command={own}"]
    with left_out(output=False):
        services.start_ray_process(command, "raylet")
        monkeypatch.setattr(fork_server, "_served", ["a-server"])
        services.start_ray_process(command, "raylet")
    assert started[0] == command
    assert started[1][:3] == command[:3]
    assert shlex.split(started[1][3].removeprefix("--python_worker_command=")) == [
        *(sys.executable, "-I", "-S", str(parts.WORKER_START), "a-server"),
        *("/ray/setup_worker.py", "-s", "/ray/default_worker.py", "--x=a b"),
    ]
