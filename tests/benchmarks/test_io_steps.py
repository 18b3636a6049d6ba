"""A study whose disk fails at a step is whole when it was resumed, and the harness sees where one is not."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from breaking import contents
from breaking.shim import FAULTS, Step, lose_power

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "io_steps.py"


def harness(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--trials", "2", "--epochs", "2", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler: apt install gcc libc6-dev")
def test_a_study_that_broke_at_a_step_is_whole_when_it_was_resumed() -> None:
    done = harness("--every", "29", "--rotate")
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 were not as they should be." in done.stdout


def test_each_fault_has_its_steps() -> None:
    reading, writing = Step(1, "read", False, 3, "/a"), Step(2, "write", True, 3, "/a")
    assert [fault.name for fault in FAULTS if reading.suffers(fault)] == [
        "fails once (EIO)",
        "fails for a while (EIO)",
    ]
    assert all(writing.suffers(fault) for fault in FAULTS)


def test_what_was_not_flushed_is_lost_with_the_power(tmp_path: Path) -> None:
    for name in ("log", "whole", "part"):
        (tmp_path / name).write_bytes(b"123456")
    steps = [
        Step(1, "write", True, 0, "/log"),
        Step(2, "fsync", True, 2, "/log"),
        Step(3, "write", True, 2, "/log"),
        Step(4, "write", True, 4, "/log"),
        Step(5, "write", True, 0, "/.part.tmp"),
        Step(6, "write", True, 0, "/whole"),
        Step(7, "fsync", True, 6, "/whole"),
        Step(8, "rename", True, 6, "/.part.tmp", "/part"),
    ]
    lose_power(tmp_path, steps)
    assert [(tmp_path / name).read_bytes() for name in ("log", "whole", "part")] == [b"12", b"123456", b""]


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({}, "epochs: ('a', 1) is lost"),
        ({("a", 1): {"loss": 0.5}, ("b", 1): {"loss": 1.0}}, "epochs: ('b', 1) came out of nowhere"),
        ({("a", 1): {"loss": 0.25}}, "epochs: ('a', 1) changed: loss from 0.5 to 0.25"),
    ],
)
def test_what_differs_is_named(held: dict[tuple[str, int], dict[str, float]], said: str) -> None:
    assert list(contents.differences({"epochs": dict(held)}, {"epochs": {("a", 1): {"loss": 0.5}}})) == [said]
