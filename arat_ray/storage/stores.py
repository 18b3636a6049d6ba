"""Buckets, opened through obstore: which server, which region, whose keys, and how long it is waited for.

obstore takes keys from the environment, from a web identity and from the role of a machine. Profiles and the files in
~/.aws it does not know: where they are in use, and no key is in the environment, boto3 reads them. Both are loaded
inside the functions, so that the command line can know of addresses without them.
"""

from __future__ import annotations

import os
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arat_ray.storage.address import Address
from arat_ray.storage.faults import BucketError, told

if TYPE_CHECKING:
    from obstore.store import ObjectStore

CONNECT_S, ANSWER_S, RETRIES = 3, 5, 1
BULK_S = 60
"""How long an answer is waited for while much is sent: `PARTS_AT_ONCE` parts on a slow line."""
KEYS_S = 300.0
"""How long keys of a profile are used before boto3 is asked again; it renews those that expire in 10 minutes."""
AMAZON = "https://s3.amazonaws.com"


def store(address: Address, *, bulk: bool = False) -> ObjectStore:
    """The store of an address's bucket; OSError where the keys for it cannot be had."""
    return _store(address.scheme, address.bucket, address.endpoint, BULK_S if bulk else ANSWER_S)


def key(address: Address, name: str = "") -> str:
    """What the object of a name below an address is called in its store."""
    inside = address.location.removeprefix(address.bucket).strip("/")
    return "/".join(part for part in (inside, name) if part)


@lru_cache
def _store(scheme: str, bucket: str, endpoint: str, answer_s: float) -> ObjectStore:
    from obstore.exceptions import BaseError
    from obstore.store import AzureStore, GCSStore, LocalStore

    options: Any = {
        "client_options": {
            "allow_http": endpoint.startswith("http://"),
            "connect_timeout": timedelta(seconds=CONNECT_S),
            "read_timeout": timedelta(seconds=answer_s),
            "timeout": timedelta(hours=6),  # of a whole object, which may be large; each read of it has its own
        },
        "retry_config": {"max_retries": RETRIES, "retry_timeout": timedelta(seconds=2 * answer_s)},
    }
    if scheme == "file":
        return LocalStore(automatic_cleanup=True)
    if scheme == "s3":
        return _s3(bucket, endpoint, options)
    try:
        return GCSStore(bucket, **options) if scheme == "gs" else AzureStore.from_url(f"abfs://{bucket}", **options)
    except BaseError as error:  # no account is named
        raise told(error, Address(scheme, bucket)) from error


def _s3(bucket: str, endpoint: str, options: dict[str, Any]) -> ObjectStore:
    from obstore.store import S3Store

    keys, region = _profile(bucket, endpoint)
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or region
    if endpoint:
        options["endpoint"] = endpoint
    if keys:
        options["credential_provider"] = keys
    return S3Store(
        bucket,
        region=region or _region(bucket, endpoint) or "us-east-1",
        virtual_hosted_style_request=not endpoint and "." not in bucket,
        disable_bulk_delete=True,  # not every server knows it
        **options,
    )


def _profile(bucket: str, endpoint: str) -> tuple[Any, str | None]:
    """The keys and the region of the profile in use; nothing where keys are in the environment, or none is in use."""
    if os.environ.get("AWS_ACCESS_KEY_ID") or not (os.environ.get("AWS_PROFILE") or _has_files()):
        return None, None
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError, ProfileNotFound
    from obstore.auth.boto3 import Boto3CredentialProvider

    try:
        session = boto3.Session()
        if session.get_credentials() is None:
            return None, session.region_name
        return Boto3CredentialProvider(session, ttl=timedelta(seconds=KEYS_S)), session.region_name
    except ProfileNotFound as error:
        raise BucketError(f"AWS_PROFILE: {error}; name one of ~/.aws/config", passes=False) from error
    except (BotoCoreError, ClientError) as error:
        raise told(error, Address("s3", bucket, endpoint)) from error


def _has_files() -> bool:
    files = {"AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials", "AWS_CONFIG_FILE": "~/.aws/config"}
    return any(Path(os.path.expanduser(os.environ.get(name) or usual)).exists() for name, usual in files.items())


def _region(bucket: str, endpoint: str) -> str | None:
    """Of a bucket at Amazon's, who tells it to everybody; other servers do not care."""
    if endpoint:
        return None
    import requests

    try:
        answer = requests.head(f"{AMAZON}/{bucket}", timeout=(CONNECT_S, ANSWER_S), allow_redirects=False)
    except requests.RequestException:  # the first request to the bucket says what is wrong
        return None
    return answer.headers.get("x-amz-bucket-region")
