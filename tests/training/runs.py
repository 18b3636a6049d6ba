"""Tiny runs of the real loop: a few digits, started, interrupted, resumed, compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from arat_ray.training import checkpoint
from arat_ray.training.context import Context
from arat_ray.training.data import splits
from arat_ray.training.loop import fit
from arat_ray.training.run import Train, Validate

PGD = {"name": "pgd", "norm": "linf", "epsilon": 0.2, "step_size": 0.1, "steps": 1}
TIMES = {"epoch_s", "attack_s", "images_per_s", "diagnostics_s", "replayed"}

Row = Mapping[str, Any]


def few_digits(monkeypatch: pytest.MonkeyPatch, images: int) -> None:
    """The data set is its first images from here on."""
    read = splits.read

    def first(dataset: Any, split: Any) -> splits.ImageSet:
        whole = read(dataset, split)
        return whole._replace(images=whole.images[:images], labels=whole.labels[:images])

    monkeypatch.setattr(splits, "read", first)


def make(**fields: Any) -> Train:
    defaults: dict[str, Any] = {
        "dataset": {"name": "digits", "crop_padding": 1, "flip": True},
        "model": {"name": "tiny", "width": 2},
        "method": {"name": "pgd_at"},
        "attack": PGD,
        "epochs": 2,
        "batch_size": 20,
        "seed": 5,
    }
    return Train.model_validate(defaults | fields)


def validate(images: int, **fields: Any) -> Validate:
    return Validate.model_validate({"every": 1, "images": images, "attack": PGD} | fields)


def run(spec: Train, measured: Validate, folder: Path, *, stop_after: int | None = None) -> list[Row]:
    rows: list[Row] = []

    def report(row: Row, replayed: bool) -> bool:
        rows.append({**row, "replayed": replayed})
        return row["epoch"] == stop_after and not replayed

    fit(spec, measured, Context(folder, report))
    return rows


def run_in_parts(spec: Train, measured: Validate, folder: Path, *stops: int) -> list[Row]:
    """Interrupted after each of the epochs `stops`, and resumed."""
    for stop_after in stops:
        run(spec, measured, folder, stop_after=stop_after)
    return run(spec, measured, folder)


def last(folder: Path) -> checkpoint.Checkpoint:
    return checkpoint.load(folder / checkpoint.LAST)


def best(folder: Path) -> checkpoint.Checkpoint:
    return checkpoint.load(folder / checkpoint.BEST)


def assert_same_bits(left: Any, right: Any) -> None:
    assert type(left) is type(right)
    if isinstance(left, torch.Tensor):
        assert torch.equal(left, right)
    elif isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            assert_same_bits(left[key], right[key])
    elif isinstance(left, list):
        for a, b in zip(left, right, strict=True):
            assert_same_bits(a, b)
    else:
        assert left == right


def assert_same_rows(left: Sequence[Row], right: Sequence[Row]) -> None:
    """But for the clock."""
    for a, b in zip(left, right, strict=True):
        assert_same_bits({k: v for k, v in a.items() if k not in TIMES}, {k: v for k, v in b.items() if k not in TIMES})
