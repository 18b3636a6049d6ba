"""Foreign names: what a bucket, a table or another machine calls a file, made a path below a folder or refused."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

PART_AT_MOST, NAME_AT_MOST = 255, 3000
"""Bytes of a part, and of all of it: what Linux takes, with room for the folder above."""
EXPERIMENT_LETTERS, EXPERIMENT_BYTES = 100, PART_AT_MOST - len("-00000")
"""What the `name:` of an experiment may have: a trial's folder adds its number to it."""
SHOWN_AT_MOST = 120


def below(folder: Path, name: object) -> Path:
    """The path of a foreign relative name below a folder.

    Raises ValueError naming it where it is no such name: empty, absolute, with an empty part or one of `.` and `..`,
    with a backslash or a control character, too long, or no text at all.
    """
    if why := _why_not(name):
        raise ValueError(f"{_shown(name)} is no name of a file below {folder}: {why}")
    return folder / str(name)


def all_below(folder: Path, names: Iterable[str]) -> dict[str, Path]:
    """Each name with its path, to be written to. ValueError as well where one of them is a file and a folder at once.

    And where a link that is there already would lead it out of the folder.
    """
    paths = {name: below(folder, name) for name in names}
    folders = {str(parent): name for name in paths for parent in PurePosixPath(name).parents}
    for name in paths:
        if name in folders:
            raise ValueError(f"{_shown(name)} is a file, and a folder of {_shown(folders[name])}, below {folder}")
    home = os.path.realpath(folder)
    for parent in {path.parent: None for path in paths.values()}:
        inside = os.path.relpath(parent, folder)
        if os.path.realpath(parent) != os.path.normpath(os.path.join(home, inside)):
            raise ValueError(f"{parent}: a link leads out of {folder}; remove it")
    return paths


def check_experiment_name(name: str) -> str:
    """The `name:` of an experiment as it is. ValueError where no folder could have it."""
    if not name or not all(c.isalnum() or c in "-_." for c in name) or name.startswith("."):
        raise ValueError(f"{name!r} becomes a folder: use letters, digits, '-', '_' and '.'")
    if len(name) > EXPERIMENT_LETTERS:
        raise ValueError(f"becomes a folder: use at most {EXPERIMENT_LETTERS} characters, not {len(name)}")
    if (size := len(name.encode())) > EXPERIMENT_BYTES:
        raise ValueError(
            f"becomes a folder: use at most {EXPERIMENT_BYTES} bytes, not {size} (its {len(name)} characters have "
            "more than one each)"
        )
    return name


def tame(text: str, *, room: int = 0, keep_end: bool = False) -> str:
    """What any text may be called as the `name:` of an experiment, with room left for so many ASCII characters.

    As much of it as fits: its beginning, or its end.
    """
    name = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in text)
    letters = EXPERIMENT_LETTERS - room
    name = (name[-letters:] if keep_end else name[:letters]).lstrip(".")
    while len(name.encode()) > EXPERIMENT_BYTES - room:
        name = name[1:] if keep_end else name[:-1]
    return name.lstrip(".") or "study"


def _why_not(name: object) -> str | None:
    if not isinstance(name, str):
        return "it is no text"
    try:
        encoded = name.encode()
    except UnicodeEncodeError:
        return "it is no Unicode text"
    parts = name.split("/")
    if not name:
        return "it is empty"
    if name.startswith("/"):
        return "it is absolute"
    if any(part in ("", ".", "..") for part in parts):
        return "it has an empty part, `.` or `..`"
    if "\\" in name or any(ord(char) < 32 or 127 <= ord(char) < 160 for char in name):
        return "it has a backslash or a control character"
    if len(encoded) > NAME_AT_MOST or any(len(part.encode()) > PART_AT_MOST for part in parts):
        return f"it is longer than {PART_AT_MOST} bytes a part, or {NAME_AT_MOST} in all"
    return None


def _shown(name: object) -> str:
    text = repr(name)
    return text if len(text) <= SHOWN_AT_MOST else f"{text[:SHOWN_AT_MOST]}..."
