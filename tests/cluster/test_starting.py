"""Starting Ray without starting it: its folder, its token, its limits, what its logs say, and being told to stop."""

from __future__ import annotations

import os
import pty
import re
import signal
import stat
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
import yaml
from ray.tune.execution import class_cache

from arat_ray.cluster import secrecy, starting, token
from arat_ray.cluster.secrecy import server
from arat_ray.cluster.waiting import Waiting
from arat_ray.exit_codes import INTERRUPTED
from arat_ray.storage.address import parse
from tests.cluster.studies import COMMAND, EXPERIMENT

HOME = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in HOME:
        monkeypatch.setenv(name, "")  # so that what the test's code sets is undone
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def said() -> list[str]:
    lines: list[str] = []
    token.provide(lines.append)
    return lines


@pytest.mark.parametrize("umask", [0o022, 0o000, 0o077])
def test_a_new_token_is_its_owners_alone_from_its_first_moment(umask: int, home: Path) -> None:
    seen: list[int] = []

    def look(event: str, arguments: tuple[object, ...]) -> None:
        if event in ("open", "os.link", "os.rename") and looking:
            seen.extend(mode(path) & 0o077 for path in (home / ".ray").glob("*"))

    looking = True
    sys.addaudithook(look)  # at each step of the writing
    before = os.umask(umask)
    try:
        assert said() == []
    finally:
        os.umask(before)
        looking = False
    made = home / ".ray" / "auth_token"
    assert mode(made) == 0o600
    assert not any(seen)
    assert mode(made.parent) & 0o022 & ~umask == 0
    assert re.fullmatch("[0-9a-f]{64}", made.read_text())
    assert list(made.parent.iterdir()) == [made]
    assert said() == []
    assert "RAY_AUTH_TOKEN" not in os.environ


def test_many_that_start_at_once_agree_on_one_token(home: Path) -> None:
    threads = [threading.Thread(target=said) for _ in range(8)]
    for thread in threads:
        thread.start()
    found = set()
    while any(thread.is_alive() for thread in threads):
        if (home / ".ray" / "auth_token").exists():
            found.add((home / ".ray" / "auth_token").read_text())
    assert len(found | {(home / ".ray" / "auth_token").read_text()}) == 1


@pytest.mark.parametrize("bits", [0o644, 0o640, 0o604, 0o660])
@pytest.mark.parametrize("is_named", [False, True])
def test_an_old_token_that_others_can_read_is_told_of(
    bits: int, is_named: bool, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = home / ("elsewhere" if is_named else ".ray/auth_token")
    old.parent.mkdir(exist_ok=True)
    old.write_text("old")
    old.chmod(bits)
    if is_named:
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(old))
    (line,) = said()
    assert f"`chmod 600 {old}`" in line
    assert "\n" not in line
    assert old.read_text() == "old"


@pytest.mark.parametrize("where", [None, "/proc/nonexistent", "/dev/null", "/etc/hostname"])
def test_without_a_home_to_write_to_the_token_is_in_the_environment(
    where: str | None, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOME")
    if where:
        monkeypatch.setenv("HOME", where)
    assert said() == []
    assert re.fullmatch("[0-9a-f]{64}", os.environ["RAY_AUTH_TOKEN"])
    assert list(home.iterdir()) == []


def test_a_token_that_is_named_and_is_none_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(home / "missing"))
    with pytest.raises(ValueError, match=r"RAY_AUTH_TOKEN_PATH names .*missing"):
        said()


def test_who_turned_tokens_off_gets_none(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert said() == []
    assert list(home.iterdir()) == []


def test_tune_gives_its_actors_settings_and_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    for name in class_cache.ENV_VARS_TO_PROPAGATE | {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}:
        monkeypatch.setenv(name, "0.2" if name.startswith("RAY_") else "canary")
    secrecy.keep_from_actors()
    given = class_cache._ActorClassCache().get(type("Trainable", (), {}))._default_options["runtime_env"]["env_vars"]
    assert given["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] == "0.2"
    assert not [name for name in given if name.startswith("AWS_")]


def test_the_address_of_a_server_travels_without_the_login_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://me:canary@minio:9000/x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    assert server()["AWS_ENDPOINT_URL"] == "http://minio:9000/x"
    assert "canary" not in str(server())
    assert parse("s3://bucket/x").endpoint == "http://minio:9000/x"


@pytest.mark.parametrize("address", ["s3://ME:canary@bucket/x", "s3://canary@bucket/x", "abfs://me:canary@account/x"])
def test_an_address_of_a_bucket_with_a_login_is_refused_without_telling_it(address: str) -> None:
    with pytest.raises(ValueError, match="holds no login") as refused:
        parse(address)
    assert "canary" not in str(refused.value)
    assert parse("abfs://container@account.dfs.core.windows.net/x").bucket == "container@account.dfs.core.windows.net"


@pytest.mark.parametrize("length", [5, 26, 27, 28, 41, 120])
def test_rays_sockets_find_room_whatever_the_folder_for_temporary_files(
    length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = Path("/tmp") / ("x" * (length - 5))
    usual.mkdir(exist_ok=True)
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(usual))
    made = starting._folder()
    try:
        assert (made.parent == usual) == (length <= starting.LONGEST)
        assert mode(made) == 0o700
        socket = made / "r" / "session_2026-01-31_09-30-00_123456_4194304" / "sockets" / "plasma_store"
        assert len(str(socket)) <= 107
    finally:
        made.rmdir()
        if usual != Path("/tmp"):
            usual.rmdir()


def test_a_folder_for_temporary_files_that_is_not_there_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/missing")
    monkeypatch.setenv("RAY_TMPDIR", "/dev/null")
    made = starting._folder()
    assert made.parent == Path("/tmp")
    made.rmdir()


def test_workers_do_not_import_what_lies_where_the_command_was_typed() -> None:
    assert starting.InstalledJobConfig(runtime_env={"env_vars": {}})._runtime_env_has_working_dir()


FAILING_GCS = """
import ray._private.services as services, sys
services.GCS_SERVER_EXECUTABLE = sys.argv.pop(1)
from arat_ray.cluster import nodes
from arat_ray.cli.common import user_errors
with user_errors():
    try:
        with nodes.cluster(None, verbose=False):
            raise AssertionError("it started")
    except ValueError as error:
        print(error)
        sys.exit(2)
"""


def test_a_ray_that_cannot_start_is_tried_twice_and_told_in_one_line(tmp_path: Path) -> None:
    gcs = tmp_path / "gcs_server"
    gcs.write_text(
        f"""#!{sys.executable}
import sys
given = dict(word.lstrip("-").split("=", 1) for word in sys.argv[1:])
open(given["stderr_filepath"], "w").write("[2026-01-31 09:30:00,123 E 7 7] (gcs_server) a.cc:1: no luck\\nstack\\n")
open({str(tmp_path / "starts")!r}, "a").write(given["session-dir"] + "\\n")
"""
    )
    gcs.chmod(0o755)
    environment = os.environ | {"HOME": str(tmp_path)}
    command = [sys.executable, "-c", FAILING_GCS, str(gcs)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.endswith(" s")]  # a busy machine has more to tell
    assert lines == ["starting Ray", "starting Ray once more"]
    (line,) = done.stdout.splitlines()
    assert "Ray does not start on this machine, gcs_server: a.cc:1: no luck; " in line
    first, second = (tmp_path / "starts").read_text().split()
    assert first != second
    assert not Path(first).exists()
    assert second.startswith(line.rpartition(" ")[2])


BLOCKED = """
import ctypes, signal
from arat_ray.cluster import waiting
for number in waiting.STOPS:
    signal.signal(number, lambda number, frame: None)
waiting.GRACE_S = 0.1
mutex, pthread = ctypes.create_string_buffer(64), ctypes.CDLL(None)
with waiting.Waiting("starting", give_up=lambda: print("ended what was started", flush=True)):
    pthread.pthread_mutex_lock(mutex)
    print("ready", flush=True)
    pthread.pthread_mutex_lock(mutex)  # for ever, and no handler of a signal runs
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_even_a_process_whose_main_thread_does_not_come_back(number: signal.Signals) -> None:
    command = [sys.executable, "-c", BLOCKED]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "ended what was started\n")
    assert (err.splitlines()[0], err.splitlines()[-1]) == ("starting", "interrupted")


def _swallow(number: int) -> None:
    signal.raise_signal(number)
    signal.signal(number, signal.SIG_DFL)


def test_a_signal_that_somebody_else_has_swallowed_still_counts() -> None:
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)  # as Ray sets one
    try:
        with pytest.raises(KeyboardInterrupt), Waiting("starting", give_up=pytest.fail):
            _swallow(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


def test_on_a_terminal_one_line_counts_the_seconds_and_goes() -> None:
    mine, theirs = pty.openpty()
    program = "from arat_ray.cluster.waiting import Waiting\nwith Waiting('starting Ray', give_up=print): input()"
    process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    shown = b""
    while b"starting Ray, 1 s" not in shown:
        shown += os.read(mine, 1000)
    process.communicate(b"\n")
    shown += os.read(mine, 1000)
    os.close(mine)
    assert shown.startswith(b"\rstarting Ray, 0 s\x1b[K\rstarting Ray, 1 s\x1b[K")
    assert shown.endswith(b"\r\x1b[K")
    assert b"\n" not in shown


WHILE_IMPORTING = """
import os, signal, sys
class Now:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.{number})
sys.meta_path.insert(0, Now())
{command}
"""


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize(
    ("verb", "module"),
    [
        ("validate", "pydantic"),
        ("tune", "torch"),
        ("tune", "numpy"),
        ("doctor", "pydantic"),
        ("confirm", "pyarrow"),
        ("evaluate", "torch"),
    ],
)
def test_a_command_that_is_interrupted_while_it_imports_ends_with_130(
    verb: str, module: str, number: str, tmp_path: Path
) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(EXPERIMENT))
    program = textwrap.dedent(WHILE_IMPORTING).format(module=module, number=number, command=COMMAND[-1])
    options = ["--seeds", "2"] if verb == "confirm" else []
    options = ["--attack", "pgd", "--epsilon", "0.1", "--split", "test"] if verb == "evaluate" else options
    done = subprocess.run(
        [sys.executable, "-c", program, verb, str(file), *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == INTERRUPTED, done.stderr
    assert done.stderr == "interrupted\n"
    assert done.stdout in ("", f"checking {file}\n")
