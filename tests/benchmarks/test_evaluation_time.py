"""What measuring costs: turns of attacks on one network, and how they are told."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import evaluation
import pytest

from arat_ray.training.accuracy_counts import Counts
from tests.training.runs import few_digits, make, run, validate


def test_each_attack_stands_beside_pgd_with_as_many_steps() -> None:
    contenders = evaluation.attacks(0.1, "linf", [3, 5])
    assert [attack.label for attack in contenders] == ["pgd-3", "pgd-any-3", "pgd-5", "pgd-any-5"]
    counts = Counts(100, 90, 40)
    turns = [[(each, counts), (2 * each, counts)] for each in (4.0, 2.0, 6.0, 2.0)]
    lines = evaluation.table(contenders, turns)
    assert lines[3] == (
        "| pgd-any-3 | 40.00 % of 100, clean 90.00 % | 3.00 (2.50 to 3.50) | 33 | 2.00 (2.00 to 2.00) |"
    )
    assert lines[5].endswith("| 3.00 (3.00 to 3.00) |")


def test_a_checkpoint_is_measured_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few_digits(monkeypatch, 80)
    run(make(epochs=1), validate(20), tmp_path)
    options = ["--images=20", "--steps", "2", "--rounds=2", f"--output={tmp_path / 'evaluation.md'}"]
    monkeypatch.setattr(sys, "argv", [evaluation.__file__, str(tmp_path / "last.pt"), *options])
    evaluation.main()
    turns = json.loads((tmp_path / "evaluation.json").read_text())["turns"]
    assert {*turns} == {"pgd-2", "pgd-any-2"}
    robust = {name: {turn["validation_robust_accuracy"] for turn in taken} for name, taken in turns.items()}
    assert all(len(accuracies) == 1 for accuracies in robust.values())  # of every round
    assert max(robust["pgd-any-2"]) <= max(robust["pgd-2"])
    assert "| pgd-any-2 |" in (tmp_path / "evaluation.md").read_text()
