"""A trainer taken step by step, without the loop: the same rows, weights and files."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from arat_ray.training import checkpoint
from arat_ray.training.checkpoint_writer import CheckpointWriter, NeverSavedError
from arat_ray.training.context import Context
from arat_ray.training.trainer import Trainer
from tests.training.runs import assert_same_bits, assert_same_rows, best, few_digits, last, make, run, validate

SPEC, MEASURED = make(), validate(10)


@pytest.fixture(autouse=True)
def _thirty_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    few_digits(monkeypatch, 30)


def test_epochs_taken_by_hand_are_those_of_the_loop(tmp_path: Path) -> None:
    rows = run(SPEC, MEASURED, tmp_path / "loop")
    for epoch in (1, 2):  # each by a trainer of its own, from the last checkpoint
        trainer = Trainer(SPEC, MEASURED, Context(tmp_path / "hand", lambda row, replayed: False))
        row = trainer.epoch(epoch)
        row |= trainer.measure(epoch)
        trainer.save(epoch)
    assert_same_rows(trainer.history, [{k: v for k, v in row.items() if k != "replayed"} for row in rows])
    assert_same_bits(last(tmp_path / "hand").method, last(tmp_path / "loop").method)


def test_an_epoch_reads_from_top_to_bottom() -> None:
    assert len(inspect.getsource(Trainer.epoch).splitlines()) < 40


def test_a_writer_keeps_the_best_state_until_the_folder_is_back(tmp_path: Path) -> None:
    run(SPEC, MEASURED, tmp_path / "run")
    state, folder = last(tmp_path / "run"), tmp_path / "away"
    folder.symlink_to(tmp_path / "unmounted" / "share")
    calls: list[str | None] = []
    writer = CheckpointWriter(folder, alive=calls.append)
    with pytest.raises(NeverSavedError, match=r"can never be written: .*move it away"):
        writer.save(state, is_best=True, is_final=False)
    folder.unlink()
    writer.save(state, is_best=False, is_final=True)
    assert (best(folder).epoch, best(folder).optimizer, last(folder).epoch) == (2, {}, 2)
    assert writer.trouble is None
    assert calls == []
    assert sorted(path.name for path in folder.iterdir()) == [checkpoint.BEST, checkpoint.LAST]
