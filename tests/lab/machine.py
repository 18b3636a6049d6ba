"""The machine that a lab runs on: what the lab must leave as it was."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

FILES = ("/etc/hosts", "/etc/passwd", "/etc/group", "/etc/shadow", "/etc/munge", "/etc/slurm", "/run/munge")


def digest(path: Path) -> str:
    """Of a file, or of all files in a folder with their names."""
    files = sorted(each for each in [path, *path.rglob("*")] if each.is_file())
    return hashlib.sha256(b"".join(str(file).encode() + file.read_bytes() for file in files)).hexdigest()


def state() -> dict[str, str]:
    """Its accounts, names, munge and Slurm, to be compared with another time's."""
    return {name: digest(Path(name)) for name in FILES}


def mounts(folder: Path) -> list[str]:
    """The mounts that have to do with a folder."""
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if folder.name in line]


def namespace(pid: int) -> str | None:
    """The namespace of processes that a process lives in, while it lives."""
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except (FileNotFoundError, ProcessLookupError, PermissionError):  # gone, or the init of a sandbox
        return None


def living(namespaces: Iterable[str | None]) -> list[int]:
    """The processes in these namespaces."""
    pids = (int(name) for name in os.listdir("/proc") if name.isdigit())
    return [pid for pid in pids if namespace(pid) in {*namespaces} - {None}]
