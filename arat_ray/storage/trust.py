"""The places of data that this user's own files named on this machine: what results from elsewhere name is asked for.

A file of the user's own, a JSON text a line, that only grows. It is believed where nobody else can write to it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from arat_ray.storage import finding
from arat_ray.storage.address import is_uri

OTHERS_CAN_WRITE = 0o022


def record() -> Path:
    """The file; where there is no home for it, one that can neither be written nor read."""
    text = os.path.expanduser(os.environ.get("ARAT_CACHE") or "~/.cache/arat-ray")
    return Path(os.devnull if text.startswith("~") else text).absolute() / "places-of-data"


def remember(places: Iterable[str]) -> None:
    """Take these places for the user's own from now on; where nothing can be written, they are asked for again."""
    if not (new := [place for place in dict.fromkeys(places) if not is_trusted(place)]):
        return
    with suppress(OSError):
        record().parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(record(), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "ab") as file:
            file.write("".join(f"{json.dumps(_plain(place))}\n" for place in new).encode())


def is_trusted(place: str) -> bool:
    """Whether a place was remembered, or is the user's own folder of data or below it."""
    plain = _plain(place)
    if plain in _remembered():
        return True
    return not is_uri(plain) and any(Path(plain).is_relative_to(folder) for folder in finding.own_folders())


def _plain(place: str) -> str:
    return place.rstrip("/") if is_uri(place) else os.path.normpath(place)


def _remembered() -> set[str]:
    try:
        with record().open("rb") as file:
            found = os.fstat(file.fileno())
            lines = file.read().splitlines()
    except OSError:
        return set()
    if found.st_uid != os.getuid() or found.st_mode & OTHERS_CAN_WRITE:
        return set()
    places = set()
    for line in lines:
        with suppress(ValueError):  # half a line
            places.add(str(json.loads(line)))
    return places
