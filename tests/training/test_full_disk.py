"""A checkpoint that cannot be written loses nothing: not the old one, not the run. The disk is a real one, full."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from arat_ray.digests import sha256_of
from arat_ray.training import checkpoint, checkpoint_writer
from arat_ray.training.context import Context
from arat_ray.training.loop import fit
from tests.disks import fill, small_disk
from tests.training.runs import Row, assert_same_bits, assert_same_rows, best, last, make, run, validate

SPEC, MEASURED = make(epochs=4), validate(1200)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB."""
    yield from small_disk(tmp_path / "disk", mib=1)


def test_the_old_checkpoint_stays_and_no_half_file_does(disk: Path) -> None:
    run(make(epochs=1), MEASURED, disk)
    state = last(disk)
    before = sha256_of(disk / checkpoint.LAST)
    fill(disk)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(state, disk / checkpoint.LAST)
    assert sha256_of(disk / checkpoint.LAST) == before
    assert sorted(path.name for path in disk.iterdir()) == ["ballast", "best.pt", "last.pt"]


def test_half_a_file_that_a_killed_process_left_makes_room(disk: Path) -> None:
    run(make(epochs=1), MEASURED, disk)
    state = last(disk)
    fill(disk, name=".last.pt.4321")
    checkpoint.save(state, disk / checkpoint.LAST)
    assert sorted(path.name for path in disk.iterdir()) == ["best.pt", "last.pt"]


def test_a_run_trains_on_while_the_disk_is_full_and_saves_when_it_is_not(disk: Path, tmp_path: Path) -> None:
    troubles: list[str | None] = []
    rows: list[Row] = []

    def report(row: Row, replayed: bool) -> bool:
        rows.append(row)
        if row["epoch"] == 1:
            fill(disk)
        if row["epoch"] == 3:
            assert last(disk).epoch == 1
            (disk / "ballast").unlink()
        return False

    fit(SPEC, MEASURED, Context(disk, report, alive=troubles.append))
    undisturbed = run(SPEC, MEASURED, tmp_path / "undisturbed")
    assert_same_rows(rows, undisturbed)
    assert_same_bits(last(disk).method, last(tmp_path / "undisturbed").method)
    assert_same_bits(best(disk).method, best(tmp_path / "undisturbed").method)
    assert best(disk).epoch == best(tmp_path / "undisturbed").epoch
    told = list(dict.fromkeys(trouble for trouble in troubles if trouble))
    assert told == ["its checkpoint cannot be written (No space left on device); training goes on without"]
    assert troubles[-1] is None


def test_a_run_that_has_ended_waits_for_the_disk(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_writer, "RETRY_S", (0.01, 0.02))
    heard: list[str] = []

    def alive(trouble: str | None) -> None:
        if trouble:
            heard.append(trouble)
            if len(heard) == 3:
                (disk / "ballast").unlink()

    def report(row: Row, replayed: bool) -> bool:
        if row["epoch"] == 1:
            fill(disk)
        return False

    fit(make(epochs=2), MEASURED, Context(disk, report, alive=alive))
    assert last(disk).epoch == 2
    assert heard[-1].endswith("the run has ended and waits for the disk")


def test_the_best_state_is_kept_until_it_can_be_written(disk: Path) -> None:
    """Its copy in memory does not change with the training that goes on."""
    run(make(epochs=1), MEASURED, disk)
    state = last(disk)
    kept = checkpoint.detached(state)
    for tensor in state.method.values():
        tensor.zero_()
    assert any(torch.any(tensor != 0) for tensor in kept.method.values())
    assert kept.history == state.history
    assert kept.history is not state.history
