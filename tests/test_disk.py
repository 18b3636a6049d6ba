"""What will never be written is told from what cannot be written now, wherever something waits for a disk."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from arat_ray import disk
from arat_ray.cluster.stopping import Stop
from arat_ray.disk import Disk
from arat_ray.experiment.spec import Experiment
from arat_ray.study import folder as study_folder
from arat_ray.study.budget import Watch
from arat_ray.training.checkpoint_writer import NeverSavedError
from arat_ray.training.context import Context
from arat_ray.training.loop import fit
from tests.places import KINDS
from tests.study.conftest import EXPERIMENT
from tests.study.driving import opened
from tests.training.runs import make as make_train
from tests.training.runs import validate

Make = Callable[..., Experiment]


@pytest.fixture
def make() -> Make:
    return lambda **fields: Experiment.model_validate(EXPERIMENT | fields)


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__.strip("_"))
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """Where nothing can be written, and what is said of it."""
    yield from request.param(tmp_path)


def test_a_run_ends_before_its_first_step_where_no_checkpoint_can_be_written(place: tuple[Path, str]) -> None:
    folder, words = place
    alive: list[str | None] = []
    with pytest.raises(NeverSavedError) as refused:
        fit(make_train(), validate(1200), Context(folder, lambda row, replayed: False, alive=alive.append))
    assert words in str(refused.value)
    assert folder.name in str(refused.value)
    assert not alive


def test_a_study_is_refused_in_one_line_where_it_cannot_be_written(place: tuple[Path, str], make: Make) -> None:
    folder, words = place
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        study_folder.claim(folder, make(), folder, kind="tune", resume=False).__enter__()
    assert words in str(refused.value)
    assert str(refused.value).startswith(f"--results {folder.parent}: ")
    assert "\n" not in str(refused.value)


def test_a_study_is_refused_where_only_its_trials_cannot_be_written(make: Make, tmp_path: Path) -> None:
    source, study = tmp_path / "source.yaml", tmp_path / "small"
    source.write_text("name: small\n")
    with study_folder.claim(study, make(), source, kind="tune", resume=False):
        assert sorted(path.name for path in study.iterdir()) == [
            ".lock",
            "epochs",
            "journal",
            "study.json",
            "study.yaml",
            "trials",
        ]
    (study / "checkpoints").touch()
    with pytest.raises(
        ValueError, match="checkpoints/small-99999: Not a directory; a file is where a folder should be"
    ):
        study_folder.claim(study, make(), source, kind="tune", resume=True).__enter__()


def test_rows_that_can_never_be_written_end_a_study_with_the_reason(make: Make, tmp_path: Path) -> None:
    told: list[str] = []
    record = opened(tmp_path, make(), warn=told.append, retry_s=(3600, 3600))
    record.take({"asked": {"number": 0, "sampled": {}}})
    record.take({"started": {"trial_id": "small-00000", "attempt": 1, "number": 0, "status": "running"}})
    assert record.flush()
    stop = Stop(Watch(make(), record.state), record.disk)
    assert stop.reason is None
    (tmp_path / "epochs").rename(tmp_path / "away")
    (tmp_path / "epochs").touch()
    record.take({"epoch": {"trial_id": "small-00000", "attempt": 1, "epoch": 1}})
    assert not record.flush()
    assert record.segments.pending == 0, "the record has it"
    assert stop.reason == (
        f"results to {tmp_path} can never be written: {tmp_path}/epochs/.part-00000.parquet.tmp: Not a directory; "
        "a file is where a folder should be; move it away"
    )
    assert len(told) == 1
    (tmp_path / "epochs").unlink()
    (tmp_path / "away").rename(tmp_path / "epochs")
    assert record.flush(final=True)
    assert stop.reason is None


def test_a_record_that_can_never_be_written_says_so(make: Make, tmp_path: Path) -> None:
    record = opened(tmp_path, make(), warn=lambda text: None)
    (tmp_path / "journal" / "record-00000.jsonl").unlink()
    (tmp_path / "journal" / "record-00000.jsonl").mkdir()
    record.take({"asked": {"number": 0, "sampled": {}}})
    assert not record.save()
    assert record.disk.broken
    assert "Is a directory; a folder is where a file should be" in record.disk.broken


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ENOENT, errno.EAGAIN])
def test_what_may_pass_is_waited_for(number: int) -> None:
    told: list[str] = []
    place = Disk("results", warn=told.append, retry_s=(0.0, 0.0))
    for _ in range(3):
        place.fails(OSError(number, os.strerror(number), "/results/x"), kept="rows are")
    assert place.failing
    assert place.broken is None
    assert place.is_due
    place.works(waited="3 rows")
    assert told == [
        f"cannot write results ([Errno {number}] {os.strerror(number)}: '/results/x'); rows are kept in memory",
        "results can be written again: 3 rows had waited",
    ]


def test_a_fix_is_named_for_all_that_lasts() -> None:
    for number in disk.FIXES:
        error = OSError(number, os.strerror(number), "/results/x")
        assert disk.is_lasting(error)
        assert disk.reason(error) == f"/results/x: {os.strerror(number)}; {disk.FIXES[number]}"
