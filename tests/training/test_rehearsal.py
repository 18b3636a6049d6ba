"""A rehearsal over two real processes: whose gradients agree, and with what."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from arat_ray.training.context import Context
from arat_ray.training.rehearsal import ROUNDING, Rehearsal, rehearse
from tests.training.runs import make, validate
from tests.training.two_workers import group, started

RUNS = {
    "plain": {},
    "synchronized": {"sync_batch_norm": True},
    "group": {"model": {"name": "tiny", "width": 4, "norm": "group"}},
    "standard": {"method": {"name": "standard"}, "attack": None, "sync_batch_norm": True},
    "arat": {"method": {"name": "arat", "invariance_weight": 1, "layers": ["bn3"]}, "sync_batch_norm": True},
}


def worker(rank: int, folder: Path) -> dict[str, Rehearsal]:
    with group(rank, folder):
        context = Context(folder / "nothing", lambda row, replayed: False, rank=rank, world_size=2)
        return {
            name: rehearse(make(**fields), validate(400), context, seconds=0.1)  # type: ignore[arg-type]
            for name, fields in RUNS.items()
        }


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Rehearsal]:
    folder = tmp_path_factory.mktemp("workers")
    other = started(worker, 1, folder)
    mine = worker(0, folder)
    other.join(60)
    assert not (folder / "nothing").exists()
    return mine


@pytest.mark.parametrize("run", ["synchronized", "group", "standard", "arat"])
def test_two_workers_have_the_gradient_of_one(run: str, two_workers: dict[str, Rehearsal]) -> None:
    measured = two_workers[run]
    assert measured.from_whole is not None
    assert measured.from_whole < ROUNDING
    assert measured.step_s > 0
    assert measured.batch_norm == (run != "group")


def test_plain_batch_norm_makes_two_workers_differ_from_one_and_not_from_their_mean(
    two_workers: dict[str, Rehearsal],
) -> None:
    measured = two_workers["plain"]
    assert measured.from_whole is not None
    assert measured.from_shares is not None
    assert measured.from_whole > 10 * ROUNDING
    assert measured.from_shares < ROUNDING


def test_one_worker_takes_steps_and_writes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "nothing"
    measured = rehearse(make(), validate(400), Context(folder, lambda row, replayed: False), seconds=0.1)
    assert json.loads(json.dumps(measured._asdict()))["from_whole"] is None
    assert 0 < measured.step_s < 5
    assert measured.steps >= 1
    assert not folder.exists()
