from __future__ import annotations

import io
import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest
from rich.console import Console

from arat_ray.frontier.pareto import load_front
from arat_ray.report import printing
from tests.frontier.tables import evaluated
from tests.frontier.test_evaluations import trial
from tests.frontier.test_pareto import write


def run(number: int, clean: float, robust: float, *, seed: int, beta: float = 6.0) -> dict[str, Any]:
    config = json.dumps({"seed": seed, "method": {"name": "trades", "beta": beta}})
    return trial(number, clean, robust, seed=seed, config=config)


A, B = ((0.80, 0.50), (0.82, 0.49), (0.84, 0.54)), ((0.9, 0.30), (0.91, 0.28))


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Two configurations, of three and two seeds, and one that both beat, of one."""
    rows = [run(seed, *goals, seed=seed) for seed, goals in enumerate(A)]
    rows += [run(3 + seed, *goals, seed=seed, beta=1.0) for seed, goals in enumerate(B)]
    return write(tmp_path / "s", *rows, run(5, 0.7, 0.2, seed=0, beta=9.0))


def test_trials_that_differ_only_in_the_seed_are_one_point(study: Path) -> None:
    front = load_front([study], over_seeds=True)
    assert [(each["number"], each["seeds"]) for each in front.trials] == [(3, [0, 1]), (0, [0, 1, 2])]
    for found, runs in zip(front.trials, (B, A), strict=True):
        for goal, values in zip(front.goals, zip(*runs, strict=True), strict=True):
            assert found[goal] == pytest.approx(mean(values))
            assert found[f"{goal}_sd"] == pytest.approx(stdev(values))
            assert found[f"{goal}_low"] is None
    assert front.others.points.tolist() == [[0.7, 0.2]]
    clean, robust = ([mean(column) for column in zip(*runs, strict=True)] for runs in (A, B))
    assert front.hypervolume == pytest.approx(clean[0] * clean[1] + (robust[0] - clean[0]) * robust[1])


def test_runs_of_several_studies_belong_together(tmp_path: Path) -> None:
    studies = [write(tmp_path / f"s{seed}", run(0, *goals, seed=seed)) for seed, goals in enumerate(A)]
    (found,) = load_front(studies, over_seeds=True).trials
    assert found["seeds"] == [0, 1, 2]


def test_evaluations_are_averaged_over_seeds_as_well(study: Path) -> None:
    for number, (clean, robust) in enumerate(((800, 400), (820, 420))):
        evaluated(study, f"t{number}", clean=clean, robust=robust, checkpoint_sha256=f"{number} sha")
    from arat_ray.frontier.evaluations import Conditions

    asked = Conditions(attack="autoattack", split="test")
    (found,) = load_front([study], asked=asked, over_seeds=True).trials
    assert (found["clean_accuracy"], found["robust_accuracy"]) == (pytest.approx(0.81), pytest.approx(0.41))
    assert found["robust_accuracy_sd"] == pytest.approx(0.01 * 2**0.5)


def test_tables_show_mean_and_deviation(study: Path) -> None:
    front, out, table = load_front([study], over_seeds=True), io.StringIO(), io.StringIO()
    printing.print_table(front, Console(file=out, width=120))
    assert "82.0 +- 2.0" in out.getvalue()
    printing.write_csv(front, table)
    assert (
        table.getvalue()
        .splitlines()[0]
        .startswith("study,trial_id,number,clean_accuracy,clean_accuracy_sd,robust_accuracy,robust_accuracy_sd,images")
    )


def test_without_two_seeds_the_way_to_more_is_said(tmp_path: Path) -> None:
    study = write(tmp_path / "s", run(0, 0.8, 0.5, seed=0), run(1, 0.8, 0.5, seed=1, beta=1.0))
    with pytest.raises(ValueError, match="no two of the 2 trials differ only in the seed; arat-ray confirm"):
        load_front([study], over_seeds=True)
