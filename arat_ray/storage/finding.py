"""Where data lies on this machine, wherever the file or the checkpoint that names it was written.

One rule: what `--data` names; else the place that is named, if it is there; else below `$ARAT_DATA`; else below
~/.cache/arat-ray. Below a folder a place is looked for by the end of its path, the longest first: of
`/home/ann/sets/digits/train.parquet` in DATA, `DATA/sets/digits/train.parquet`, `DATA/digits/train.parquet`,
`DATA/train.parquet`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from arat_ray.storage import datasets
from arat_ray.storage.address import is_uri, parse

Location = Path | str
"""A path, or the address of a bucket as text."""


@dataclass(frozen=True)
class _Rule:
    given: Location | None = None
    """What `--data` names."""
    trusts_names: bool = True
    """Whether a place that is named is looked at."""


_rule = _Rule()  # of the process, not of a context: Ray calls back in threads of its own


@contextmanager
def given(data: Location | None) -> Iterator[None]:
    """Within the block all data is what lies at, or below, this place; None changes nothing.

    Raises ValueError where there is nothing.
    """
    if data is not None and not _is_there(data):
        raise ValueError(f"--data {data}: there is no such file or folder")
    with _ruled(_rule if data is None else _Rule(data)):
        yield


@contextmanager
def without_names() -> Iterator[None]:
    """Within the block, places that are named are not looked at, but for their ends below the user's own folders."""
    with _ruled(replace(_rule, trusts_names=False)):
        yield


@contextmanager
def _ruled(rule: _Rule) -> Iterator[None]:
    global _rule
    before, _rule = _rule, rule
    try:
        yield
    finally:
        _rule = before


def own_folders() -> list[Path]:
    """The user's own: `$ARAT_DATA`, if it is set, and ~/.cache/arat-ray, if there is a home."""
    texts = [os.path.expanduser(text) for text in (os.environ.get("ARAT_DATA"), "~/.cache/arat-ray") if text]
    return [Path(text).absolute() for text in texts if not text.startswith("~")]


def find(named: Mapping[str, Location]) -> dict[str, Location]:
    """Each of the places of a data set (`train`, `test`) where it is on this machine; one that is nowhere as it stands.

    Raises ValueError where `--data` holds none of them.
    """
    if _rule.given is not None:
        return _find_in(_rule.given, named)
    return {key: _found(place) for key, place in named.items()}


def roots(named: Path | None) -> list[Path]:
    """The folders in which whole sets are looked for; what is in none of them is downloaded into the first."""
    if _rule.given is not None:
        if isinstance(_rule.given, str):
            raise ValueError(f"--data {_rule.given}: this data set is read from a folder, not from a bucket")
        return [_rule.given]
    first = [named] if named is not None and _rule.trusts_names else []
    return list(dict.fromkeys([*first, *own_folders()]))


def _found(place: Location) -> Location:
    if _rule.trusts_names and (isinstance(place, str) or _is_there(place)):
        return place
    if (there := _in_own_folders(place)) or _rule.trusts_names:
        return there or place
    return Path(os.devnull, *_parts(place)[-1:])  # where nothing is: the name is not to be looked at


def _in_own_folders(place: Location) -> Location | None:
    return next((there for folder in own_folders() if (there := _below(folder, place))), None)


def is_found(place: str) -> bool:
    """Whether the user's own folders have what is named, by a path or an address."""
    return _in_own_folders(place if is_uri(place) else Path(place)) is not None


def _find_in(folder: Location, named: Mapping[str, Location]) -> dict[str, Location]:
    """Below a folder; else it is itself what is named, or stands beside the others."""
    found = {key: there for key, place in named.items() if (there := _below(folder, place))}
    if not found and len(set(named.values())) == 1:
        return dict.fromkeys(named, folder)
    if not found and _parts(folder)[-1:] in [_parts(place)[-1:] for place in named.values()]:
        beside = _parent(folder)
        found = {key: there for key, place in named.items() if (there := _below(beside, place))}
    if not found and named:
        names = ", ".join(dict.fromkeys(_parts(place)[-1] for place in named.values()))
        raise ValueError(f"--data {folder}: it holds none of {names}; name the folder that does")
    return {key: found.get(key, _join(folder, _parts(place)[-1:])) for key, place in named.items()}


def _below(folder: Location, place: Location) -> Location | None:
    """The longest end of a place that is there below a folder."""
    parts = _parts(place)
    return next((there for i in range(len(parts)) if _is_there(there := _join(folder, parts[i:]))), None)


def _parts(place: Location) -> tuple[str, ...]:
    """What a place is made of, from after the last `..`."""
    path = PurePosixPath(place.partition("://")[2] if isinstance(place, str) else place)
    parts = tuple(part for part in path.parts if part != path.root)
    ups = [i for i, part in enumerate(parts) if part == ".."]
    return parts[ups[-1] + 1 :] if ups else parts


def _join(folder: Location, parts: tuple[str, ...]) -> Location:
    return "/".join([folder, *parts]) if isinstance(folder, str) else folder.joinpath(*parts)


def _parent(folder: Location) -> Location:
    return folder.rpartition("/")[0] if isinstance(folder, str) else folder.parent


def _is_there(place: Location) -> bool:
    return datasets.is_there(place) if isinstance(place, str) else os.path.exists(place)


def version(place: Location) -> tuple[Any, ...]:
    """What changes when a file does, or when one right in a folder does; nothing of what is not there."""
    if isinstance(place, str):
        return ()
    try:
        files = sorted(place.iterdir()) if place.is_dir() else [place]
        return tuple((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files)
    except OSError:
        return ()


def location(text: str) -> Location:
    """What a user wrote as a place of data: an address, or a path, in which `~` and $VARIABLES are filled in."""
    return parse(text).uri if is_uri(text) else Path(os.path.expanduser(os.path.expandvars(text))).absolute()
