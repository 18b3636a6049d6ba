"""A bucket that is gone: what is kept, what is told, and that it goes up when the bucket is back."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from arat_ray.storage import lock, objects, session, stores
from arat_ray.storage.address import Mirrored, mirror_of, parse
from arat_ray.storage.lock import Lock, TakenError
from arat_ray.storage.mirror import Mirror
from arat_ray.storage.pushing import Pushing
from arat_ray.storage.session import NotPushedError
from tests.cluster.studies import wait_until
from tests.storage.conftest import Server, there

EPOCHS = "epochs/part-00000.parquet"


def write(folder: Path, name: str, data: bytes) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).with_name(".new").write_bytes(data)
    (folder / name).with_name(".new").replace(folder / name)


def refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on nobody answers where the server was."""
    nobody = stores._store("s3", "bucket", "http://127.0.0.1:1", 1.0)
    monkeypatch.setattr(objects, "store", lambda place, bulk=False: nobody)


def test_an_outage_is_told_once_rides_on_the_mirror_and_is_told_once_when_over(
    folder: Mirrored, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    pushing = Pushing(Mirror(folder), ["epochs/"], log=told.append, every_s=0.05, retry_s=(0.05, 0.1))
    write(folder, EPOCHS, b"1")
    pushing.start()
    wait_until(lambda: there(folder) == {EPOCHS: b"1"}, 20, "the first push")
    with monkeypatch.context() as gone:
        refuse(gone)
        write(folder, EPOCHS, b"12")
        wait_until(lambda: bool(told), 20, "word of the outage")
        write(folder, EPOCHS, b"123")
        time.sleep(0.5)
        (text,) = told
        assert text.startswith(f"cannot push to {folder} (")
        assert f"everything is kept in {folder!s}, and pushed later" in text
    wait_until(lambda: len(told) == 2, 20, "word of its end")
    assert told[1] == f"{folder} is up to date again"
    assert there(folder) == {EPOCHS: b"123"}
    assert pushing.close() == []


def test_a_server_that_hangs_is_an_outage_within_seconds(
    folder: Mirrored, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, EPOCHS, b"1")
    told: list[str] = []
    pushing = Pushing(Mirror(folder), ["epochs/"], log=told.append)
    monkeypatch.setattr(stores, "ANSWER_S", 1)
    monkeypatch.setattr(stores, "RETRIES", 0)
    server.stop()
    try:
        began = time.monotonic()
        assert not pushing.flush()
        assert time.monotonic() - began < 60
    finally:
        server.go_on()
    assert len(told) == 1
    assert pushing.flush()
    assert there(folder) == {EPOCHS: b"1"}


def test_a_command_that_ends_in_an_outage_says_where_its_rows_are_and_the_next_one_pushes_them(
    folder: Mirrored, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pushing.close, "__kwdefaults__", {"patience_s": 0.0, "all_of_it": True})

    def command() -> None:
        with monkeypatch.context() as gone, session.writing(folder, log=lambda text: None):
            refuse(gone)
            write(folder, EPOCHS, b"1")
            raise SystemExit(130)

    with pytest.raises(NotPushedError) as caught:
        command()
    assert str(caught.value).startswith(f"1 files of {folder} are not in the bucket, {EPOCHS} first")
    assert str(folder) in str(caught.value)
    assert there(folder) == {}
    told: list[str] = []
    monkeypatch.setattr(lock, "started", lambda pid: None)  # its process is gone
    session.pull(folder, ["trials/"], log=told.append)
    assert told == [f"pushed 1 files to {folder} that were left on this machine"]
    assert there(folder) == {EPOCHS: b"1"}


def test_a_bucket_that_is_missing_or_gone_is_refused_within_seconds(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = time.monotonic()
    with pytest.raises(ValueError, match=r"s3://no-such-bucket/small: there is no bucket 'no-such-bucket' at http://"):
        session.pull(mirror_of(parse("s3://no-such-bucket/small")), log=pytest.fail)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(ValueError, match=r"http://127\.0\.0\.1:1 does not answer .*Connection refused"):
        session.pull(mirror_of(parse("s3://bucket/small")), log=pytest.fail)
    assert time.monotonic() - began < 60


def test_a_second_driver_is_refused_while_the_first_one_lives(
    folder: Mirrored, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = parse(f"{folder}")
    first, second = Lock(place), Lock(place)
    first.acquire()
    with pytest.raises(TakenError, match=r"is being written to by process \d+ of "):
        second.acquire()
    first.release()
    second.acquire()
    monkeypatch.setattr(lock, "machine", lambda: "another machine")
    third = Lock(place)
    with pytest.raises(TakenError):
        third.acquire()
    monkeypatch.setattr(lock, "STALE_S", 0.0)
    third.acquire()
    second.doubt()
    with pytest.raises(TakenError, match="was taken over by process"):
        second.refresh()
    second.release()
    third.doubt()
    third.refresh()


def test_a_driver_of_another_machine_is_waited_for_and_refuses_as_soon_as_it_is_heard_of(
    folder: Mirrored, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, told = Lock(parse(f"{folder}")), Lock(parse(f"{folder}")), list[str]()
    first.acquire()
    monkeypatch.setattr(lock, "machine", lambda: "another machine")
    monkeypatch.setattr(lock, "LOOK_S", 0.1)

    def beat() -> None:
        time.sleep(1.5)  # the bucket tells seconds apart
        first.doubt()
        first.refresh()

    living = threading.Thread(target=beat)
    living.start()
    second.wait_for_sign(told.append)
    living.join()
    with pytest.raises(TakenError):
        second.acquire()
    assert ["was being written to by process" in text for text in told] == [True]

    monkeypatch.setattr(lock, "machine", lambda: "a third machine")
    monkeypatch.setattr(lock, "STALE_S", 3.0)
    second.wait_for_sign(told.append)
    second.acquire()
    with pytest.raises(TakenError, match="was taken over"):
        beat()
    Lock(parse(f"{folder}")).wait_for_sign(told.append)
    assert len(told) == 2, "nobody waits for a process of the same machine"


def test_a_driver_whose_study_was_taken_over_pushes_nothing_more(
    folder: Mirrored, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    first = Lock(parse(f"{folder}"))
    first.acquire()
    pushing = Pushing(Mirror(folder), [""], log=told.append, lock=first)
    monkeypatch.setattr(lock, "machine", lambda: "another machine")
    monkeypatch.setattr(lock, "STALE_S", 0.0)
    Lock(parse(f"{folder}")).acquire()
    first.doubt()
    write(folder, EPOCHS, b"1")
    assert not pushing.flush()
    assert pushing.close() == [EPOCHS]
    assert there(folder) == {}
    (text,) = told
    assert "from here on nothing is pushed" in text


def test_evaluations_of_two_machines_are_all_kept(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "evaluations/part-00000.parquet"
    for machine in ("a", "b"):
        monkeypatch.setenv("ARAT_CACHE", str(tmp_path / machine))
        folder = mirror_of(parse(address))
        with session.adding(folder, log=pytest.fail):
            before = (folder / name).read_bytes() if (folder / name).exists() else b""
            write(folder, name, before + machine.encode())
    assert there(folder) == {name: b"ab"}
