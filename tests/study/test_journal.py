"""The journal: a whole beginning of what happened, on a full disk, after a kill, beside another writer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend

from arat_ray.experiment.spec import Experiment
from arat_ray.study.journal import Journal
from arat_ray.study.trials import JOURNAL, StudyTrials
from tests.disks import fill, small_disk

Make = Callable[..., Experiment]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB."""
    yield from small_disk(tmp_path / "disk", mib=1)


def on_disk(folder: Path) -> list[str]:
    """How the trials ended, as Optuna's own reader finds it in the file."""
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder / JOURNAL)))
    return [trial.state.name for trial in optuna.load_study(study_name="small", storage=storage).trials]


def test_a_full_disk_does_not_stop_the_trials_and_nothing_of_them_is_lost(make: Make, disk: Path) -> None:
    told: list[str] = []
    study_trials = StudyTrials(disk, make(), warn=told.append)
    study_trials.complete(study_trials.ask().number, [0.9, 0.4])
    fill(disk)
    for number in range(1, 20):  # more than what is left of the file's last block
        assert study_trials.ask().number == number
        study_trials.complete(number, [0.5, 0.5])
    assert study_trials.ended() == set(range(20))
    assert study_trials.journal.pending
    assert not study_trials.journal.flush(final=True)
    assert len(told) == 1
    assert "No space left on device" in told[0]
    assert len(on_disk(disk)) < 20  # a whole beginning: it can be read
    (disk / "ballast").unlink()
    assert study_trials.journal.flush(final=True)
    assert "entries had waited" in told[1]
    assert on_disk(disk) == ["COMPLETE"] * 20
    assert StudyTrials(disk, make()).ended() == set(range(20))


def test_a_process_killed_while_the_disk_was_full_leaves_a_study_that_goes_on(make: Make, disk: Path) -> None:
    died = StudyTrials(disk, make(), warn=lambda text: None)
    died.complete(died.ask().number, [0.9, 0.4])
    running = died.ask()
    fill(disk)
    for _ in range(20):
        died.ask()
    del died
    (disk / "ballast").unlink()
    resumed = StudyTrials(disk, make())
    assert resumed.ended() == {0}
    assert resumed.ask() == running


def test_entries_wait_while_rows_are_not_on_disk(make: Make, tmp_path: Path) -> None:
    rows_are_there = True
    study_trials = StudyTrials(tmp_path, make(), may_write=lambda: rows_are_there)
    number = study_trials.ask().number
    rows_are_there = False
    study_trials.complete(number, [0.9, 0.4])
    assert study_trials.ended() == {0}
    assert on_disk(tmp_path) == ["RUNNING"]
    assert not study_trials.journal.flush(final=True)
    rows_are_there = True
    assert study_trials.journal.flush()
    assert on_disk(tmp_path) == ["COMPLETE"]


def test_a_line_that_a_killed_process_wrote_half_is_cut_off(make: Make, tmp_path: Path) -> None:
    first = StudyTrials(tmp_path, make())
    first.complete(first.ask().number, [0.9, 0.4])
    with (tmp_path / JOURNAL).open("ab") as file:
        file.write(b'{"op_code":4,"worker_')
    resumed = StudyTrials(tmp_path, make())
    resumed.complete(resumed.ask().number, [0.5, 0.5])
    assert on_disk(tmp_path) == ["COMPLETE"] * 2


def test_what_another_process_appends_is_taken_in(make: Make, tmp_path: Path) -> None:
    study_trials = StudyTrials(tmp_path, make())
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(tmp_path / JOURNAL)))
    optuna.load_study(study_name="small", storage=storage).set_user_attr("note", "promising")  # as optuna-dashboard
    study_trials.complete(study_trials.ask().number, [0.9, 0.4])
    assert study_trials.study.user_attrs["note"] == "promising"
    assert on_disk(tmp_path) == ["COMPLETE"]


def test_writing_is_tried_again_after_a_while_and_not_at_every_entry(disk: Path) -> None:
    told: list[str] = []
    journal = Journal(disk / "log", warn=told.append, retry_s=(3600, 3600))
    fill(disk)
    journal.append_logs([{"text": "x" * 5000}])
    (disk / "ballast").unlink()
    journal.append_logs([{"text": "y"}])
    assert journal.pending == 2
    assert journal.flush(final=True)
    assert (disk / "log").read_bytes().count(b"\n") == 2
