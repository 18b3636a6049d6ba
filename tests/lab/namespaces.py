"""Namespaces without names: they live as long as their processes, and those as long as the thread that started them."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import IO

DIES_ALONG = ("setpriv", "--pdeathsig", "KILL")
CLONE_NEWNET = 0x40000000


def start(*namespaces: str, log: Path, then: Sequence[str]) -> subprocess.Popen[str]:
    """Make namespaces and wait in them; `go` starts the command."""
    with log.open("w") as errors:
        process = subprocess.Popen(
            [*DIES_ALONG, *namespaces, "sh", "-c", 'echo there; read go && exec "$@" >&2', "sh", *then],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
    assert process.stdout is not None
    there = process.stdout.readline()
    process.stdout.close()
    assert there == "there\n", f"{' '.join(namespaces)}: {log.read_text()}"
    return process


def go(process: subprocess.Popen[str]) -> None:
    """Let the command of `start` begin."""
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.close()


def check(*command: str) -> None:
    """Run a command; AssertionError with its output where it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}"


def set_network(namespace: IO[str]) -> None:
    """Move this thread, and what it starts, into another network."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace.fileno(), CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
