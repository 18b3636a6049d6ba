"""Whose keys open a bucket, in which region, and which store an address is."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from arat_ray.storage import objects, stores
from arat_ray.storage.address import parse
from arat_ray.storage.faults import BucketError
from tests.storage.conftest import Server
from tests.storage.small_server import SmallServer, serving, with_tls

NAMES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_DEFAULT_REGION")


@pytest.fixture(autouse=True)
def _no_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine on which nothing is set up."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    stores._store.cache_clear()
    yield
    stores._store.cache_clear()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallServer]:
    with serving() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        yield server


class Cloud(HTTPServer):
    """What gives a machine the keys of its role, and for a token those of another one."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Cloud)
        self.place = f"127.0.0.1:{self.server_port}"
        self.asked: list[str] = []


class _Cloud(BaseHTTPRequestHandler):
    server: Cloud

    def _do(self) -> None:
        self.server.asked.append(self.path.partition("?")[0])
        keys = {"AccessKeyId": "role", "SecretAccessKey": "key", "Expiration": "2099-01-01T00:00:00Z"}
        if self.path.startswith("/latest"):
            is_asked_for_keys = self.path.endswith("/lab")
            text = json.dumps({"Code": "Success", "Token": "t", **keys}) if is_asked_for_keys else "lab"
        else:
            text = "".join(f"<{name}>{value}</{name}>" for name, value in {**keys, "SessionToken": "t"}.items())
            for tag in ("Credentials", "AssumeRoleWithWebIdentityResult", "AssumeRoleWithWebIdentityResponse"):
                text = f"<{tag}>{text}</{tag}>"
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    do_GET = do_PUT = do_POST = _do  # noqa: N815

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    server = Cloud()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_role_of_a_machine_is_taken(small: SmallServer, cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", f"http://{cloud.place}")
    objects.put_over(parse("s3://bucket/small"), "a", b"1", None)
    assert small.objects == {"small/a": b"1"}
    assert small.signed_by == {"role"}
    assert cloud.asked[-1] == "/latest/meta-data/iam/security-credentials/lab"


def test_a_web_identity_is_taken(
    small: SmallServer, cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(with_tls(cloud, tmp_path)))
    (tmp_path / "token").write_text("of the cluster")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/lab")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"https://{cloud.place}")
    objects.put_over(parse("s3://bucket/small"), "a", b"1", None)
    assert small.signed_by == {"role"}
    assert cloud.asked == ["/"]


def test_where_the_keys_come_from_is_told_apart_from_the_bucket(
    small: SmallServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("of the cluster")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/lab")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "https://127.0.0.1:1")
    with pytest.raises(BucketError, match=r"there are no keys for it .*; give AWS_PROFILE"):
        objects.check(parse("s3://bucket/small"))
    assert small.asked == []


def test_a_machine_without_keys_is_told_so(small: SmallServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(BucketError, match=r"there are no keys for it .*; give AWS_PROFILE"):
        objects.check(parse("s3://bucket/small"))


PROFILES = "[lab]\naws_access_key_id = test\naws_secret_access_key = test\n"


def test_keys_of_a_profile_are_used_where_none_is_in_the_environment(
    address: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "credentials").write_text(PROFILES)
    (tmp_path / "config").write_text("[profile lab]\nregion = eu-central-1\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    place = parse(address)
    objects.put_over(place, "a", b"1", None)
    opened: Any = stores.store(place)
    assert opened.config["region"] == "eu-central-1"
    monkeypatch.setenv("AWS_PROFILE", "another")
    stores._store.cache_clear()
    with pytest.raises(BucketError, match=r"AWS_PROFILE: .*\(another\).*; name one of"):
        objects.read(place, "a")


def test_an_environment_with_keys_loads_no_boto3_and_one_without_a_region_asks_the_bucket(
    small: SmallServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_PROFILE", "never looked at")
    monkeypatch.setattr(stores, "AMAZON", small.url)
    found: Any = stores.store(parse("s3://far-away/small"))
    assert found.config["region"] == "eu-south-2"
    assert found.config["virtual_hosted_style_request"]
    assert small.asked == [("HEAD", "")]


def test_stores_of_google_and_azure_are_opened_by_their_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "a2V5")
    for uri, name, key in (
        ("gs://bucket/studies/small", "GCSStore", "studies/small/a"),
        ("abfs://box@lab.dfs.core.windows.net/studies/small", "AzureStore", "studies/small/a"),
        ("file:///bucket/small", "LocalStore", "bucket/small/a"),
    ):
        place = parse(uri)
        assert type(stores.store(place)).__name__ == name
        assert stores.key(place, "a") == key
    with pytest.raises(BucketError, match="Account must be specified"):
        stores.store(parse("abfs://box/studies"))
