"""Objects in a bucket, through pyarrow.fs: what is there, whole objects up, whole objects down.

pyarrow is imported inside the functions, so that the command line can know of addresses without loading it. Everything
that a network or a server can do wrong is an OSError, and soon: waits and repetitions are a matter of the caller.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, NamedTuple

from arat_ray.storage.address import Address

CONNECT_S, ANSWER_S, ATTEMPTS = 3, 5, 2
CHUNK = 16 << 20
REPLACED_AT_MOST = 10
"""How often an object may be replaced while it is read."""


class Stat(NamedTuple):
    """What tells two versions of an object, or of a file, apart."""

    size: int
    mtime_ns: int


@lru_cache
def _filesystem(scheme: str, bucket: str, endpoint: str) -> Any:
    from pyarrow import fs

    if scheme != "s3":
        return fs.FileSystem.from_uri(f"{scheme}://{bucket}")[0]
    protocol, _, server = endpoint.rpartition("://")
    return fs.S3FileSystem(
        endpoint_override=server or None,
        scheme=protocol or "https",
        region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or _region(bucket, endpoint),
        connect_timeout=CONNECT_S,
        request_timeout=ANSWER_S,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
        allow_delayed_open=True,  # an object that fits into one part is one PUT
    )


def _region(bucket: str, endpoint: str) -> str | None:
    """Of a bucket at Amazon's; other servers do not care."""
    from pyarrow import fs

    if endpoint:
        return None
    try:
        return str(fs.resolve_s3_region(bucket))
    except OSError:  # the first request says what is wrong
        return None


def filesystem(address: Address) -> Any:
    """The pyarrow filesystem that opens `address.location`."""
    return _filesystem(address.scheme, address.bucket, address.endpoint)


def check(address: Address) -> None:
    """Refuse an address whose bucket is missing or closed to us; ValueError, within seconds."""
    where = address.endpoint or "its server"
    try:
        is_there = _is_there(address)
    except OSError as error:
        text = str(error)
        if re.search("ACCESS_DENIED|INVALID_ACCESS_KEY|SIGNATURE|CREDENTIAL|HTTP 40[13]", text, re.IGNORECASE):
            fix = "give AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or this machine a role with access"
            raise ValueError(f"{address.uri}: access is denied ({reason(error)}); {fix}") from error
        raise ValueError(f"{address.uri}: {where} does not answer ({reason(error)})") from error
    if not is_there:
        raise ValueError(
            f"{address.uri}: there is no bucket {address.bucket!r} at {address.endpoint or address.scheme}, or it is "
            "not ours to see; make it first, or correct its name"
        )


def _is_there(address: Address) -> bool:
    """Whether the bucket is there, by a listing below the address, which needs the right to read; OSError without it.

    S3 is not asked about the bucket itself: that takes the right to list all of it.
    """
    from pyarrow import fs

    store, below = filesystem(address), fs.FileSelector(f"{address.location}/.nothing")
    if address.scheme != "s3" and store.get_file_info(address.bucket).type == fs.FileType.NotFound:
        return False
    try:
        store.get_file_info(below)
    except FileNotFoundError:  # of the address; of a bucket it is another error
        return True
    except OSError as error:
        if "NO_SUCH_BUCKET" in str(error):
            return False
        raise
    return True


def reason(error: OSError) -> str:
    """The words of an error of pyarrow that say what happened."""
    text = str(error).splitlines()[0]
    return re.sub(r"\s*\(Request ID.*?\)", "", text.rpartition("Details: ")[2] or text)


def stats(address: Address, name: str) -> dict[str, Stat]:
    """Of the object of a name below an address, or of all below a folder, `trials/`; by name. No dot-files there."""
    from pyarrow import fs

    store = filesystem(address)
    if name and not name.endswith("/"):
        info = store.get_file_info(_join(address, name))
        return {name: _stat(info)} if info.type == fs.FileType.File else {}
    folder = _join(address, name.rstrip("/"))
    infos = store.get_file_info(fs.FileSelector(folder, allow_not_found=True, recursive=True))
    found = {info.path.removeprefix(f"{address.location}/"): _stat(info) for info in infos if info.is_file}
    return {name: stat for name, stat in found.items() if not is_hidden(name)}


def folders(address: Address) -> list[str]:
    """The names of the folders right below an address."""
    from pyarrow import fs

    infos = filesystem(address).get_file_info(fs.FileSelector(address.location, allow_not_found=True))
    return sorted(info.base_name for info in infos if info.type == fs.FileType.Directory)


def get(address: Address, name: str, path: Path) -> None:
    """An object into a file, which is there when this returns, and flushed by nobody."""
    _whole(address, name, lambda: copy(address, name, path))


def copy(address: Address, name: str, path: Path) -> int:
    """The same of an object that nobody replaces meanwhile; its size. It is one object, whatever the server says."""
    with filesystem(address).open_input_stream(_join(address, name)) as source, path.open("wb") as file:
        for chunk in _chunks(source):
            file.write(chunk)
        return file.tell()


def _whole(address: Address, name: str, fetch: Callable[[], int]) -> None:
    """Fetch until it was one version of the object: one that is replaced meanwhile may come in pieces of both."""
    for _ in range(REPLACED_AT_MOST):
        before = stats(address, name).get(name)
        size = fetch()
        if before == stats(address, name).get(name) and before is not None and before.size == size:
            return
    raise OSError(f"{address.uri}/{name} is replaced faster than it can be read")


def put(address: Address, name: str, content: IO[bytes]) -> Stat:
    """A file's content as a whole object; what the bucket then says of it. OSError where that is not its size."""
    store, key = filesystem(address), _join(address, name)
    is_folder = address.scheme == "file"
    target = key.rpartition("/")[0] + f"/.{key.rpartition('/')[2]}.{os.getpid()}" if is_folder else key
    if is_folder:
        store.create_dir(key.rpartition("/")[0])
    size = 0
    with store.open_output_stream(target) as sink:
        for chunk in _chunks(content):
            sink.write(chunk)
            size += len(chunk)
    if is_folder:
        store.move(target, key)
    stat = _stat(store.get_file_info(key))
    if stat.size != size:
        raise OSError(f"{address.uri}/{name} has {stat.size} bytes after {size} were sent")
    return stat


def read(address: Address, name: str) -> bytes | None:
    """The content of a small object; None where there is none."""
    content = b""

    def fetch() -> int:
        nonlocal content
        with filesystem(address).open_input_stream(_join(address, name)) as source:
            content = bytes(source.read())
        return len(content)

    try:
        _whole(address, name, fetch)
    except FileNotFoundError:
        return None
    return content


def _chunks(content: IO[bytes]) -> Iterator[bytes]:
    while chunk := content.read(CHUNK):
        yield chunk


def _join(address: Address, name: str) -> str:
    return f"{address.location}/{name}" if name else address.location


def _stat(info: Any) -> Stat:
    """Of an object that is gone, a size that no file has."""
    return Stat(info.size if info.size is not None else -1, info.mtime_ns or 0)


def is_hidden(name: str) -> bool:
    """Whether a file is left out everywhere. A name that leads elsewhere is not: who makes a path of it refuses it."""
    return any(part.startswith(".") and part not in (".", "..") for part in name.split("/"))
