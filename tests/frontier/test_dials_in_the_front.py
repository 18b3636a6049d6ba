"""Settings of dials on a front: who competes, how they are named, and what lies between two of them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from arat_ray.frontier.between import propose
from arat_ray.frontier.evaluations import Conditions
from arat_ray.frontier.pareto import Front, load_front
from arat_ray.frontier.pick import pick
from arat_ray.report import printing
from arat_ray.report.figure import caption, plot_front
from tests.frontier.tables import evaluated
from tests.frontier.test_pareto import accuracies, write

ASKED = Conditions(attack="autoattack", split="test")
KNOWN = {"config": '{"averaging": null}'}


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Trial 0 deployed and at three settings, trial 1 at one, trial 2 deployed alone, trial 3 not evaluated."""
    trials = [accuracies(0.9, 0.5, checkpoint=f"checkpoints/t{number}/last.pt", **KNOWN) for number in range(4)]
    study = write(tmp_path / "s", *trials)
    for dial, clean, robust in ((None, 800, 400), (0.0, 800, 400), (0.25, 840, 390), (0.5, 880, 300)):
        evaluated(study, "t0", clean=clean, robust=robust, key=f"{dial}", dial=dial)
    evaluated(study, "t1", clean=700, robust=300, key="deployed")
    evaluated(study, "t1", clean=900, robust=200, key="1", dial=1.0, warnings="masked")
    evaluated(study, "t2", clean=780, robust=410, key="deployed")
    return study


def front_of(study: Path, **changes: Any) -> Front:
    return load_front([study], asked=ASKED, dials=True, **changes)


def named(front: Front) -> list[tuple[int, float | None, float]]:
    return [(each["number"], each["dial"], each["clean_accuracy"]) for each in front.trials]


def test_settings_of_all_trials_compete_beside_what_is_deployed(study: Path) -> None:
    front = front_of(study)
    assert named(front) == [(1, 1.0, 0.9), (0, 0.5, 0.88), (0, 0.25, 0.84), (0, None, 0.8), (2, None, 0.78)]
    assert front.hypervolume == pytest.approx(0.9 * 0.2 + 0.88 * 0.1 + 0.84 * 0.09 + 0.8 * 0.01 + 0.78 * 0.01)
    assert front.coverage == (3, 4, True)
    assert front.settings == 3, "the setting 0 is what is deployed, and counts once"
    assert front.others.points.tolist() == [[0.7, 0.3]]
    assert list(front.others.dials) == [None]
    assert front.searched is None
    assert front.trials[0]["warnings"] == "masked"


def test_without_the_word_no_setting_competes(study: Path) -> None:
    front = load_front([study], asked=ASKED)
    assert [(each["number"], "dial" in each) for each in front.trials] == [(0, False), (2, False)]


def test_the_setting_0_stands_for_a_network_that_was_not_measured_as_deployed(tmp_path: Path) -> None:
    study = write(tmp_path / "s", accuracies(0.9, 0.5, checkpoint="checkpoints/t0/last.pt", **KNOWN))
    evaluated(study, "t0", clean=800, robust=400, dial=0.0)
    assert named(front_of(study)) == [(0, 0.0, 0.8)]


def test_an_exact_setting_counts_before_a_fast_one(study: Path) -> None:
    evaluated(study, "t1", clean=990, robust=900, key="fast", dial=1.0, attack_version="pyautoattack 0.2.0, fast")
    assert named(front_of(study))[0] == (1, 1.0, 0.9)


def test_a_fitted_branch_competes_for_its_trial_and_is_named_by_its_own_file(study: Path) -> None:
    how: dict[str, Any] = {"checkpoint": "fitted-last", "checkpoint_sha256": "another"}
    for dial, clean, robust in ((None, 900, 900), (0.0, 780, 410), (0.5, 950, 190)):
        evaluated(study, "t2", clean=clean, robust=robust, key=f"{dial}", dial=dial, **how)
    best = front_of(study).trials[0]
    assert (best["number"], best["dial"], best["checkpoint"]) == (2, 0.5, "checkpoints/t2/fitted-last.pt")
    assert front_of(study).settings == 4, "at 0 it is what is deployed"
    assert [each["number"] for each in load_front([study], asked=ASKED).trials] == [0, 2]
    evaluated(study, "t2", clean=940, robust=180, dial=0.6, key="again", **(how | {"checkpoint_sha256": "fitted anew"}))
    assert front_of(study).trials[0]["dial"] == 0.6, "what was fitted before is no more"


def test_each_point_is_named_by_its_trial_and_setting_everywhere(study: Path, tmp_path: Path) -> None:
    front, out, table = front_of(study), io.StringIO(), io.StringIO()
    printing.print_table(front, Console(file=out, width=120))
    lines = [" ".join(row.split()) for row in out.getvalue().splitlines()]
    assert " ".join(lines[:2]).startswith("front: 5 of 4 trials and 3 settings of dials, hypervolume 0.3594")
    assert any(row.startswith("t0 at t = 0.25 84.0 [") for row in lines)
    assert any(row.startswith("t0 80.0 [") for row in lines)
    assert "warning: t1 at t = 1: masked" in lines
    printing.write_csv(front, table)
    header, first, *_ = (row.split(",") for row in table.getvalue().splitlines())
    assert first[header.index("dial")] == "1.0"
    found = json.loads(json.dumps(printing.as_json(front), default=str))
    assert [trial["dial"] for trial in found["trials"]] == [1.0, 0.5, 0.25, None, None]
    assert found["settings"] == 3
    assert lines[-2].endswith("3 of 4 complete trials evaluated, with 3 settings of their dials")
    figure = plot_front(front, tmp_path / "front.svg")
    assert {"0", "1 at t = 1"} <= {each.get_text() for each in figure.axes[0].texts}
    assert ">setting of a dial<" in (tmp_path / "front.svg").read_text()
    drawn = [np.asarray(each.get_xydata()).round(9).tolist() for each in figure.axes[0].lines]
    assert [[80, 40], [84, 39], [88, 30]] in drawn
    assert [[70, 30], [90, 20]] in drawn, "with what is beaten"
    assert caption(front).startswith("3 of 4 trials, 3 settings of dials, 5 on the front")
    plain = io.StringIO()
    printing.write_csv(load_front([study], asked=ASKED), plain)
    assert ",dial," not in plain.getvalue()


def test_a_setting_may_be_picked_and_is_written_without_training(study: Path) -> None:
    choice = pick(front_of(study), least=["robust_accuracy=35%"])
    assert (choice.trial["number"], choice.trial["dial"]) == (0, 0.25)
    words = printing.choice_lines(choice, front_of(study))
    assert words[0].startswith("t0 at t = 0.25 of ")
    assert f"arat-ray export {study}/checkpoints/t0/last.pt --dial 0.25 -o FILE" in " ".join(words)


def test_a_setting_between_two_measured_ones_is_proposed_by_hand(study: Path) -> None:
    # clean from 84 to 88 % between 0.25 and 0.5: 85 % a quarter of the way, robust 39 - 9 / 4 there
    front = front_of(study)
    choice = pick(front, least=["clean_accuracy=85%"])
    assert (choice.trial["number"], choice.trial["dial"]) == (0, 0.5)
    assert choice.better is not None
    assert (choice.better.trial["number"], choice.better.between) == (0, (0.25, 0.5))
    assert choice.better.dial == pytest.approx(0.312, abs=0.001)
    assert choice.better.expected == pytest.approx(0.39 - 0.09 / 4, abs=1e-9)
    last = printing.choice_lines(choice, front)[-1]
    assert last.startswith("between t = 0.25 and 0.5 of trial 0, t = 0.312 may have robust accuracy 36.8 %; measure it")
    assert f"arat-ray dial {study}/checkpoints/t0/last.pt --at 0.312 --attack autoattack --norm linf" in last
    assert last.endswith("--split test --images 1000"), "exact, as its neighbours"


def test_nothing_is_proposed_where_a_line_promises_no_more_and_where_there_is_no_dial(study: Path) -> None:
    assert pick(front_of(study), least=["clean_accuracy=88%"]).better is None, "the measured one is at the floor"
    assert pick(front_of(study), least=["clean_accuracy=10%"]).better is None
    assert pick(front_of(study), best="clean_accuracy").better is None
    assert pick(load_front([study], asked=ASKED), least=["clean_accuracy=79%"]).better is None


def test_of_several_floors_the_first_that_is_reached_says_where() -> None:
    def at(dial: float | None, a: float, b: float, c: float) -> dict[str, Any]:
        return {"study": "s", "trial_id": "t0", "dial": dial, "a": a, "b": b, "c": c}

    chosen = at(None, 1.0, 1.0, 0.0)
    # a falls below 0.5 at 0.5, b below 0.9 already at 0.1
    found = propose([chosen, at(1.0, 0.0, 0.0, 1.0)], {"a": 0.5, "b": 0.9}, "c", chosen=chosen)
    assert found is not None
    assert (found.dial, found.expected) == pytest.approx((0.1, 0.1))
    assert propose([chosen, at(1.0, 0.6, 0.95, 1.0)], {"a": 0.5, "b": 0.9}, "c", chosen=chosen) is None, "both good"


def test_the_fast_mode_of_the_neighbours_is_kept(tmp_path: Path) -> None:
    study = write(tmp_path / "s", accuracies(0.9, 0.5, checkpoint="checkpoints/t0/last.pt", **KNOWN))
    for dial, clean, robust in ((None, 800, 400), (1.0, 900, 300)):
        how: dict[str, Any] = {"attack_version": "pyautoattack 0.2.0, fast", "key": f"{dial}", "dial": dial}
        evaluated(study, "t0", clean=clean, robust=robust, **how)
    front = front_of(study)
    assert printing.choice_lines(pick(front, least=["clean=85%"]), front)[-1].endswith("--images 1000 --mode fast")


def test_mistakes_are_refused_with_what_to_do(study: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"beside --dial there is no --attack and no --split: .* has .*dialled"):
        load_front([study], dials=True)
    other = write(tmp_path / "other", accuracies(0.9, 0.5, checkpoint="checkpoints/t0/last.pt", **KNOWN))
    evaluated(other, "t0", clean=800, robust=400)
    with pytest.raises(ValueError, match=r"no setting of a dial was measured with --attack autoattack --split test; "):
        front_of(other)
    with pytest.raises(ValueError, match=r"arat-ray dial .*/other --attack autoattack --epsilon 8/255 --split test"):
        front_of(other)
