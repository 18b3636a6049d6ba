"""Jobs on a real head that wants a token: submitted, followed through a lost connection, stopped, resumed."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import requests

from arat_ray.cluster.starting import SETTINGS
from arat_ray.exit_codes import INTERRUPTED
from arat_ray.results import reader
from tests.cluster.studies import COMMAND, EXPERIMENT, wait_until, without_ray
from tests.storage.conftest import CREDENTIALS, _server, address, server

__all__ = ["_server", "address", "server"]

pytestmark = pytest.mark.ray
QUICKSTART = Path(__file__).parents[3] / "search_spaces" / "quickstart.yaml"
Write = Callable[..., Path]


class Head(NamedTuple):
    """A head of one node, and what a user's machine needs to know of it."""

    address: str
    token: str
    home: Path
    """Where the user's token is not."""

    def arat_ray(self, *words: str, token: str | None = None) -> list[Any]:
        """A command of a user, as arguments for subprocess: what to run, and its environment."""
        mine = {"HOME": str(self.home), "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
        if token != "":
            mine["RAY_AUTH_TOKEN"] = token or self.token
        path = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        verb, *options = words
        return [[*COMMAND, verb, "--address", self.address, *options], path | mine]

    def run(self, *words: str, token: str | None = None) -> subprocess.CompletedProcess[str]:
        command, env = self.arat_ray(*words, token=token)
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=600, check=False)

    def start(self, *words: str, stderr: Any = subprocess.PIPE) -> subprocess.Popen[str]:
        command, env = self.arat_ray(*words)
        return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=stderr, text=True)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """`ray start --head --block` with a token, in a process group of its own.

    It gives itself 30 seconds for some of its parts, which a busy machine may not have; then it is started once more.
    """
    home, token = tmp_path_factory.mktemp("home"), secrets.token_hex(32)
    for _ in range(3):
        with started(home, token) as found:
            if found is not None:
                yield found
                return
    pytest.fail("`ray start` has ended three times before it was there")


@contextmanager
def started(home: Path, token: str) -> Iterator[Head | None]:
    """A head within the block; None where it has ended before all of it was there."""
    port, scripts = free_port(), str(Path(sys.executable).parent)
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:  # a short path: sockets
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=2"]
        command += ["--dashboard-host=127.0.0.1", f"--dashboard-port={port}", f"--port={free_port()}"]
        command += ["--dashboard-agent-listen-port=0"]  # else 52365, which another Ray here may have
        command += ["--node-ip-address=127.0.0.1", f"--temp-dir={folder}", "--object-store-memory=104857600"]
        env = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token, "RAY_USAGE_STATS_ENABLED": "0", "HOME": str(home)}
        env |= SETTINGS | {"PYTHONUNBUFFERED": "1"}  # SETTINGS: among them the patience that a busy machine needs
        env["PATH"] = f"{scripts}:{os.environ['PATH']}"
        said = Path(folder) / "said"
        with said.open("wb") as output:
            ray = subprocess.Popen(
                command, env=os.environ | env, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        found = Head(f"http://127.0.0.1:{port}", token, home)

        def is_up() -> bool:
            return "Ray runtime started" in said.read_text() and answer(found, token) == 200

        try:
            wait_until(lambda: ray.poll() is not None or is_up(), 300, "the head")
            is_there = ray.poll() is None
            yield found if is_there else None
            assert not is_there or ray.poll() is None, f"the head has ended by itself: {said.read_text()}"
        finally:
            ray.terminate()  # it ends its processes one after another; the whole group at once takes it 30 s
            ray.wait(60)
            wait_until(lambda: not processes_about(folder), 90, "Ray's processes to end")


def processes_about(folder: str) -> list[int]:
    """Processes that were started with this folder among their arguments."""
    found = []
    for proc in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if folder.encode() in (proc / "cmdline").read_bytes():
                found.append(int(proc.name))
    return found


@pytest.fixture(autouse=True)
def _no_ray_process_stays_behind() -> None:
    """The head looks after that: its workers stay for the next job."""


def answer(head: Head, token: str | None) -> int | None:
    """The status code of the job server to whoever brings this token."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        return requests.get(f"{head.address}/api/jobs/", headers=headers, timeout=5).status_code
    except requests.ConnectionError:
        return None


def rows(results: Path, table: str) -> list[dict[str, Any]]:
    folder = results / "small"
    return list(reader.read(folder, table).to_pylist()) if reader.part_files(folder / table) else []


def test_the_head_answers_nobody_without_its_token(head: Head) -> None:
    assert [answer(head, None), answer(head, "wrong"), answer(head, head.token)] == [401, 403, 200]
    for token, wanted in (("", "a token"), ("wrong", "another token than it was given")):
        refused = head.run("status", token=token)
        assert refused.returncode == 2
        assert f"wants {wanted}" in refused.stderr
        assert "~/.ray/auth_token" in refused.stderr
        assert "Traceback" not in refused.stderr
    folder = head.home / ".ray"
    folder.mkdir()
    (folder / "auth_token").write_text(f"{head.token}\n")
    assert "no job of arat-ray" in head.run("status", token="").stdout
    (folder / "auth_token").unlink()


def test_a_job_goes_on_without_its_follower_saves_when_stopped_and_resumes(
    head: Head, write: Write, tmp_path: Path
) -> None:
    train = EXPERIMENT["train"] | {"epochs": 6, "attack": EXPERIMENT["train"]["attack"] | {"steps": 5}}
    one = {"cpus_per_worker": 1, "concurrent_trials": 1}
    file = write(train=train, budget={"trials": 1000}, resources=one)
    results = head.home / "results"
    words = ("submit", str(file), "--follow", "--env", "ARAT_CANARY=canary-7")
    follower = head.start(*words)
    wait_until(lambda: follower.poll() is not None or len(rows(results, "epochs")) >= 2, 400, "some epochs")
    assert follower.poll() is None, follower.communicate()
    follower.send_signal(signal.SIGINT)
    stdout, stderr = follower.communicate(timeout=300)
    assert follower.returncode == INTERRUPTED
    assert "the job goes on; follow it again or stop it with" in stderr
    assert "results go to ~/results/small on the head" in stderr
    assert f"to the cluster goes 1 file, {file.stat().st_size} bytes:\n  small.yaml" in stderr
    job = re.findall(r"^submitted (small-\d{8}-\d{6});", stdout, re.MULTILINE)[0]
    assert f"arat-ray stop {job}" in stderr
    stopped = head.run("stop", job)
    assert stopped.returncode == 0, stopped.stderr
    assert "everything measured is in" in stopped.stdout
    assert f"go on with: arat-ray submit {file} --address {head.address} --results results --resume" in stopped.stdout
    assert "--env ARAT_CANARY" in stopped.stdout
    assert "canary-7" not in stopped.stdout + stdout + stderr
    assert head.run("status", job, "--follow").returncode == INTERRUPTED
    saved = {(row["trial_id"], row["epoch"]) for row in rows(results, "epochs")}
    started = rows(results, "trials")
    assert {row["status"] for row in started} <= {"stopped", "complete"}

    refused = head.run(*words)
    assert refused.returncode == 2, "the exit code of the job is that of the command which follows it"
    assert "interrupted study; go on with --resume" in refused.stdout
    trials = len(started) + 2
    said = tmp_path / "stderr"
    with interrupted_connection(head) as (tunnel, cave_in, dig), said.open("w") as stderr_file:
        follower = tunnel.start(*words, "--resume", "--", "--trials", str(trials), stderr=stderr_file)
        wait_until(lambda: len(rows(results, "epochs")) >= len(saved) + 2, 400, "more epochs")
        cave_in()
        wait_until(lambda: "connection lost, the job goes on" in said.read_text(), 120, "the follower to notice")
        dig()
        stdout, _ = follower.communicate(timeout=600)
    assert follower.returncode == 0, stdout + said.read_text()
    assert "connected again" in said.read_text()
    lines = [line for line in stdout.splitlines() if re.match(rf"\[\d+/{trials}\]", line)]
    assert Counter(lines) == Counter(set(lines)), "no line twice"
    assert lines[-1].startswith(f"[{trials}/{trials}]")
    found = [(row["trial_id"], row["epoch"]) for row in rows(results, "epochs")]
    assert Counter(epoch for _, epoch in found) == dict.fromkeys(range(1, 7), trials)
    assert saved <= set(found)

    jobs = json.loads(head.run("status", "--json").stdout)
    assert [(each["study"], each["state"]) for each in jobs] == [
        ("small", "stopped"),
        ("small", "refused its input"),
        ("small", "succeeded"),
    ]
    last = jobs[-1]
    assert (last["job"], last["progress"]) == (re.findall(r"^submitted (\S+);", stdout)[0], f"{trials}/{trials}")
    assert f"budget.trials: all {trials} trials have ended" in head.run("status", last["job"]).stdout
    assert "has ended already: succeeded" in head.run("stop", last["job"]).stdout
    unknown = head.run("stop", "small-1")
    assert (unknown.returncode, "knows no job 'small-1'" in unknown.stderr) == (2, True)


@pytest.mark.parametrize("is_in_bucket", [False, True], ids=["the quick start, on the head", "in a bucket"])
def test_results_are_where_they_were_to_go(head: Head, address: str, is_in_bucket: bool, write: Write) -> None:
    results = address.removesuffix("/small") if is_in_bucket else str(head.home / "elsewhere")
    server = (*CREDENTIALS, "AWS_ENDPOINT_URL") if is_in_bucket else ()
    variables = [word for name in server for word in ("--env", f"{name}={os.environ[name]}")]
    file, epochs = (write(), 3) if is_in_bucket else (QUICKSTART, 10)
    done = head.run("submit", str(file), "--follow", "--results", results, *variables, "--", "--trials", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "budget.trials: all 1 trials have ended" in done.stdout
    listed = without_ray("results", "trials", f"{results}/{file.stem}", "--json")
    (trial,) = json.loads(listed.stdout)
    assert (trial["status"], trial["epochs_done"]) == ("complete", epochs)
    assert is_in_bucket or trial["clean_accuracy"] > 0.8


def test_the_doctor_examines_a_cluster_through_its_job_server(head: Head, write: Write) -> None:
    found = head.run("doctor", str(write()), "--results", str(head.home / "shared"), "--no-validate")
    assert found.returncode == 0, found.stdout + found.stderr
    assert re.search(r"^ok +storage +\S+/shared: every node writes there", found.stdout, re.MULTILINE)
    assert re.search(r"^ok +step .* ms a training step of 64 images on cpu", found.stdout, re.MULTILINE)
    refused = head.run("doctor")
    assert refused.returncode == 2
    assert "through a job server the doctor needs an experiment file" in refused.stderr


@contextmanager
def interrupted_connection(head: Head) -> Iterator[tuple[Head, Callable[[], None], Callable[[], None]]]:
    """The same head behind a tunnel, what brings the tunnel down, and what digs it again."""
    port, behind = free_port(), int(head.address.rpartition(":")[2])
    ends: list[socket.socket] = []

    def pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def serve(server: socket.socket) -> None:
        try:
            while True:
                near, far = server.accept()[0], socket.create_connection(("127.0.0.1", behind))
                ends.extend((near, far))
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=pump, args=pair, daemon=True).start()
        except OSError:
            pass

    def dig() -> None:
        server = socket.create_server(("127.0.0.1", port))
        ends.append(server)
        threading.Thread(target=serve, args=(server,), daemon=True).start()

    def cave_in() -> None:
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        ends.clear()

    dig()
    try:
        yield head._replace(address=f"http://127.0.0.1:{port}"), cave_in, dig
    finally:
        cave_in()
