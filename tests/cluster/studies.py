"""Small studies on real digits, run as users run them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from arat_ray.cli import main
from arat_ray.results.reading import Reading
from arat_ray.results.segments import folder_of
from arat_ray.study.record import event_of
from arat_ray.study.state import StudyState

PGD = {"name": "pgd", "norm": "linf", "epsilon": 0.2, "step_size": 0.1, "steps": 1}
EXPERIMENT: dict[str, Any] = {
    "name": "small",
    "train": {
        "dataset": {"name": "digits"},
        "model": {"name": "tiny", "width": 2},
        "method": {"name": "arat", "invariance_weight": 1, "layers": ["bn3"]},
        "attack": PGD,
        "epochs": 3,
        "batch_size": 64,
        "seed": 0,
    },
    "validate": {"every": 1, "images": 500, "attack": PGD},
    "search": {"method.invariance_weight": {"loguniform": [0.1, 10]}},
    "sampler": {"name": "tpe", "seed": 0},
    "budget": {"trials": 4},
    "resources": {"cpus_per_worker": 1, "concurrent_trials": 2},
}
COMMAND = (sys.executable, "-c", "from arat_ray.cli import main; main()")
WRITING_AT_ONCE = """
from arat_ray.study.record import StudyRecord
StudyRecord.__init__.__kwdefaults__["flush_s"] = 0.2  # of 2 s: what is waited for in a table is seen as it happens
from arat_ray.cli import main
main()
"""
"""The command for tests that act in the middle of a trial: it would have ended before its tables tell of it."""


def ray_processes() -> set[int]:
    """Process ids of raylets and their stores that this test process has started, and of their workers.

    A worker overwrites its environment with its title, so it is known by its parent, a raylet or a fork server; one
    that outlives that for a moment, as it does when its driver is killed, by its session. Those that have lost their
    raylet end by themselves; Ray's agents, which write to no study, within a minute, and they are not waited for.
    """
    name, session = b"ARAT_RAY_TESTS=", os.getsid(0)
    nodes, marked, others = set[int](), set[int](), set[int]()
    workers, in_session = dict[int, int](), set[int]()
    for proc in Path("/proc").glob("[0-9]*"):
        pid = int(proc.name)
        try:
            command = (proc / "cmdline").read_bytes()
            if command.startswith(b"ray::"):
                parent, _, of = (proc / "stat").read_text().rpartition(")")[2].split()[1:4]
                workers[pid] = int(parent)
                if int(of) == session and b"Agent" not in command:
                    in_session.add(pid)
                continue
            marks = [each for each in (proc / "environ").read_bytes().split(b"\0") if each.startswith(name)]
        except OSError:  # it has ended
            continue
        if marks == [name + str(os.getpid()).encode()]:
            (nodes if b"raylet/raylet" in command or b"gcs_server" in command else marked).add(pid)
        elif marks:
            others.add(pid)
    orphans = {pid for pid in in_session if workers[pid] not in others}
    return nodes | orphans | {pid for pid, parent in workers.items() if parent in nodes | marked}


def title(pid: int) -> bytes:
    """What a process is called; nothing where it has ended."""
    with suppress(OSError):
        return (Path("/proc") / str(pid) / "cmdline").read_bytes()
    return b""


def state_of(study: Path) -> StudyState:
    """What the record of a study adds up to."""
    state = StudyState(("clean_accuracy", "robust_accuracy"))
    for line in Reading(folder_of(study)):
        state.apply(event_of(line))
    return state


def wait_until(is_so: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.2)  # what is asked reads tables, and other tests want the cores


def without_ray(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A command that starts no Ray, in this process: a new one takes seconds to import what it needs."""
    done = CliRunner().invoke(main, arguments)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
    return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


def tune_without_ray(file: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """`tune` where it is refused, or has nothing to do."""
    return without_ray(*tune_words(file, *options))


def tune(file: Path, *options: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """`arat-ray tune FILE --results <beside it>/results OPTIONS`."""
    command = [*COMMAND, *tune_words(file, *options)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def tune_command(file: Path, *options: str) -> list[str]:
    """The same for a driver that is watched, and so writes its tables at once."""
    return [sys.executable, "-c", WRITING_AT_ONCE, *tune_words(file, *options)]


def tune_words(file: Path, *options: str) -> list[str]:
    return ["tune", str(file), "--results", str(file.parent / "results"), *options]
