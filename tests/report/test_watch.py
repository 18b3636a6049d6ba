"""The live report: what is new reaches its page, and nobody but who knows its address gets an answer."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner

from arat_ray import locks
from arat_ray.cli import main
from arat_ray.report import live
from arat_ray.report.live import Live
from arat_ray.report.serving import Server
from tests.report.reports import COMPLETE, TRIALS, grow, view_in, write

NEW = {**COMPLETE, "clean_accuracy": 0.88, "robust_accuracy": 0.48}


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    content: bytes


class Asking:
    """A browser that asks a server, and may pretend."""

    def __init__(self, served: Server) -> None:
        self.served, self.path = served, f"/{served.token}/"

    def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.served.server_port, timeout=10)
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        found = Answer(answer.status, answer.headers, answer.read())
        connection.close()
        return found

    def since(self, version: int) -> Any:
        answer = self.ask(f"{self.path}view?since={version}")
        return json.loads(answer.content) if answer.status == 200 else answer.status


@pytest.fixture(autouse=True)
def _no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "REST", 0.0)
    monkeypatch.setattr(live, "BUCKET_S", 0.0)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return write(tmp_path, *TRIALS)


@pytest.fixture
def asking(study: Path) -> Iterator[Asking]:
    with Server(Live([study], log=print)) as served:
        thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield Asking(served)
        served.shutdown()
        thread.join()


def test_the_page_is_the_report_and_may_ask_its_server_for_more(asking: Asking) -> None:
    answer = asking.ask(asking.path)
    assert answer.status == 200
    assert len(view_in(answer.content)["studies"][0]["trials"]) == len(TRIALS)
    (policy,) = re.findall(rb'http-equiv="Content-Security-Policy" content="([^"]*)"', answer.content)
    assert policy.startswith(b"default-src 'none'; connect-src 'self'; script-src 'sha256-")
    assert answer.headers["Content-Security-Policy"] == f"{policy.decode()}; frame-ancestors 'none'"
    assert (answer.headers["Cache-Control"], answer.headers["Referrer-Policy"]) == ("no-store", "no-referrer")
    assert asking.since(1) == 204


def test_a_page_gets_the_trials_that_changed_and_no_others(asking: Asking, study: Path) -> None:
    grow(study, *TRIALS[:-1], {**TRIALS[-1], "clean_accuracy": 0.61}, NEW)
    news = asking.since(1)
    assert (news["version"], news["problem"], news["view"]["whole"]) == (2, None, False)
    (shown,) = news["view"]["studies"]
    assert [trial["number"] for trial in shown["trials"]] == [6, 7]
    assert (shown["count"], shown["hypervolume"][-1][0]) == (8, 4)
    assert asking.since(2) == 204
    assert len(asking.since(0)["view"]["studies"][0]["trials"]) == 8
    assert asking.since(77)["view"]["whole"] is True


def test_a_trial_that_leaves_the_front_is_among_the_changed_ones(asking: Asking, study: Path) -> None:
    grow(study, *TRIALS, {**NEW, "robust_accuracy": 0.55})
    kinds = {trial["number"]: trial["kind"] for trial in asking.since(1)["view"]["studies"][0]["trials"]}
    assert kinds == {1: "dominated", 7: "front"}


def test_that_a_study_runs_or_has_ended_is_news(asking: Asking, study: Path) -> None:
    with locks.held(study / ".lock"):
        facts = dict(asking.since(1)["view"]["studies"][0]["facts"])
        assert facts["State"].startswith("running")
    assert "State" not in dict(asking.since(2)["view"]["studies"][0]["facts"])


def test_what_cannot_be_read_is_said_until_it_can(asking: Asking, study: Path) -> None:
    part = study / "trials" / "part-00000.parquet"
    whole = part.read_bytes()
    part.write_bytes(whole[:100])
    news = asking.since(1)
    assert "is damaged" in news["problem"]
    assert "view" not in news
    part.write_bytes(whole)
    assert asking.since(1)["problem"] is None
    shutil.rmtree(study)
    assert "there is no folder" in asking.since(2)["problem"]
    write(study.parent, NEW)  # the study was begun anew
    assert asking.since(2)["view"]["studies"][0]["count"] == 1


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/", {}),
        ("/view?since=0", {}),
        ("/AAAAAAAAAAAAAAAAAAAAAA/", {}),
        ("TOKEN", {"Host": "evil.example"}),
        ("TOKEN", {"Host": "127.0.0.1.evil.example:80"}),
        ("TOKEN", {"Host": ""}),
        ("TOKEN", {"Origin": "https://evil.example"}),
        ("TOKEN", {"Origin": "null"}),
        ("TOKEN", {"Origin": "http://127.0.0.1:1"}),
    ],
)
def test_who_does_not_know_the_address_or_is_another_page_is_refused(
    path: str, headers: dict[str, str], asking: Asking
) -> None:
    for name in ("", "view?since=0") if path == "TOKEN" else ("",):
        answer = asking.ask(f"{asking.path}{name}" if path == "TOKEN" else path, **headers)
        assert answer.status == 403
        assert b"small" not in answer.content


@pytest.mark.parametrize("host", ["localhost:9999", "127.0.0.1:9999"])
def test_a_tunnel_from_another_port_is_let_through(host: str, asking: Asking) -> None:
    assert asking.ask(asking.path, Host=host, Origin=f"http://{host}").status == 200


def test_the_server_only_reads(asking: Asking) -> None:
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert asking.ask(asking.path, method).status == 501
    assert asking.ask(f"{asking.path}../../etc/passwd").status == 404
    assert asking.ask(f"{asking.path}view?since={'9' * 5000}").status == 200
    assert asking.served.server_address[0] == "127.0.0.1"


def test_each_server_has_an_address_of_its_own(study: Path) -> None:
    found = Live([study], log=print)
    with Server(found) as one, Server(found) as other:
        assert one.token != other.token
        assert len(one.token) >= 22


def test_watch_prints_its_address_and_the_command_for_a_tunnel_and_ends_with_130(study: Path) -> None:
    words = [sys.executable, "-c", "from arat_ray.cli import main; main()", "watch", f"{study}"]
    environment = {**os.environ, "SSH_CONNECTION": "10.0.0.1 50000 10.0.0.2 2222", "USER": "alice"}
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout
        assert process.stderr
        said = re.fullmatch(r"open http://127\.0\.0\.1:(\d+)/([\w-]+)/\n", process.stdout.readline())
        assert said
        port, token = said.groups()
        tunnel = f"ssh -N -L {port}:127.0.0.1:{port} -p 2222 alice@10.0.0.2"
        assert process.stdout.readline() == f"from another machine: {tunnel}, then open the same address there\n"
        connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=10)
        connection.request("GET", f"/{token}/")
        assert connection.getresponse().status == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert process.stderr.read() == "interrupted\n"


def test_a_port_that_is_taken_is_named(study: Path) -> None:
    with Server(Live([study], log=print)) as other:
        result = CliRunner().invoke(main, ["watch", str(study), "--port", str(other.server_port)])
    assert result.exit_code == 2
    assert f"--port {other.server_port}: Address already in use" in result.output


def test_a_folder_that_is_no_study_is_named(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["watch", str(tmp_path / "none")])
    assert result.exit_code == 2
    assert "there is no folder" in result.output
