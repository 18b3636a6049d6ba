"""A study whose disk is really full for a while, and one whose disk stays full."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from arat_ray.exit_codes import NOT_SAVED
from arat_ray.results import reader
from arat_ray.training import checkpoint
from tests.cluster.studies import EXPERIMENT, WRITING_AT_ONCE, wait_until
from tests.disks import fill, small_disk

pytestmark = pytest.mark.ray
Write = Callable[..., Path]
EPOCHS = 8


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MiB for the results."""
    yield from small_disk(tmp_path / "disk", mib=4)


def start(file: Path, disk: Path, shown: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", WRITING_AT_ONCE, "tune", str(file), "--results", str(disk), *options]
    return subprocess.Popen(command, stdout=shown.open("wb"), stderr=subprocess.STDOUT)


def epochs(disk: Path) -> int:
    study = disk / "small"
    return len(reader.read(study, "epochs", ["epoch"])) if reader.part_files(study / "epochs") else 0


def test_a_full_disk_holds_a_study_up_and_loses_nothing(write: Write, disk: Path, tmp_path: Path) -> None:
    resources = EXPERIMENT["resources"] | {"concurrent_trials": 1}
    # a trial must not have ended before the disk is full
    train = EXPERIMENT["train"] | {"attack": EXPERIMENT["train"]["attack"] | {"steps": 10}, "epochs": EPOCHS}
    file = write(train=train, resources=resources, budget={"trials": 2})
    shown = tmp_path / "shown"
    driver = start(file, disk, shown)
    wait_until(lambda: epochs(disk) >= 1, 120, "an epoch")
    fill(disk)
    wait_until(lambda: "waits for the disk" in shown.read_text(), 120, "the trial to wait for its checkpoint")
    time.sleep(3)  # nothing gives up
    assert driver.poll() is None
    (disk / "ballast").unlink()
    assert driver.wait(timeout=240) == 0, shown.read_text()
    # rows may have been on disk before it was full
    told = shown.read_text()
    assert ("cannot write results" in told) == bool(re.search("results to .* can be written again", told))
    assert "Traceback" not in shown.read_text()

    driver = start(file, disk, shown, "--trials", "3")
    wait_until(lambda: epochs(disk) > 2 * EPOCHS, 120, "another epoch")
    fill(disk)
    held_up = ("cannot write results", "waits for the disk")  # the rows or the checkpoint, whichever comes first
    wait_until(lambda: any(words in shown.read_text() for words in held_up), 120, "the study to tell")
    driver.terminate()
    assert driver.wait(timeout=120) == NOT_SAVED, shown.read_text()
    assert "could not be written" in shown.read_text()
    assert "Traceback" not in shown.read_text()
    (disk / "ballast").unlink()
    driver = start(file, disk, shown, "--trials", "3", "--resume")
    assert driver.wait(timeout=240) == 0, shown.read_text()

    trials = reader.read(disk / "small", "trials").to_pylist()
    assert [(row["number"], row["attempt"], row["status"]) for row in trials] == [(n, 1, "complete") for n in range(3)]
    for row in trials:
        assert checkpoint.load(disk / "small" / row["checkpoint"]).epoch == EPOCHS
    rows = reader.read(disk / "small", "epochs").to_pylist()
    assert sorted((row["trial_id"], row["epoch"]) for row in rows) == [
        (row["trial_id"], epoch) for row in trials for epoch in range(1, EPOCHS + 1)
    ]
