"""What a user does with a cluster of the lab, and what is seen of it from outside."""

from __future__ import annotations

import errno
import io
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import requests
from botocore.exceptions import ClientError

from tests.lab import ec2
from tests.lab.hosts import HOME, Host, Lab
from tests.lab.steps import Steps, wait_until

PROJECT = f"{HOME}/arat-ray"
FILE, STUDY = "clusters/aws.yaml", "search_spaces/lab.yaml"
BUCKET = "arat-lab"
RESULTS = f"s3://{BUCKET}/results"
ADDRESS = "http://127.0.0.1:8265"


class Session(NamedTuple):
    """A cluster in the lab, and the machine of the one who uses it."""

    lab: Lab
    laptop: Host
    machines: ec2.Machines
    aws: Any
    s3: Any
    steps: Steps

    def user(self, *command: str, timeout: float = 120, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A command as the user types it, in the folder of the project."""
        return self.laptop.run(*command, cwd=PROJECT, timeout=timeout, check=check)

    def nodes(self, kind: str) -> list[str]:
        """Instances of the head or of workers that run, by their profiles."""
        found = ec2.running(self.aws).items()
        return [name for name, each in found if each["IamInstanceProfile"]["Arn"].endswith(f"arat-ray-{kind}")]

    def epochs(self) -> int:
        """How many rows of epochs the bucket has."""
        with suppress(ClientError):
            body = self.s3.get_object(Bucket=BUCKET, Key="results/lab/epochs/part-00000.parquet")["Body"].read()
            return int(pq.ParquetFile(io.BytesIO(body)).metadata.num_rows)
        return 0


class Job(NamedTuple):
    """A study that was submitted and is followed."""

    session: Session
    following: subprocess.Popen[bytes]
    log: Path

    def wait(self, is_so: Callable[[], object], seconds: float, what: str) -> None:
        """Wait while the study goes on."""

        def so_and_alive() -> object:
            assert self.following.poll() is None, f"the study ended early:\n{self.log.read_text()}"
            return is_so()

        wait_until(so_and_alive, seconds, what)

    def end(self) -> None:
        """Wait for the study to end well."""
        code = self.following.wait(timeout=900)
        assert code == 0, f"exit code {code}:\n{self.log.read_text()}"

    def leave(self) -> None:
        """Follow it no more."""
        self.following.kill()
        self.following.wait()


@contextmanager
def tunnel(session: Session) -> Iterator[None]:
    """`ray dashboard` beside the block, and it is closed to those without the token."""

    def status(headers: dict[str, str]) -> int:
        try:
            with session.laptop.network():
                return requests.get(f"{ADDRESS}/api/jobs/", headers=headers, timeout=10).status_code
        except requests.ConnectionError:
            return 0

    with session.steps.step("`ray dashboard`: the tunnel") as seen:
        log = session.lab.folder / "tunnel.log"
        process = session.laptop.start("ray", "dashboard", FILE, log=log, cwd=PROJECT)
        wait_until(lambda: status({}), 60, "the dashboard")
        token = session.laptop.path(f"{HOME}/.ray/auth_token").read_text().strip()
        codes = status({}), status({"Authorization": f"Bearer {token}"})
        assert codes == (401, 200), codes
        seen.append("401 without the token, 200 with it")
        (head,) = session.nodes("head")
        with session.laptop.network(), socket.socket() as direct:
            refused = direct.connect_ex((session.machines.hosts[head].address, 8265))
        assert refused == errno.ECONNREFUSED, refused
        seen.append("refused without the tunnel")
    try:
        yield
    finally:
        process.kill()
        process.wait()


def submit(session: Session, *more: str) -> Job:
    """`arat-ray submit --follow`."""
    log = session.lab.folder / f"submit{len(more)}.log"
    command = ("arat-ray", "submit", STUDY, "--address", ADDRESS, "--results", RESULTS, "--follow", *more)
    return Job(session, session.laptop.start(*command, log=log, cwd=PROJECT), log)
