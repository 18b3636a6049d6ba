"""A bucket to test with: moto's server, as a process of its own, spoken to over HTTP."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from arat_ray.storage import objects
from arat_ray.storage.address import Mirrored, mirror_of, parse
from tests.cluster.studies import wait_until

ATOMIC = """
import threading
from moto import server

one_at_a_time = threading.Lock()

class Application(server.DomainDispatcherApplication):
    def __call__(self, environ, start_response):
        with one_at_a_time:
            return super().__call__(environ, start_response)

server.DomainDispatcherApplication = Application
server.main()
"""
"""moto looks at a condition and then writes, and may let another request in between; S3 does not."""
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class Server:
    """An S3 that can go away: `stop` leaves its connections hanging, `kill` loses all that it holds."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-c", ATOMIC, "-H", "127.0.0.1", "-p", str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(self._answers, 60, "moto's server")

    def _answers(self) -> bool:
        assert self.process.poll() is None
        with socket.socket() as there:
            return there.connect_ex(("127.0.0.1", self.port)) == 0

    def make_bucket(self, name: str) -> None:
        boto3.client("s3", endpoint_url=self.url).create_bucket(Bucket=name)

    def stop(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="session")
def _server() -> Iterator[Server]:
    server = Server()
    yield server
    server.kill()


_count = iter(range(1000))


@pytest.fixture
def server(_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server, named by the environment, and a cache of this test's own."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", _server.url)
    monkeypatch.setenv("ARAT_CACHE", str(tmp_path / "node"))
    return _server


@pytest.fixture
def address(server: Server) -> str:
    """A new bucket."""
    name = f"bucket-{next(_count)}"
    server.make_bucket(name)
    return f"s3://{name}/studies/small"


@pytest.fixture
def folder(address: str) -> Mirrored:
    """The mirror of a study that is not there yet."""
    return mirror_of(parse(address))


def there(folder: Mirrored) -> dict[str, bytes]:
    """All that is in the bucket below the place of a mirror, dot-files left out."""
    place = parse(f"{folder}")
    names = objects.stats(place, "")
    return {name: objects.read(place, name) or b"" for name in names}
