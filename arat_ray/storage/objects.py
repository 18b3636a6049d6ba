"""Objects in a bucket: what is there, whole objects up, whole objects down, each as it is, byte for byte.

Everything that a network or a server can do wrong is an OSError, and soon: waits and repetitions are a matter of the
caller.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple, TypeVar

from arat_ray import locks
from arat_ray.storage.address import Address
from arat_ray.storage.faults import BucketError, ConflictError, told
from arat_ray.storage.stores import key, store

if TYPE_CHECKING:
    from obstore import ObjectMeta, PutMode

T = TypeVar("T")

CHUNK = 16 << 20
PART, PARTS_AT_ONCE = 8 << 20, 4
"""A larger object goes up in parts of so many bytes."""
SMALL = 1 << 20
"""Bytes that are sent in the time in which an answer is expected."""
LISTINGS = 3
"""How often one is asked for at most."""

_without_conditions = set[tuple[str, str]]()


class Stat(NamedTuple):
    """A version of an object: another content is another `e_tag`."""

    size: int
    e_tag: str


def check(address: Address) -> None:
    """OSError, within seconds, where the bucket of an address is missing or closed to us.

    By a listing below the address, which needs the right to read: about the bucket itself S3 answers only those who may
    list all of it.
    """
    import obstore

    _listed(address, lambda: next(iter(obstore.list(store(address), key(address, ".nothing"))), None))


def stats(address: Address, name: str) -> dict[str, Stat]:
    """Of the object of a name below an address, or of all below a folder, `trials/`, by name; no dot-files there.

    `journal/record-*` is all in a folder that begins alike.
    """
    import obstore

    folder, _, begins = name.rpartition("/")
    if begins and not begins.endswith("*"):
        found = _head(address, name)
        return {} if found is None else {name: _stat(found)}
    above, inside = key(address), key(address, folder)
    listed = _listed(address, lambda: [each for part in obstore.list(store(address), inside) for each in part])
    below = {each["path"][len(above) :].lstrip("/"): _stat(each) for each in listed if each["path"] != above}
    return {
        each: stat
        for each, stat in below.items()
        if each.startswith(name.removesuffix("*"))
        and not is_hidden(each)
        and (stat.size or _head(address, each))  # an empty `folder/` is listed as `folder`, which is no object
    }


def time_of(address: Address, name: str) -> float | None:
    """When an object was put, in s by the clock of its server, which some tell in whole seconds; None without it."""
    found = _head(address, name)
    return found and found["last_modified"].timestamp()


def folders(address: Address) -> list[str]:
    """The names of the folders right below an address."""
    import obstore

    found = _listed(address, lambda: obstore.list_with_delimiter(store(address), key(address)))
    return sorted(folder.rpartition("/")[2] for folder in found["common_prefixes"])


def get(address: Address, name: str, path: Path) -> Stat:
    """An object into a file, flushed by nobody; which version of it that is."""
    import obstore

    with path.open("wb") as file, _asking(address):
        answer = obstore.get(store(address), key(address, name))
        for chunk in answer.stream(min_chunk_size=CHUNK):
            file.write(chunk)
        if file.tell() != answer.meta["size"]:
            raise BucketError(f"{address.uri}/{name} ended after {file.tell()} bytes", passes=True)
        return _stat(answer.meta)


def read(address: Address, name: str) -> bytes | None:
    """The content of a small object; None where there is none."""
    found = read_version(address, name)
    return found and found[0]


def read_version(address: Address, name: str) -> tuple[bytes, Stat] | None:
    """The content of a small object with its version; None where there is none."""
    import obstore

    try:
        with _asking(address):
            answer = obstore.get(store(address), key(address, name))
            return bytes(answer.bytes()), _stat(answer.meta)
    except FileNotFoundError:
        return None


def put(address: Address, name: str, content: IO[bytes]) -> Stat:
    """A file's content as a whole object, whatever was there; the version that it is."""
    import obstore

    size = content.seek(0, 2)
    content.seek(0)
    with _asking(address):
        done = obstore.put(
            store(address, bulk=size > SMALL),
            key(address, name),
            content,
            chunk_size=PART,
            max_concurrency=PARTS_AT_ONCE,
        )
        return Stat(size, _plain(done["e_tag"]))


def put_over(address: Address, name: str, content: bytes, before: Stat | None) -> Stat:
    """Some bytes as an object in the place of the version `before`, or where there is none; the version that it is.

    ConflictError, and nothing is changed, where another version is there. A server that says so after it had put them,
    because its first answer was lost on the way, is corrected by what is there.
    """
    import obstore

    where, is_bulk = key(address, name), len(content) > SMALL
    try:
        with _exclusive(address), _asking(address):
            mode = _condition(address, name, before)
            done = obstore.put(store(address, bulk=is_bulk), where, content, mode=mode, use_multipart=False)
            return Stat(len(content), _plain(done["e_tag"]))
    except (ConflictError, FileNotFoundError) as error:
        there = read_version(address, name)
        if there is not None and there[0] == content:
            return there[1]
        raise ConflictError(f"{address.uri}/{name} is there in another version, or gone") from error


def has_conditions(address: Address) -> bool:
    """Whether conditional writes are asked of the server of a bucket."""
    return (address.bucket, address.endpoint) not in _without_conditions


def without_conditions(address: Address) -> None:
    """From now on `put_over` looks before it writes in this bucket: its server ignores, or refuses, conditions."""
    _without_conditions.add((address.bucket, address.endpoint))


def delete(address: Address, name: str) -> None:
    """Take an object away; nothing where there is none."""
    import obstore

    with suppress(FileNotFoundError), _asking(address):
        obstore.delete(store(address), key(address, name))


def is_hidden(name: str) -> bool:
    """Whether a file is left out everywhere. A name that leads elsewhere is not: who makes a path of it refuses it."""
    return any(part.startswith(".") and part not in (".", "..") for part in name.split("/"))


def _listed(address: Address, ask: Callable[[], T]) -> T:
    """A listing, again where its answer was cut off: obstore itself goes on with an object, and not with a list."""
    for _ in range(LISTINGS - 1):
        try:
            with _asking(address):
                return ask()
        except BucketError as error:
            if "list response body" not in str(error.__cause__):
                raise
    with _asking(address):
        return ask()


def _head(address: Address, name: str) -> ObjectMeta | None:
    import obstore

    try:
        with _asking(address):
            return obstore.head(store(address), key(address, name))
    except FileNotFoundError:
        return None


def _condition(address: Address, name: str, before: Stat | None) -> PutMode:
    """For S3 and Azure the ETag is the condition, for Google a number. A folder has none (see `_exclusive`)."""
    knows_none = address.scheme == "file" or not has_conditions(address)
    if before is None and not knows_none:
        return "create"
    if before is not None and address.scheme in ("s3", "abfs") and not knows_none:
        return {"e_tag": f'"{before.e_tag}"'}
    found = _head(address, name)
    if (found and _stat(found)) != before:
        raise ConflictError(f"{address.uri}/{name} is there in another version, or gone")
    if found is None or knows_none:
        return "overwrite"
    return {"version": found["version"]} if found["version"] else {"e_tag": found["e_tag"]}


@contextmanager
def _exclusive(address: Address) -> Iterator[None]:
    """A folder that stands for a bucket has no conditional writes: its files are looked at and written under a lock."""
    if address.scheme != "file":
        yield
        return
    Path(address.location).mkdir(parents=True, exist_ok=True)
    with locks.held(Path(address.location, ".put-lock"), wait=True):
        yield


@contextmanager
def _asking(address: Address) -> Iterator[None]:
    """Errors of obstore as ours; ValueError where a key of the bucket is no name of a file."""
    from obstore.exceptions import AlreadyExistsError, BaseError, InvalidPathError, PreconditionError

    try:
        yield
    except FileNotFoundError as error:
        if "<Code>NoSuchBucket" in str(error):
            raise told(error, address) from error
        raise FileNotFoundError(f"{address.uri}: what was asked for is not there") from error
    except (AlreadyExistsError, PreconditionError) as error:
        raise ConflictError(f"{address.uri}: another version is there") from error
    except InvalidPathError as error:
        first = str(error).splitlines()[0]
        found = re.search(r'Path "(.*)"(?: contained|: )', first)
        why = "it has an empty part, `.`, `..` or a control character"
        raise ValueError(f"{found[1] if found else first!r} is no name of a file below {address.uri}: {why}") from error
    except (BaseError, NotImplementedError) as error:
        raise told(error, address) from error


def _stat(found: ObjectMeta) -> Stat:
    return Stat(found["size"], _plain(found["e_tag"]))


def _plain(e_tag: str | None) -> str:
    """Some servers list them without quotes."""
    return (e_tag or "").removeprefix("W/").strip('"')
