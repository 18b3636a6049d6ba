"""Trials fused into one model compute what they compute one by one."""

from __future__ import annotations

import json
from pathlib import Path

import fused
import pytest
import torch


@pytest.fixture(scope="module")
def trials() -> fused.Trials:
    return fused.Trials(2, width=1, batch_size=4, device=torch.device("cpu"), dtype=torch.float64)


def test_gradients_at_equal_images_are_those_of_separate_trials(trials: fused.Trials) -> None:
    assert fused.apart(trials) < 1e-6


def test_a_trial_feels_its_own_radius_and_weight(trials: fused.Trials) -> None:
    """Whole steps: attack and gradients of both sides, where PGD-10 in float64 does not part ways."""
    together = trials.fused()
    for k, separate in enumerate(trials.separate()):
        for name, gradient in separate.items():
            torch.testing.assert_close(together[name][k], gradient, rtol=1e-6, atol=1e-9)
    weight = trials.weight
    trials.weight = weight.flip(0)
    swapped = trials.fused()
    trials.weight = weight
    assert not torch.allclose(swapped["model.conv1.weight"], together["model.conv1.weight"])


def test_both_sides_are_raced_and_written(tmp_path: Path) -> None:
    output = tmp_path / "fused.md"
    fused.main(["--widths=1", "--trials=2", "--batch-size=4", "--rounds=2", f"--output={output}"])
    (row,) = json.loads(output.with_suffix(".json").read_text())["rows"]
    assert row["gradients_apart"] < 1e-6
    assert {len(seconds) for seconds in row["seconds"].values()} == {2}
    assert "| 1 | 2 | " in output.read_text()
