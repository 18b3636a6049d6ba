"""Notices as the clouds' documents describe them, and a trial that is moved on by one."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

from arat_ray.cluster.trials.preemption import MetadataService, aws, azure, google
from tests.cluster import nodes
from tests.cluster.studies import EXPERIMENT, tune_command, wait_until
from tests.cluster.test_failures import assert_goes_on, rows

Write = Callable[..., Path]
ACTION = "/latest/meta-data/spot/instance-action"


class Metadata:
    """A metadata service: texts by path; what a real one refuses, this one does too."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.for_one: dict[str, str | None] = {}  # paths that have a text for one session alone: for whom
        metadata = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                known = self.path == "/latest/api/token" and "X-aws-ec2-metadata-token-ttl-seconds" in self.headers
                self.answer("a-token" if known else None)

            def do_GET(self) -> None:
                allowed = (
                    self.headers.get("X-aws-ec2-metadata-token") == "a-token"
                    if self.path.startswith("/latest/")
                    else "Metadata-Flavor" in self.headers or "Metadata" in self.headers
                )
                text = metadata.texts.get(self.path) if allowed else None
                if text is not None and self.path in metadata.for_one:
                    who = self.headers.get("Cookie")
                    metadata.for_one[self.path] = metadata.for_one[self.path] or who
                    text = text if who and who == metadata.for_one[self.path] else None
                self.answer(text)

            def answer(self, text: str | None) -> None:
                self.send_response(404 if text is None else 200)
                if "Cookie" not in self.headers:
                    self.send_header("Set-Cookie", f"session={uuid.uuid4()}")
                self.end_headers()
                self.wfile.write((text or "").encode())

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.base = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> Iterator[Metadata]:
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED", raising=False)
    metadata = Metadata()
    yield metadata
    metadata.server.shutdown()
    metadata.server.server_close()


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


def in_two_minutes() -> datetime:
    return datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=120)


def action() -> str:
    return json.dumps({"action": "terminate", "time": in_two_minutes().isoformat().replace("+00:00", "Z")})


def test_a_notice_of_aws_is_read_with_its_time(metadata: Metadata, session: requests.Session) -> None:
    assert aws(session, base=metadata.base) is None
    metadata.texts[ACTION] = action()
    given = aws(session, base=metadata.base)
    assert given is not None
    assert 115 < given.seconds <= 120
    assert re.fullmatch(r"AWS takes its machine away in 1(1\d|20) s", str(given))


def test_a_notice_of_google_is_read(metadata: Metadata, session: requests.Session) -> None:
    path = "/computeMetadata/v1/instance/preempted"
    with pytest.raises(requests.RequestException):
        google(session, base=metadata.base)
    metadata.texts[path] = "FALSE"
    assert google(session, base=metadata.base) is None
    metadata.texts[path] = "TRUE\n"
    assert google(session, base=metadata.base) == ("Google Cloud", 30.0)


def test_a_notice_of_azure_is_read_where_it_is_about_this_machine(
    metadata: Metadata, session: requests.Session
) -> None:
    metadata.texts["/metadata/instance/compute/name?api-version=2021-02-01&format=text"] = "worker-7"
    events = "/metadata/scheduledevents?api-version=2020-07-01"

    def say(kind: str, *machines: str) -> None:
        event = {"EventType": kind, "Resources": machines, "NotBefore": format_datetime(in_two_minutes(), usegmt=True)}
        metadata.texts[events] = json.dumps({"DocumentIncarnation": 1, "Events": [event]})

    for kind, machine in (("Reboot", "worker-7"), ("Preempt", "worker-8")):
        say(kind, machine)
        assert azure(session, base=metadata.base) is None
    say("Preempt", "worker-8", "worker-7")
    given = azure(session, base=metadata.base)
    assert given is not None
    assert given.by == "Azure"
    assert 115 < given.seconds <= 120


def test_a_service_that_does_not_answer_yet_is_asked_again_for_some_minutes(
    metadata: Metadata, session: requests.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("GCE_METADATA_HOST", metadata.base.removeprefix("http://"))
    early, late = MetadataService(session), MetadataService(session)
    assert early.asked() is None
    metadata.texts["/computeMetadata/v1/instance/preempted"] = "TRUE"
    assert early.asked() == ("Google Cloud", 30.0)
    late.until = time.monotonic()
    assert late.asked() is None


@pytest.mark.ray
def test_a_trial_saves_on_a_notice_and_goes_on_elsewhere_in_the_middle_of_its_epoch(
    write: Write, metadata: Metadata, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.base)
    metadata.for_one[ACTION] = None
    train = EXPERIMENT["train"] | {"attack": EXPERIMENT["train"]["attack"] | {"steps": 20}, "epochs": 16}
    file = write(train=train, budget={"trials": 1}, resources={"cpus_per_worker": 1})
    with nodes.started(0, 1, 1) as cluster:
        command = tune_command(file, "--address", cluster.address)
        driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        wait_until(lambda: driver.poll() is not None or len(rows(file, "epochs")) >= 1, 240, "an epoch")
        metadata.texts[ACTION] = action()  # for whoever asks first, however often an answer comes too late
        stdout, stderr = driver.communicate(timeout=300)
    assert driver.returncode == 0, stdout + stderr
    assert_goes_on(file, "left: AWS takes its machine away in 1", epochs=16)
    lost, _ = sorted(rows(file, "trials"), key=lambda row: row["attempt"])
    assert re.search(r"; left in epoch \d+ before step \d+ of 14$", lost["error"])
