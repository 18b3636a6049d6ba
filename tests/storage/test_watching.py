"""The live report of a study in a bucket, which runs on another machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from arat_ray.report import live
from arat_ray.report.live import Live
from arat_ray.storage import session
from arat_ray.storage.address import mirror_of, parse
from arat_ray.storage.mirror import TABLES, Mirror
from tests.report.reports import TRIALS, grow, write
from tests.storage.conftest import Server, there


def test_rows_and_a_bucket_that_is_gone_come_up_and_nothing_is_written_there(
    server: Server, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def on(machine: str) -> Any:
        monkeypatch.setenv("ARAT_CACHE", str(tmp_path / machine))
        return mirror_of(parse(address))

    def push(*rows: Any) -> None:
        study = on("writer")
        if study.exists():
            grow(study, *rows)
        else:
            write(study.parent, *rows, name=study.name)
        Mirror(study).push()

    monkeypatch.setattr(live, "REST", 0.0)
    monkeypatch.setattr(live, "BUCKET_S", 0.0)
    push(*TRIALS[:2])
    study = on("reader")
    session.pull(study, TABLES, log=print)
    found = Live([study], log=print)
    assert found.since(1) is None
    push(*TRIALS[:3])
    before = there(on("reader"))
    news = found.since(1)
    assert news
    assert [trial["number"] for trial in news["view"]["studies"][0]["trials"]] == [2]
    assert there(study) == before
    server.stop()
    try:
        problem = found.since(2)
    finally:
        server.go_on()
    assert problem
    assert problem["problem"]
    after = found.since(2)
    assert after is None or after["problem"] is None
