"""A run that is saved in the middle of an epoch goes on there, as if nothing had happened."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from arat_ray.training import checkpoint
from arat_ray.training.context import Context
from arat_ray.training.loop import fit
from arat_ray.training.mid_epoch import PreemptedError
from arat_ray.training.run import Train, Validate
from tests.training.runs import TIMES, Row, few_digits, make, run, validate
from tests.training.two_workers import both, group

ARAT = {"name": "arat", "invariance_weight": 1, "layers": ["bn3"]}


@pytest.fixture
def _a_hundred_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    few_digits(monkeypatch, 140)


def train(spec: Train, folder: Path, *, leave_before: int | None = None) -> list[Row]:
    """Run until the end, or until the step (from 0, counted from where this begins) before which it leaves."""
    rows: list[Row] = []
    steps = itertools.count()

    def report(row: Row, replayed: bool) -> bool:
        rows.append({**row, "replayed": replayed})
        return False

    fit(spec, validate(40), Context(folder, report, leaves=lambda: next(steps) == leave_before))
    return rows


def same(mine: Any, theirs: Any) -> bool:
    if isinstance(mine, torch.Tensor):
        return mine.dtype == theirs.dtype and torch.equal(mine, theirs)
    if isinstance(mine, dict):
        return mine.keys() == theirs.keys() and all(same(mine[key], theirs[key]) for key in mine)
    if isinstance(mine, list):
        return len(mine) == len(theirs) and all(map(same, mine, theirs))
    return bool(mine == theirs or (mine != mine and theirs != theirs))


@pytest.mark.usefixtures("_a_hundred_digits")
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"method": {"name": "standard"}, "schedule": {"name": "cosine"}},
        {"method": ARAT},
        {"method": ARAT | {"preset": "official"}},
        {"method": {"name": "arrest", "standard_epochs": 1}},
        {"averaging": {"name": "ema"}},
        {"weight_perturbation": {"gamma": 0.01, "warmup_epochs": 0}},
    ],
    ids=["pgd_at", "standard", "arat", "official", "arrest", "ema", "awp"],
)
@pytest.mark.parametrize("stops", [(2,), (0, 6, 3)], ids=["once", "thrice"])
def test_a_run_that_left_in_the_middle_of_an_epoch_equals_one_that_did_not(
    fields: dict[str, Any], stops: tuple[int, ...], tmp_path: Path
) -> None:
    spec = make(epochs=3, **fields)
    whole = train(spec, tmp_path / "whole")
    for stop in stops:
        with pytest.raises(PreemptedError, match="left in epoch"):
            train(spec, tmp_path / "parts", leave_before=stop)
    rows = train(spec, tmp_path / "parts")
    for name in ("method", "optimizer", "average"):
        one, other = (getattr(checkpoint.load(tmp_path / part / "last.pt"), name) for part in ("whole", "parts"))
        assert same(one, other), name
    assert [{k: v for k, v in row.items() if k not in TIMES} for row in rows] == [
        {k: v for k, v in row.items() if k not in TIMES} for row in whole
    ]


@pytest.mark.usefixtures("_a_hundred_digits")
def test_what_was_done_before_leaving_is_in_the_checkpoint_and_not_done_again(tmp_path: Path) -> None:
    spec = make(epochs=3)
    with pytest.raises(PreemptedError, match="left in epoch 2 before step 4 of 5"):
        train(spec, tmp_path, leave_before=8)
    state = checkpoint.load(tmp_path / "last.pt")
    assert (state.epoch, [row["epoch"] for row in state.history]) == (1, [1])
    assert state.partway is not None
    assert (state.partway["epoch"], state.partway["step"]) == (2, 3)
    with pytest.raises(PreemptedError, match="left in epoch 2 before step 5 of 5"):
        train(spec, tmp_path, leave_before=1)
    rows = train(spec, tmp_path)
    assert [(row["epoch"], row["replayed"]) for row in rows] == [(1, True), (2, False), (3, False)]
    assert rows[1]["epoch_s"] > state.partway["epoch_s"] > 0
    assert checkpoint.load(tmp_path / "last.pt").partway is None


LEFT = 7
"""The exit code of a worker that was told to leave."""


def worker(rank: int, folder: Path, spec: Train, measured: Validate) -> None:
    steps = itertools.count()
    context = Context(folder, lambda row, replayed: False, rank=rank, world_size=2, leaves=lambda: next(steps) == 7)
    with group(rank, folder):
        try:
            fit(spec, measured, context)
        except PreemptedError:
            sys.exit(LEFT)


def test_one_worker_goes_on_where_two_left_up_to_rounding(tmp_path: Path) -> None:
    gentle = {"name": "sgd", "learning_rate": 0.02}
    spec = make(method=ARAT, sync_batch_norm=True, optimizer=gentle, dataset={"name": "digits"}, batch_size=200)
    measured = validate(400)
    whole = run(spec, measured, tmp_path / "whole")
    folder = tmp_path / "parts"
    folder.mkdir()
    assert both(worker, folder, spec, measured) == [LEFT, LEFT]
    state = checkpoint.load(folder / "last.pt")
    assert state.partway is not None
    assert (state.epoch, state.partway["step"]) == (1, 2)
    rows = run(spec, measured, folder)
    assert [row["replayed"] for row in rows] == [True, False]
    for name in ("loss_adversarial", "loss_clean", "loss_invariance"):
        assert rows[1][name] == pytest.approx(whole[1][name], rel=1e-2), name
    for name in ("train_clean_accuracy", "train_robust_accuracy", "validation_clean_accuracy"):
        assert rows[1][name] == pytest.approx(whole[1][name], abs=0.01), name
