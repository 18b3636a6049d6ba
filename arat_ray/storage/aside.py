"""What has to make way in a mirror, because the bucket went on without it or holds another study by now: kept aside."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from arat_ray.storage import manifest
from arat_ray.storage.address import Mirrored, address_of, root

Log = Callable[[str], None]


def keep(folder: Mirrored, names: Sequence[str], log: Log) -> None:
    """Copy files of a mirror that are to be replaced."""
    aside = _place(folder)
    for name in names:
        (aside / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(folder / name, aside / name)
    log(
        f"{address_of(folder).uri} went on elsewhere while {len(names)} files of this machine were not in it; what is "
        f"there counts, and they are kept in {aside}"
    )


def move(folder: Mirrored, log: Log) -> None:
    """Move all of a mirror away, whose bucket holds another study of the same name."""
    aside = _place(folder)
    aside.parent.mkdir(parents=True, exist_ok=True)
    Path(folder).rename(aside)
    for marks in manifest.folder_of(folder).iterdir():
        if marks.name != ".lock":
            shutil.rmtree(marks) if marks.is_dir() else marks.unlink()
    log(
        f"{address_of(folder).uri} holds another study by now, begun at another time; what is there counts, and this "
        f"machine's copy of the one of before is kept in {aside}"
    )


def are_two(one: bytes, other: bytes) -> bool:
    """Whether two `study.json` are known to be of two studies: they were begun at different times."""
    begun = _begun(one), _begun(other)
    return None not in begun and begun[0] != begun[1]


def _begun(description: bytes) -> str | None:
    try:
        return str(json.loads(description)["started_at"][0])
    except (ValueError, KeyError, TypeError, IndexError):  # of before that was noted, or damaged
        return None


def _place(folder: Mirrored) -> Path:
    now = datetime.now().strftime("%Y%m%d-%H%M%S-%f")
    return root() / ".set-aside" / Path(folder).relative_to(root()) / now
