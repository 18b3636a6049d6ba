"""What the report of real searches makes of a study's tables."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from real import STRATEGIES, experiment, reached, read, report, when

from arat_ray.experiment.checks import problems
from arat_ray.frontier.dominance import hypervolume
from arat_ray.results.schema import Metadata
from arat_ray.study.tables import StudyTables
from tests.frontier.tables import judged

GOALS = ("clean_accuracy", "robust_accuracy")
METADATA = Metadata(study="small", goals=GOALS, reference_point=(0.0, 0.0), revision="4f2a")


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Trial 0 ends whole after 3 epochs of all, 1 is stopped at the 5th, 2 ends whole at the 6th, 3 beyond."""
    writer = StudyTables(tmp_path / "small", params={}, metadata=METADATA, decisions=True)
    order = (0, 1, 0, 2, 1, 2, 3, 3)
    for i, number in enumerate(order):
        epoch = order[: i + 1].count(number)
        writer.epoch({"trial_id": f"small-{number:05d}", "attempt": 1, "epoch": epoch})
    goals = {0: (0.9, 0.5), 1: (0.5, 0.1), 2: (0.8, 0.6), 3: (0.95, 0.9)}
    for number, values in goals.items():
        status = "pruned" if number == 1 else "complete"
        row: dict[str, Any] = {"trial_id": f"small-{number:05d}", "attempt": 1, "number": number, "status": status}
        writer.trial(row | {"epochs_done": 2, "is_full_fidelity": True, **dict(zip(GOALS, values, strict=True))})
    writer.flush()
    for number, verdicts in {0: "rrrrcccccx", 2: "rrrrrrccxx", 3: "rrrrrrrrrx"}.items():
        judged(tmp_path / "small", f"small-{number:05d}", verdicts, attack="pgd-20", checkpoint_sha256=f"{number:012d}")
    return tmp_path / "small"


def test_what_a_study_had_after_so_many_epochs_on_validation_and_on_test(study: Path) -> None:
    run = read(study, 6)
    assert run.epochs.tolist() == [3, 6]
    assert run.trials == 3
    assert reached(run, 2) == (0.0, 0.0)
    assert reached(run, 5) == pytest.approx((0.45, 0.9 * 0.4))
    both = hypervolume([[0.9, 0.5], [0.8, 0.6]], [0, 0]), hypervolume([[0.9, 0.4], [0.8, 0.6]], [0, 0])
    assert reached(run, 6) == pytest.approx(both)
    assert (when(run, 0.45, 6), when(run, 0.5, 6), when(run, 0.9, 6)) == (0.5, 1.0, math.inf)
    lines = list(report({"random": [run, run]}, 6))
    assert f"| random | 2 | 0.0000 [0.0000, 0.0000] | 0.0000 [0.0000, 0.0000] | {both[0]:.4f}" in lines[8]
    assert lines[-1] == "- random: 1.00, 1.00"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_strategy_is_a_search_that_can_be_run_and_begins_with_the_same_point(strategy: str) -> None:
    spec = experiment(strategy, 3)
    assert problems(spec) == []
    assert spec.sampler is not None
    assert spec.sampler.seed == 3
    assert len(spec.first) == 1
