"""One run in this process, with the folder and the tables of a study of one trial."""

from __future__ import annotations

import dataclasses
import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from arat_ray.experiment.spec import Experiment
from arat_ray.results import reader
from arat_ray.results.rows import EpochRow
from arat_ray.study import single
from arat_ray.training.checkpoint import NotACheckpointError, NotNowError
from arat_ray.training.context import Context
from arat_ray.training.loop import fit
from arat_ray.training.run import Train, Validate
from tests.study.conftest import EXPERIMENT

Make = Callable[..., Experiment]


def run(experiment: Experiment, folder: Path, *, resume: bool = False) -> str:
    source = folder.parent / "small.yaml"
    source.write_text("name: small")
    shown = io.StringIO()
    single.run(experiment, source, folder, resume=resume, console=Console(file=shown, width=200))
    return shown.getvalue()


def tables(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    return reader.read(folder, "trials").to_pylist(), reader.read(folder, "epochs").to_pylist()


def test_a_run_shows_its_epochs_and_lands_in_the_tables(make: Make, tmp_path: Path) -> None:
    shown = run(make().without_search(), tmp_path / "small")
    assert "epoch 2/2: loss adversarial " in shown
    assert "validation: clean " in shown
    (trial,), epochs = tables(tmp_path / "small")
    assert (trial["status"], trial["epochs_done"], trial["is_full_fidelity"]) == ("complete", 2, True)
    assert [row["epoch"] for row in epochs] == [1, 2]
    assert trial["clean_accuracy"] == epochs[-1]["validation_clean_accuracy"]
    assert (tmp_path / "small" / trial["checkpoint"]).is_file()


def test_a_complete_run_is_left_as_it_is(make: Make, tmp_path: Path) -> None:
    run(make().without_search(), tmp_path / "small")
    before = tables(tmp_path / "small")
    assert "is complete already" in run(make().without_search(), tmp_path / "small", resume=True)
    assert tables(tmp_path / "small") == before


def test_a_run_whose_process_died_between_its_record_and_its_tables_is_complete(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(train: Train, validate: Validate, context: Context) -> None:
        def report(row: EpochRow, replayed: bool) -> bool:
            context.report(row, replayed)
            raise KeyboardInterrupt

        fit(train, validate, dataclasses.replace(context, report=report))

    folder = tmp_path / "small"
    with monkeypatch.context() as patched:
        patched.setattr(single, "fit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(make().without_search(), folder)
    for table in ("trials", "epochs"):
        shutil.copytree(folder / table, tmp_path / table)
    run(make().without_search(), folder, resume=True)
    whole = tables(folder)
    for table in ("trials", "epochs"):
        shutil.rmtree(folder / table)
        shutil.move(tmp_path / table, folder)
    assert tables(folder) != whole
    assert "is complete already" in run(make().without_search(), folder, resume=True)
    assert tables(folder) == whole


def test_a_run_that_diverges_is_recorded_and_raised(make: Make, tmp_path: Path) -> None:
    experiment = make()
    train = experiment.train | {"optimizer": {"name": "sgd", "learning_rate": 1e20}}
    with pytest.raises(ValueError, match="lower optimizer"):
        run(make(train=train).without_search(), tmp_path / "small")
    (trial,), _ = tables(tmp_path / "small")
    assert trial["status"] == "failed"
    assert "lower optimizer.learning_rate" in trial["error"]


@pytest.mark.parametrize("choose", ["last", "best"])
def test_the_checkpoint_named_at_the_end_is_the_one_that_the_tables_report(
    choose: str, make: Make, tmp_path: Path
) -> None:
    experiment = make(validate={**EXPERIMENT["validate"], "choose": choose}).without_search()
    folder = tmp_path / "small"
    source = tmp_path / "small.yaml"
    source.write_text("name: small")
    console = Console(file=io.StringIO(), width=200)
    for resume in (False, True):
        named = single.run(experiment, source, folder, resume=resume, console=console)
        (trial,), _ = tables(folder)
        assert named == folder / trial["checkpoint"]
        assert named.name == f"{choose}.pt"


def failing(error: Exception) -> Callable[[Train, Validate, Context], None]:
    def fail(train: Train, validate: Validate, context: Context) -> None:
        raise error

    return fail


@pytest.mark.parametrize("error", [NotNowError("last.pt: Permission denied"), NotACheckpointError(Path("x"), "cut")])
def test_a_run_whose_checkpoint_cannot_be_read_goes_on_when_it_can(
    error: Exception, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment, folder = make().without_search(), tmp_path / "small"
    with monkeypatch.context() as patch:
        patch.setattr(single, "fit", failing(error))
        with pytest.raises(type(error)):
            run(experiment, folder)
    (trial,), _ = tables(folder)
    assert trial["status"] == "stopped"
    run(experiment, folder, resume=True)
    (trial,), epochs = tables(folder)
    assert (trial["status"], [row["epoch"] for row in epochs]) == ("complete", [1, 2])


def test_a_run_without_memory_says_so_in_a_line_and_may_go_on(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment, folder = make().without_search(), tmp_path / "small"
    with monkeypatch.context() as patch:
        patch.setattr(single, "fit", failing(torch.OutOfMemoryError("CUDA out of memory. Tried 2 GiB.\nmore")))
        with pytest.raises(ValueError, match=r"^CUDA out of memory\. Tried 2 GiB\. \(batch_size 64\); go on with"):
            run(experiment, folder)
    assert tables(folder)[0][0]["status"] == "stopped"
    run(experiment, folder, resume=True)
    assert tables(folder)[0][0]["status"] == "complete"


def test_a_run_that_has_failed_says_why(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment, folder = make().without_search(), tmp_path / "small"
    monkeypatch.setattr(single, "fit", failing(ValueError("the loss became nan")))
    with pytest.raises(ValueError, match=r"^the loss became nan$"):
        run(experiment, folder)
    why = "this run has failed: the loss became nan; give another `name:`, or remove the folder"
    with pytest.raises(ValueError, match=why):
        run(experiment, folder, resume=True)
