"""Rows of `evaluations` with a dial: the curve that they make, and that they are nobody's deployed network."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from arat_ray.frontier import compare
from arat_ray.frontier.dial import Curve, curves
from arat_ray.frontier.evaluations import Conditions, read
from arat_ray.frontier.pareto import load_front
from arat_ray.report.dial import print_curve
from arat_ray.report.figure_dial import plot_curves
from arat_ray.results.rows import EvaluationRow
from tests.frontier.tables import add, judged
from tests.frontier.test_pareto import accuracies, write

ASKED = Conditions(attack="autoattack", split="test")


def measured(dial: float, clean: float, robust: float, trial: str = "t0") -> list[EvaluationRow]:
    """The two rows of a setting, 100 images, with intervals of 5 points."""
    common: dict[str, Any] = {"dial": dial, "trial_id": trial, "checkpoint": "last", "split": "test", "images": 100}
    attack = {"attack": "pgd-20", "norm": "linf", "epsilon": 0.2, "warnings": "masked" if robust < 0.3 else None}
    rows: list[Any] = [
        common | how | {"accuracy": share, "ci_low": share - 0.05, "ci_high": share + 0.05}
        for how, share in (({"attack": "none"}, clean), (attack, robust))
    ]
    return rows


def test_a_curve_by_hand() -> None:
    rows = measured(1, 0.9, 0.2) + measured(0, 0.8, 0.6) + measured(0.5, 0.7, 0.5)
    (curve,) = curves(rows)
    assert [setting.dial for setting in curve.settings] == [0, 0.5, 1]
    assert curve.points.tolist() == [[0.8, 0.6], [0.7, 0.5], [0.9, 0.2]]
    assert curve.on_front.tolist() == [True, False, True]
    assert curve.hypervolume == pytest.approx(0.8 * 0.6 + 0.1 * 0.2)
    assert (curve.name, curve.attack, curve.split, curve.images) == ("t0 last", "pgd-20", "test", 100)
    assert curve.settings[0].robust == pytest.approx((0.6, 0.55, 0.65))


def test_each_network_has_its_own_curve() -> None:
    found = curves(measured(0, 0.8, 0.6) + measured(0, 0.7, 0.7, trial="t1") + measured(1, 0.9, 0.1))
    assert [(curve.name, len(curve.settings)) for curve in found] == [("t0 last", 2), ("t1 last", 1)]


def test_the_table_says_how_what_is_deployed_and_what_is_beaten() -> None:
    (curve,) = curves(measured(0, 0.8, 0.6) + measured(0.5, 0.7, 0.5) + measured(1, 0.9, 0.2))
    out = io.StringIO()
    print_curve(curve, Console(file=out, width=120))
    lines = [" ".join(line.split()) for line in out.getvalue().splitlines()]
    assert lines[0] == "t0 last"
    assert "warning: dial 1: masked" in lines
    assert "2 of 3 settings are beaten by no other; hypervolume 0.5000 above (0, 0)" in lines
    assert "0 80.0 [75.0, 85.0] 60.0 [55.0, 65.0] deployed" in lines
    assert "0.5 70.0 [65.0, 75.0] 50.0 [45.0, 55.0] beaten" in lines
    assert "1 90.0 [85.0, 95.0] 20.0 [15.0, 25.0] clean branch" in lines
    assert lines[-1] == "robust accuracy: PGD-20, Linf, 0.2; test split, 100 images"


def test_the_figure_names_its_networks_settings_and_conditions(tmp_path: Path) -> None:
    found: list[Curve] = curves(measured(0, 0.8, 0.6) + measured(0.25, 0.85, 0.5) + measured(0, 0.7, 0.7, trial="<b>"))
    plot_curves(found, tmp_path / "dial.svg")
    text = (tmp_path / "dial.svg").read_text()
    for word in ("t0 last", "&lt;b&gt; last", ">0.25<", "Robust accuracy (%), PGD-20, Linf, 0.2", "n = 100 images"):
        assert word in text, word


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Two trials; the first deployed, and the same file at two settings of its dial, the deployed one among them."""
    known = {"config": '{"averaging": null}'}
    trials = [accuracies(0.9, 0.5, checkpoint=f"checkpoints/t{number}/last.pt", **known) for number in range(2)]
    study = write(tmp_path / "s", *trials)
    judged(study, "t0", "rrcx", key="deployed")
    judged(study, "t0", "rrcx", key="at-0", dial=0.0)
    judged(study, "t0", "rccc", key="at-1", dial=1.0)
    judged(study, "t1", "rccr", key="at-1", dial=1.0)
    return study


def test_no_front_takes_a_dialled_network_for_the_deployed_one(study: Path) -> None:
    assert [(row.trial_id, row.dial, row.clean_correct) for row in read(study)] == [("t0", None, 3)]
    (trial,) = load_front([study], asked=ASKED).trials
    assert (trial["trial_id"], trial["clean_accuracy"], trial["robust_accuracy"]) == ("t0", 0.75, 0.5)


def test_a_setting_is_compared_where_it_is_named_by_its_id(study: Path) -> None:
    rows = [row for row in read(study, dialled=True) if row.trial_id == "t0"]
    ids = {row.dial: study / row.evaluation_id for row in rows}
    found = compare.compare(ids[None], ids[1.0], Conditions())
    assert (found.clean.a, found.clean.b, found.robust.a, found.robust.b) == (0.75, 1.0, 0.5, 0.25)
    assert "dial 1, test split" in f"{found.b}"
    assert np.isclose(found.robust.difference, 0.25)


def test_a_clean_accuracy_is_that_of_the_same_setting(study: Path) -> None:
    row = {"evaluation_id": "alone", "attack": "pgd-20", "attack_version": "arat-ray", "norm": "linf", "epsilon": 0.1}
    known = {"trial_id": "t0", "checkpoint": "last", "checkpoint_sha256": "sha of t0", "split": "test", "images": 4}
    add(study, "evaluations", row | known | {"indices_sha256": "0 and 3 more", "correct": 1, "dial": 0.5})
    assert 0.5 not in {row.dial for row in read(study, dialled=True)}, "it has no clean accuracy yet"
