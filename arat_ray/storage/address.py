"""Where a study lies: a folder, or an address in a bucket with its local mirror.

All code works on local paths. The path of a mirror says by itself which address it mirrors:
`<root>/s3/bucket/prefix/study` is that of `s3://bucket/prefix/study`. Nothing here asks the network, or loads anything.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PosixPath
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit, urlunsplit

SCHEMES = ("s3", "gs", "abfs", "file")
_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)


class Address(NamedTuple):
    """An address in a bucket: `s3`, `bucket/prefix/study`, and for S3 the server that is not Amazon's."""

    scheme: str
    location: str
    endpoint: str = ""

    @property
    def bucket(self) -> str:
        return "/" if self.location.startswith("/") else self.location.partition("/")[0]

    @property
    def uri(self) -> str:
        return f"{self.scheme}://{self.location}"


class Mirrored(PosixPath):
    """A path in a mirror. In an f-string it reads as the address that the user knows; elsewhere it is the path."""

    def __format__(self, spec: str) -> str:
        return format(address_of(self).uri, spec)


def root() -> Path:
    """The folder of all mirrors of this machine."""
    cache = os.environ.get("ARAT_CACHE") or "~/.cache/arat-ray"
    return Path(cache).expanduser().absolute() / "mirror"


def is_uri(text: str) -> bool:
    return _URI.fullmatch(text) is not None


def parse(uri: str) -> Address:
    """An address as it is written; ValueError where it is none that can be opened."""
    match = _URI.fullmatch(uri)
    assert match is not None, uri
    scheme, location = match[1].lower(), match[2].rstrip("/")
    if scheme not in SCHEMES:
        raise ValueError(f"{uri}: unknown scheme {scheme!r}; known: {', '.join(f'{name}://' for name in SCHEMES)}")
    if "?" in location or "#" in location:
        raise ValueError(
            f"{uri}: an address ends with its path; settings of a server go into the environment, for S3 "
            "AWS_ENDPOINT_URL and AWS_REGION"
        )
    login, at, rest = location.partition("/")[0].rpartition("@")
    if at and (":" in login or scheme in ("s3", "gs")):  # abfs://container@account is none
        raise ValueError(
            f"{scheme}://***@{rest}: an address stands in results and logs, so it holds no login; credentials go into "
            "the environment, for S3 AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    parts = location.removeprefix("/").split("/")
    if scheme == "file" and not location.startswith("/"):
        raise ValueError(f"{uri}: write a folder with its whole path, file:///folder, or without `file://`")
    if not all(parts) or {".", ".."} & set(parts):
        raise ValueError(f"{uri}: not a plain address; write it as {scheme}://bucket/prefix")
    return Address(scheme, location, s3_endpoint() if scheme == "s3" else "")


def without_login(address: str) -> str:
    """An address without `user:password@`."""
    try:
        parts = urlsplit(address)
    except ValueError:  # no address at all
        return address
    if not parts.scheme or "@" not in parts.netloc:
        return address
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def s3_endpoint() -> str:
    """The server that the environment names in the place of Amazon's, if it does."""
    named = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    return without_login(named).rstrip("/")


def path_of(text: str) -> Path:
    """What a user wrote as a path: itself, or of an address the path of its mirror."""
    return mirror_of(parse(text)) if is_uri(text) else Path(text)


def mirror_of(address: Address) -> Mirrored:
    server = f"@{quote(address.endpoint, safe='')}" if address.endpoint else ""
    return Mirrored(root() / f"{address.scheme}{server}" / address.location.removeprefix("/"))


def address_of(path: Mirrored) -> Address:
    """The address that a path mirrors."""
    server, *parts = path.relative_to(root()).parts
    scheme, _, endpoint = server.partition("@")
    return Address(scheme, ("/" if scheme == "file" else "") + "/".join(parts), unquote(endpoint))


def uri_of(path: Path) -> str | None:
    """The address of a path in a mirror; None of a plain path."""
    return address_of(path).uri if isinstance(path, Mirrored) else None
