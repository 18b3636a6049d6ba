"""The shim below Python: calls to the disk below one folder are counted, and one of them is made to go wrong."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).with_name("shim.c")
COUNT, FAIL, FILL, TEAR, AFTER = range(5)  # as in shim.c
END = 1 << 40
CHANGES = ("open", "write", "truncate", "rename", "link", "unlink", "mkdir", "rmdir")
"""Calls after which the folder is another: to be killed after one of them is to be killed before the next."""
A_WHILE = 40
"""How many steps in a row fail where a disk fails for a while."""


class Fault(NamedTuple):
    """A way in which the n-th step goes wrong."""

    name: str
    way: int
    steps: int = 1
    """How many go wrong from the n-th on."""
    error: int = 0
    space_only: bool = False
    """Whether only calls that take space go wrong."""
    calls: tuple[str, ...] = ()
    """Of these only; of all where empty."""
    power_fails: bool = False
    """Whether the process ends because its machine does: what was not flushed to the disk is lost as well."""


FAULTS = (
    Fault("fails once (EIO)", FAIL, error=errno.EIO),
    Fault("fails for a while (EIO)", FAIL, A_WHILE, errno.EIO),
    Fault("no space, once", FAIL, error=errno.ENOSPC, space_only=True),
    Fault("no space for a while, after half a write", FILL, A_WHILE, space_only=True, calls=("write",)),
    Fault("no space to the end", FAIL, END, errno.ENOSPC, space_only=True),
    Fault("killed after half a write", TEAR, calls=("write",)),
    Fault("killed", AFTER, calls=CHANGES),
    Fault("power lost", AFTER, calls=("write", "rename", "unlink"), power_fails=True),
)


class Step(NamedTuple):
    """A call to the disk."""

    number: int
    call: str
    takes_space: bool
    size: int
    """Bytes that the file had before."""
    path: str
    to: str = ""
    """Of a rename."""

    def suffers(self, fault: Fault) -> bool:
        """Whether the fault can be its own."""
        if fault.calls and (self.call not in fault.calls or (self.call == "open" and not self.takes_space)):
            return False
        return self.takes_space or not fault.space_only


def preload() -> None:
    """Go on in a process that has the shim; compiled with cc, and SystemExit where there is none."""
    if "IO_STEPS_SHIM" in os.environ:
        return
    if shutil.which("cc") is None:
        raise SystemExit("the steps of a disk are counted by a library in C, and here is no compiler, cc: install gcc")
    shim = Path(tempfile.gettempdir()) / f"io-steps-{os.getpid()}.so"
    words = ["-O1", "-D_FORTIFY_SOURCE=0", "-shared", "-fPIC", "-o", str(shim), str(SOURCE), "-ldl"]
    subprocess.run(["cc", *words], check=True)
    there = os.environ | {"IO_STEPS_SHIM": str(shim), "LD_PRELOAD": str(shim)}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], there)


def loaded() -> ctypes.CDLL:
    """The shim of this process, whose file is not needed any more."""
    shim = Path(os.environ["IO_STEPS_SHIM"])
    library = ctypes.CDLL(str(shim))
    shim.unlink()
    del os.environ["LD_PRELOAD"]
    library.arm.argtypes = [ctypes.c_char_p, *[ctypes.c_int] * 4, *[ctypes.c_long] * 2]
    return library


def arm(library: ctypes.CDLL, folder: Path, log: int, fault: Fault | None, number: int) -> None:
    """Count the steps of this process from now on, and let `fault` befall the one of this number."""
    way, error, space = (fault.way, fault.error, fault.space_only) if fault else (COUNT, 0, False)
    last = number + (fault.steps if fault else 1) - 1
    library.arm(os.fsencode(folder), log, way, error, space, number, last)


def steps(log: Path) -> list[Step]:
    """What was counted."""
    found = []
    for line in log.read_text().splitlines():
        number, call, takes_space, size, path = line.split(" ", 4)
        path, _, to = path.partition(" > ")
        found.append(Step(int(number), call, takes_space == "1", int(size), path, to))
    return found


def lose_power(folder: Path, done: Sequence[Step]) -> None:
    """Take from the files what these steps have written and not flushed; names and folders stay as they are."""
    kept: dict[str, int] = {}  # bytes that are safe, of files that have more
    for step in done:
        if step.call == "write":
            kept.setdefault(step.path, step.size)
        elif step.call == "fsync":
            kept.pop(step.path, None)
        elif step.call == "truncate" and step.path in kept:
            kept[step.path] = min(kept[step.path], step.size)
        elif step.call == "unlink":
            kept.pop(step.path, None)
        elif step.call == "rename":
            kept.pop(step.to, None)
            if step.path in kept:
                kept[step.to] = kept.pop(step.path)
    for path, size in kept.items():
        if (there := folder / path.lstrip("/")).is_file():
            os.truncate(there, min(size, there.stat().st_size))
