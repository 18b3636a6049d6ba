"""What is reported of training with few attack steps: that only the attack differs, correlations, and costs."""

from __future__ import annotations

from pathlib import Path

import cheap_attacks
import numpy as np
import pytest
from cheap_attacks import AGAIN, FULL, SPACE, at_cost, curve, kinds, report, runs, told
from scipy.stats import spearmanr

from arat_ray.experiment.config import load
from arat_ray.training.attacks import Pgd


def test_the_same_knobs_are_trained_with_each_attack() -> None:
    first, second = runs(load(SPACE), 2)
    assert first.attack != second.attack
    given = kinds(first, (2, 1))
    assert list(given) == [FULL, AGAIN, "2 steps", "1 step"]
    assert given[FULL] == first
    assert given[AGAIN].model_copy(update={"seed": first.seed}) == first
    for name, steps in (("2 steps", 2), ("1 step", 1)):
        attack = given[name].attack
        assert isinstance(attack, Pgd)
        assert (attack.epsilon, attack.steps) == (first.attack.epsilon if first.attack else None, steps)
        assert attack.step_size * steps == pytest.approx(1.25 * attack.epsilon)
        assert given[name].model_copy(update={"attack": first.attack}) == first


def test_a_correlation_is_that_of_ranks_and_between_two_epochs_in_proportion_to_the_cost() -> None:
    draw = np.random.default_rng(0)
    curves, end = draw.random((12, 3, 2)), draw.random((12, 2))
    found = told(curves, end)
    for epoch in range(3):
        expected = [spearmanr(curves[:, epoch, goal], end[:, goal]).statistic for goal in range(2)]
        expected.append(spearmanr(curves[:, epoch].prod(axis=1), end.prod(axis=1)).statistic)
        assert found[epoch] == pytest.approx(expected)
    assert at_cost(np.array([0.2, 0.6, 1.0]), found, 0.4) == pytest.approx((found[0] + found[1]) / 2)


def test_the_report_sets_a_cheap_attack_beside_the_full_one_at_its_cost_and_counts_who_collapsed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cheap_attacks, "RESAMPLED", 50)
    draw = np.random.default_rng(1)
    end = draw.uniform(0.2, 0.9, (30, 2))
    full = np.stack([end - np.abs(draw.normal(0, spread, end.shape)) for spread in (0.5, 0.2, 0.0)], axis=1)
    cheap = np.stack([end + draw.normal(0, 0.05, end.shape) for _ in range(3)], axis=1)
    cheap[:4, -1, 1] = 0.0
    seconds = {FULL: np.full((30, 3), 2.0), "1 step": np.full((30, 3), 0.5)}
    lines = list(report({FULL: full, "1 step": cheap}, seconds, "small"))
    rows = {tuple(line.split(" | ")[:2]): line.split(" | ")[2:] for line in lines[4:]}
    assert rows["| full", "3"][:4] == ["1.00", "1.000", "1.000", "1.000"]
    assert rows["| 1 step", "2"][0] == "0.17"
    told_by_full, more = rows["| 1 step", "2"][4].split(": ")
    assert float(told_by_full) == pytest.approx(told(full, end)[0, 2], abs=6e-4)
    assert float(more.split(" ")[0]) == pytest.approx(told(cheap, end)[1, 2] - told(full, end)[0, 2], abs=6e-4)
    assert float(more.split(" ")[0]) > 2 * float(more.split(" ")[-1]) > 0
    assert (rows["| 1 step", "3"][5], rows["| full", "3"][5]) == ("4 |", "0 |")


def test_a_curve_is_measured_and_kept(tmp_path: Path) -> None:
    experiment = load(SPACE)
    (run,) = runs(experiment, 1)
    run = run.model_copy(update={"epochs": 2})
    found = curve(run, experiment, tmp_path / "run")
    assert np.array(found).shape == (2, 3)
    assert all(seconds > 0 and 0 < robust <= clean <= 1 for seconds, clean, robust in found)
    (tmp_path / "run" / "last.pt").unlink()
    assert curve(run, experiment, tmp_path / "run") == found
