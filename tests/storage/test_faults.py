"""What is wrong with a bucket is told apart, in one line each, with what to do; what may pass is asked again."""

from __future__ import annotations

import io
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from arat_ray.storage import faults, objects, session, stores
from arat_ray.storage.address import Mirrored, mirror_of, parse
from arat_ray.storage.faults import BucketError
from tests.storage.conftest import CREDENTIALS
from tests.storage.small_server import Fault, SmallServer, serving, with_tls

PART = "trials/part-00000.parquet"


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallServer]:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ARAT_CACHE", str(tmp_path / "node"))
    with serving() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        yield server


@pytest.fixture
def study(small: SmallServer) -> Mirrored:
    return mirror_of(parse("s3://bucket/small"))


FAULTS = {
    Fault(404, "NoSuchBucket"): "there is no bucket 'bucket' at http://.*; make it first",
    Fault(400, "ExpiredToken"): r"its keys have expired \(ExpiredToken: said the server\); renew them",
    Fault(400, "TokenRefreshRequired"): "its keys have expired",
    Fault(403, "AccessDenied"): r"access is denied \(AccessDenied: said the server\); give AWS_PROFILE",
    Fault(403, "InvalidAccessKeyId"): r"access is denied \(InvalidAccessKeyId: .*\); give AWS_PROFILE",
    Fault(403, "SignatureDoesNotMatch"): "access is denied",
    Fault(403): r"access is denied \(403 Forbidden\)",
    Fault(401): "access is denied",
    Fault(403, "RequestTimeTooSkewed"): "the clock of this machine is wrong .*timedatectl",
    Fault(503, "SlowDown"): r"http://.* asks to slow down \(SlowDown: said the server\)",
    Fault(429, "TooManyRequests"): "asks to slow down",
    Fault(503): r"asks to slow down \(503 Service Unavailable\)",
    Fault(500, "InternalError"): r"http://.* is in trouble of its own \(InternalError: said the server\)",
    Fault(301, "PermanentRedirect"): "in another region .*AWS_REGION",
    Fault(400, "AuthorizationHeaderMalformed"): "in another region",
}
MAY_PASS = {429, 500, 503}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.status} {fault.code}")
def test_each_fault_is_told_in_one_line_with_its_remedy_whatever_was_asked(
    fault: Fault, small: SmallServer, study: Mirrored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "READ_S", 0.0)
    small.fault = fault
    with pytest.raises(ValueError, match=FAULTS[fault]) as refused:
        session.pull(study, log=pytest.fail)
    text = str(refused.value)
    assert text.startswith("s3://bucket/small: ")
    assert text.isprintable()
    assert len(text) < 400
    if fault.code != "NoSuchBucket":
        place = parse("s3://bucket/small")
        asks: list[Callable[[], objects.Stat]] = [
            lambda: objects.put_over(place, PART, b"x", None),
            lambda: objects.get(place, PART, tmp_path / "copy"),
        ]
        for ask in asks:
            with pytest.raises(BucketError, match=FAULTS[fault]) as found:
                ask()
            assert found.value.passes == (fault.status in MAY_PASS)


def test_names_of_buckets_and_files_are_not_taken_for_faults(small: SmallServer) -> None:
    place = parse("s3://tls-certificates/AccessDenied/503 SlowDown/NoSuchBucket")
    small.fault = Fault(400, "InvalidRequest")
    with pytest.raises(BucketError, match=r"^InvalidRequest: said the server$"):
        objects.check(place)
    with pytest.raises(BucketError, match=r"^InvalidRequest: said the server$"):
        objects.put(place, "ExpiredToken", io.BytesIO(b"x"))
    small.fault = None
    with pytest.raises(FileNotFoundError):
        objects.get(place, "NoSuchBucket", Path(os.devnull))


SAID = {
    "HTTP error: error sending request\nkind: Connect invalid peer certificate: Expired": "is not trusted over TLS",
    "Error in credential provider: UnauthorizedSSOTokenError: The session has expired": "its keys have expired (Una",
    "status code: 404 Not Found: <Code>ContainerNotFound</Code>": "there is no bucket 'box'",
    "HTTP error: error decoding response body\nkind: Decode": "does not answer",
}


@pytest.mark.parametrize("text", SAID)
def test_what_no_server_of_ours_says_is_told_apart_by_its_text(text: str) -> None:
    assert SAID[text] in str(faults.told(Exception(text), parse("s3://box/small")))


def test_a_server_that_hangs_refuses_or_has_no_name_is_told_apart_in_seconds(
    small: SmallServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "ANSWER_S", 0.5)
    monkeypatch.setattr(stores, "RETRIES", 0)
    small.fault = Fault(0)
    began = time.monotonic()
    with pytest.raises(BucketError, match="does not answer within seconds; see whether it runs"):
        objects.check(parse("s3://bucket/small"))
    for url, words in (("http://127.0.0.1:1", "Connection refused"), ("http://no-such-host.invalid", "lookup|resolve")):
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        with pytest.raises(BucketError, match=f"{url} does not answer .*({words})") as found:
            objects.check(parse("s3://bucket/small"))
        assert found.value.passes
    assert time.monotonic() - began < 20


def test_a_server_that_is_not_trusted_over_tls_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with serving() as server:
        certificate = with_tls(server, tmp_path)
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url.replace("http://", "https://"))
        with pytest.raises(BucketError, match=r"not trusted over TLS \(its certificate: \w+\); correct") as found:
            objects.check(parse("s3://bucket/small"))
        assert not found.value.passes
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        stores._store.cache_clear()
        objects.check(parse("s3://bucket/small"))


def test_a_reader_asks_again_for_some_seconds_where_that_may_help_and_not_where_it_cannot(
    small: SmallServer, study: Mirrored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "AGAIN_S", 0.05)
    small.objects[f"small/{PART}"] = b"rows"
    small.fault = Fault(503, "SlowDown")
    healing = threading.Timer(1.0, lambda: setattr(small, "fault", None))
    healing.start()
    session.pull(study, [PART], log=pytest.fail)
    healing.join()
    assert (study / PART).read_bytes() == b"rows"
    small.fault = Fault(403, "AccessDenied")
    del small.asked[:]
    with pytest.raises(ValueError, match="access is denied"):
        session.pull(study, [PART], log=pytest.fail)
    assert len(small.asked) == 1


def test_who_may_only_read_is_told_what_stays_here_and_reads(small: SmallServer, study: Mirrored) -> None:
    small.objects[f"small/{PART}"] = b"rows"
    (study / "epochs").mkdir(parents=True)
    (study / "epochs" / "part-00000.parquet").write_bytes(b"never pushed")
    small.fault, small.faulty = Fault(403, "AccessDenied"), {"PUT"}
    told: list[str] = []
    session.pull(study, [PART], log=told.append)
    assert (study / PART).read_bytes() == b"rows"
    (text,) = told
    assert text.startswith("1 files are not pushed now: access is denied (AccessDenied: said the server)")


def test_a_listing_that_was_cut_off_is_asked_for_again(small: SmallServer) -> None:
    place = parse("s3://bucket/small")
    for ask in (objects.check, objects.folders, lambda address: objects.stats(address, "trials/")):
        small.halves = 2
        ask(place)
        small.halves = 3
        with pytest.raises(BucketError, match="does not answer"):
            ask(place)


def test_half_a_file_takes_the_place_of_none(
    small: SmallServer, study: Mirrored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "READ_S", 0.0)
    small.objects[f"small/{PART}"] = b"rows"
    session.pull(study, [PART], log=pytest.fail)
    small.objects[f"small/{PART}"] = b"more rows" * 1000
    small.halves = math.inf
    with pytest.raises(ValueError, match=r"http://\S+ does not answer \(.+\); see whether it runs"):
        session.pull(study, [PART], log=pytest.fail)
    assert (study / PART).read_bytes() == b"rows"
    assert [path.name for path in (study / "trials").iterdir()] == ["part-00000.parquet"]


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("hdfs://namenode/a", "unknown scheme 'hdfs'; known: s3://, gs://, abfs://, file://"),
        ("file://a/b", "file://a/b: write a folder with its whole path"),
    ],
)
def test_an_address_that_cannot_be_opened_is_refused(uri: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse(uri)
