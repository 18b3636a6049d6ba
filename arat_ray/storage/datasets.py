"""Data sets in a bucket: fetched once by each machine, by whichever of its processes comes first."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

from arat_ray import locks
from arat_ray.storage import objects
from arat_ray.storage.address import Address, parse
from arat_ray.storage.names import all_below
from arat_ray.storage.objects import Stat

AT_ONCE = 8


@lru_cache
def cached(address: str) -> Path:
    """The local copy of a file, or of a folder with all that is below it, in `$ARAT_DATA` or ~/.cache/arat-ray.

    What has changed in the bucket, by names or versions, is another copy. Where the bucket does not answer, the
    newest copy serves. Raises ValueError where there is nothing, and where it cannot be fetched whole.
    """
    bucket = parse(address)
    text = os.path.expanduser(os.environ.get("ARAT_DATA") or "~/.cache/arat-ray")
    if text.startswith("~"):
        raise ValueError(f"{address}: there is no home folder to keep a copy in; set ARAT_DATA")
    cache = Path(text).absolute()
    home = cache / "buckets" / bucket.scheme / bucket.location.removeprefix("/")
    try:
        there = _listing(bucket)
    except OSError as error:
        copies = sorted(home.glob("[!.]*/"), key=lambda copy: copy.stat().st_mtime)
        if copies:
            return copies[-1] / home.name
        raise ValueError(f"{address}: {error}") from error
    if not there:
        raise ValueError(f"{address}: there is no such file or folder")
    version = hashlib.sha256(json.dumps(sorted(there.items())).encode()).hexdigest()[:12]
    try:
        home.mkdir(parents=True, exist_ok=True)
        with locks.held(home / ".lock", wait=True):
            if not (home / version).is_dir():
                _fetch(bucket, there, home / version)
    except OSError as error:
        raise ValueError(f"{address} cannot be kept in {home} ({error})") from error
    except ValueError as error:
        raise ValueError(f"{address}: {error}; nothing was fetched") from error
    return home / version / home.name


@lru_cache
def is_there(address: str) -> bool:
    """Whether a bucket has a file, or a folder with something in it. ValueError where it cannot be asked."""
    try:
        return bool(_listing(parse(address)))
    except OSError as error:
        raise ValueError(f"{address}: {error}") from error


def _listing(bucket: Address) -> dict[str, Stat]:
    """Of a file, itself by the name ""; of a folder, what is in it."""
    folder, _, name = bucket.location.rpartition("/")
    alone = objects.stats(bucket._replace(location=folder), name) if folder else {}
    return {"": alone[name]} if alone else objects.stats(bucket, "")


def _fetch(bucket: Address, there: dict[str, Stat], copy: Path) -> None:
    """Put a copy in place once it is whole; OSError where it is not, or is replaced meanwhile.

    ValueError, before anything is written, where a key of the bucket is no name of a file below the copy.
    """
    temporary = copy.with_name(f".{copy.name}")
    target = temporary / copy.parent.name
    paths = {"": target} if "" in there else all_below(target, there)
    shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed
    for folder in {path.parent for path in paths.values()}:
        folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = pool.map(lambda name: objects.get(bucket, name, paths[name]), paths)
        versions = dict(zip(paths, found, strict=True))
    if versions != there:
        raise OSError(f"{bucket.uri} was written to while it was fetched")
    temporary.rename(copy)
