"""Why a trial stopped, from tables alone."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from arat_ray.cli import main
from arat_ray.frontier import decisions
from arat_ray.frontier.gain_decision import GainDecision
from arat_ray.frontier.halving import Decision, Halving
from arat_ray.results.schema import Metadata
from arat_ray.study.tables import StudyTables

GOALS = ("clean_accuracy", "robust_accuracy")
METADATA = Metadata(study="small", goals=GOALS, reference_point=(0.0, 0.0), revision="4f2a")
VALUES = {0: (0.80, 0.40), 1: (0.90, 0.50), 2: (0.70, 0.60), 3: (0.60, 0.30), 4: (0.95, math.nan), 5: (0.91, 0.51)}


def write(folder: Path, *, early_stopping: bool = True) -> list[Decision]:
    """A study in which trials come to epoch 10 in the order of their numbers, all as attempt 2 of themselves."""
    writer = StudyTables(folder, params={}, metadata=METADATA, decisions=early_stopping)
    halving = Halving([10], reduction_factor=2)
    for order, (number, goals) in enumerate(VALUES.items()):
        name = f"small-{number:05d}"
        writer.trial({"trial_id": name, "attempt": 1, "number": number, "status": "failed", "error": "node lost"})
        row: dict[str, Any] = {"trial_id": name, "attempt": 2, "number": number, "epochs_done": 10}
        row |= dict(zip(GOALS, goals, strict=True)) | {"status": "running"}
        if early_stopping:
            decision = halving.decide(number, 10, goals)
            writer.decision(decisions.as_row(decision, trial_id=name, goals=GOALS, order=order))
            if not decision.goes_on:
                row |= {"status": "pruned", "stop_reason": f"pareto_asha: {decision.why}"}
        writer.trial(row)
        writer.flush()
    writer.trial({"trial_id": "small-00006", "attempt": 1, "number": 6, "status": "running", "epochs_done": 3})
    writer.flush()
    return [made for number in VALUES if (made := halving.made(number, 10))]


def ask(folder: Path, trial: str, *options: str, code: int = 0) -> str:
    result = CliRunner().invoke(main, ["results", "why", str(folder), trial, *options])
    assert result.exit_code == code, result.output
    return result.output


def test_decisions_come_back_from_the_table_as_they_were_made(tmp_path: Path) -> None:
    made = write(tmp_path)
    assert len(made) == 6
    assert str(decisions.read(tmp_path)) == str(made)  # as text, because NaN is not equal to itself
    assert decisions.read(tmp_path / "nowhere") == []


def test_a_beaten_trial_is_shown_with_those_who_beat_it(tmp_path: Path) -> None:
    write(tmp_path)
    lines = ask(tmp_path, "3").splitlines()
    assert lines[0] == "small-00003: pruned after 10 epochs; clean accuracy 60.0 %, robust accuracy 30.0 %"
    assert lines[1] == "  pareto_asha: rung 10, rank 4 of 4, front 3; beaten by trials 0, 1, 2"
    assert lines[3:5] == [
        "epoch 10: stopped, rank 4 of 4, where the first 2 go on; front 3",
        "  trials 0, 1, 2 are as good in every goal and better in one",
    ]
    assert [line.split()[:3] for line in lines[6:]] == [
        ["1", "1", "1"],
        ["2", "1", "2"],
        ["3", "2", "0"],
        ["4", "3", "3"],
    ]
    assert lines[-1].endswith("<- this trial")
    assert "50.0 %" in lines[6]


def test_a_trial_that_nobody_beats_may_be_stopped_by_spread(tmp_path: Path) -> None:
    write(tmp_path)
    text = ask(tmp_path, "small-00002")
    assert "epoch 10: stopped, rank 2 of 3, where the first goes on; front 1" in text
    assert "no trial beats it; of its front trial 1 comes first by spread" in text


def test_who_went_on_is_told_why_and_later_trials_play_no_part(tmp_path: Path) -> None:
    write(tmp_path)
    assert "it was the first to come there" in ask(tmp_path, "0")
    text = ask(tmp_path, "1")
    assert "epoch 10: went on, rank 1 of 2" in text
    assert "no trial beats it, and of its front it comes first by spread" in text
    rivals = json.loads(ask(tmp_path, "1", "--json"))["decisions"][0]["rivals"]
    assert [rival["number"] for rival in rivals] == [1, 0]


def test_a_trial_without_a_goal_was_not_ranked_and_is_no_rival(tmp_path: Path) -> None:
    write(tmp_path)
    assert "epoch 10: went on unranked" in ask(tmp_path, "4")
    found = json.loads(ask(tmp_path, "5", "--json"))
    assert found["decisions"][0]["of"] == 5
    assert 4 not in [rival["number"] for rival in found["decisions"][0]["rivals"]]
    unranked = json.loads(ask(tmp_path, "4", "--json"), parse_constant=pytest.fail)
    assert unranked["decisions"][0]["goals"] == [0.95, None]


def test_ranks_shown_are_those_that_were_stored(tmp_path: Path) -> None:
    write(tmp_path)
    for number in (0, 1, 2, 3, 5):
        (decision,) = json.loads(ask(tmp_path, str(number), "--json"))["decisions"]
        (own,) = [rival for rival in decision["rivals"] if rival["number"] == number]
        assert (own["rank"], own["front"]) == (decision["rank"], decision["front"])


def test_a_trial_that_came_to_no_rung_and_a_study_without_any_say_so(tmp_path: Path) -> None:
    write(tmp_path / "with")
    assert "it has not reached a rung" in ask(tmp_path / "with", "6")
    write(tmp_path / "without", early_stopping=False)
    text = ask(tmp_path / "without", "0")
    assert "stops no trial early" in text
    assert text.startswith("small-00000: running after 10 epochs")


def test_an_unknown_trial_or_study_is_a_message(tmp_path: Path) -> None:
    write(tmp_path / "small")
    message = ask(tmp_path / "small", "7", code=2)
    assert "has no trial '7'; give a number from 0 to 6, or a trial_id such as small-00000" in message
    assert "Traceback" not in message
    assert "there is no folder" in ask(tmp_path / "smal", "0", code=2)


def by_gain(folder: Path, *made: GainDecision) -> None:
    writer = StudyTables(folder, params={}, metadata=METADATA, decisions=True)
    for order, decision in enumerate(made):
        name = f"small-{decision.number:05d}"
        writer.trial({"trial_id": name, "attempt": 1, "number": decision.number, "status": "pruned", "epochs_done": 27})
        writer.decision(decisions.as_row(decision, trial_id=name, goals=GOALS, order=order))
    writer.flush()


def test_expected_gain_says_what_was_expected_and_with_what_it_was_compared(tmp_path: Path) -> None:
    stopped = GainDecision(
        number=4,
        rung=27,
        goals=(0.55, 0.33),
        goes_on=False,
        of=7,
        expected=(0.612, 0.38),
        deviation=(0.008, 0.011),
        gain=1.5e-5,
        gain_of_new=2.2e-4,
    )
    by_gain(tmp_path, stopped)
    assert decisions.read(tmp_path) == [stopped]
    assert ask(tmp_path, "4").splitlines()[-2:] == [
        "epoch 27: stopped; expected at its end clean accuracy 61.2 +- 0.8 %, robust accuracy 38.0 +- 1.1 %",
        "  it would add 1.5e-05 an epoch to the hypervolume, a new trial 2.2e-04: 0.068 of it; it goes on from `slack` "
        "on",
    ]
    (decision,) = json.loads(ask(tmp_path, "4", "--json"))["decisions"]
    assert (decision["gain"], decision["gain_of_new"], decision["goes_on"]) == (1.5e-5, 2.2e-4, False)


def test_what_expected_gain_did_not_judge_says_why(tmp_path: Path) -> None:
    early = GainDecision(number=0, rung=9, goals=(0.5, 0.3), goes_on=True, of=1)
    broken = GainDecision(number=1, rung=9, goals=(0.5, math.nan), goes_on=True, of=5)
    by_gain(tmp_path, early, broken)
    assert (
        ask(tmp_path, "0").splitlines()[-1]
        == "epoch 9: went on unjudged, because fewer than 3 trials had come far enough"
    )
    assert ask(tmp_path, "1").splitlines()[-1] == "epoch 9: went on unjudged, because a goal was missing or no number"


def with_proposals(folder: Path, *expected: tuple[float, float]) -> None:
    """Trials 0 to 2 are complete, 3 runs yet, and the later ones were proposed for a gain, a minute after another."""
    writer = StudyTables(folder, params={}, metadata=METADATA)
    whole = {0: (0.90, 0.30), 1: (0.80, 0.40), 2: (0.75, 0.35), 3: (0.99, 0.99)}
    for number, goals in whole.items():
        row: dict[str, Any] = {"trial_id": f"small-{number:05d}", "attempt": 1, "number": number, "status": "complete"}
        row |= {"is_full_fidelity": True, "started_at": moment(0), "ended_at": moment(90 if number == 3 else number)}
        writer.trial(row | {"proposed_by": "start"} | dict(zip(GOALS, goals, strict=True)))
    for number, point in enumerate(expected, start=4):
        row = {"trial_id": f"small-{number:05d}", "attempt": 1, "number": number, "status": "running"}
        row |= {"epochs_done": 0, "started_at": moment(number), "proposed_by": "gain", "proposed_gain": 1.2e-3}
        row |= {"proposed_expected": dict(zip(GOALS, point, strict=True))}
        writer.trial(row | {"proposed_deviation": dict.fromkeys(GOALS, 0.012)})
    writer.flush()


def moment(minute: int) -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minute)


def test_a_trial_says_where_by_the_front_of_then_it_was_expected_and_what_it_would_add(tmp_path: Path) -> None:
    with_proposals(tmp_path, (0.85, 0.36), (0.95, 0.10), (0.50, 0.60), (0.79, 0.38))
    assert ask(tmp_path, "4").splitlines()[1:4] == [
        "  proposed for what it was expected to add to the front",
        "    expected at its end clean accuracy 85.0 +- 1.2 %, robust accuracy 36.0 +- 1.2 %; between trials 0 and "
        "1 of the front",
        "    it would add 1.2e-03 to the hypervolume",
    ]
    where = {n: json.loads(ask(tmp_path, n, "--json"))["proposal"]["region"] for n in "567"}
    assert where == {
        "5": "beyond trial 0, then the best in clean accuracy",
        "6": "beyond trial 1, then the best in robust accuracy",
        "7": "behind trial 1: it adds where it turns out better than expected",
    }


def test_a_trial_of_the_start_says_so_and_one_of_before_that_was_kept_says_nothing(tmp_path: Path) -> None:
    with_proposals(tmp_path / "now")
    assert "  proposed quasi-random, as the first trials are" in ask(tmp_path / "now", "0").splitlines()
    assert json.loads(ask(tmp_path / "now", "0", "--json"))["proposal"] == {"by": "start"}
    write(tmp_path / "before")
    assert "proposed" not in ask(tmp_path / "before", "0")
    assert json.loads(ask(tmp_path / "before", "0", "--json"))["proposal"] is None
