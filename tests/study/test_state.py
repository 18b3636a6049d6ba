"""The state of a study: each way in which a trial may go on, and that it goes on in no other."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from arat_ray.results.statuses import STATUSES
from arat_ray.study.state import ImpossibleError, Phase, StudyState, number_of, trial_id

GOALS = ("clean_accuracy", "robust_accuracy")
KEY: dict[str, Any] = {"trial_id": "small-00000", "attempt": 1}


def asked(number: int = 0) -> dict[str, Any]:
    return {"asked": {"number": number, "sampled": {"a": 1}}}


def started(attempt: int = 1, **row: Any) -> dict[str, Any]:
    return {"started": {**KEY, "attempt": attempt, "number": 0, "status": "running", **row}}


def epoch(number: int = 1, attempt: int = 1, **changes: Any) -> dict[str, Any]:
    of_trial = {"trial": {**KEY, "attempt": attempt, **changes}} if changes else {}
    return {"epoch": {**KEY, "attempt": attempt, "epoch": number}, **of_trial}


def lost(attempt: int = 1) -> dict[str, Any]:
    return {"lost": {**KEY, "attempt": attempt, "status": "failed", "error": "the node died"}}


def ended(status: str, attempt: int = 1, **row: Any) -> dict[str, Any]:
    goals = dict.fromkeys(GOALS, 0.5) | {"is_full_fidelity": True} if status == "complete" else {}
    return {"ended": {**KEY, "attempt": attempt, "status": status, **goals, **row}}


REACHED: dict[Phase, list[dict[str, Any]]] = {
    "asked": [asked()],
    "running": [asked(), started()],
    "interrupted": [asked(), started(), ended("stopped")],
    "lost": [asked(), started(), lost()],
    "complete": [asked(), started(), ended("complete")],
    "pruned": [asked(), started(), ended("pruned", stop_reason="beaten")],
    "failed": [asked(), started(), ended("failed", error="NaN")],
}
"""How a trial comes into each phase."""
NEXT: dict[str, tuple[dict[str, Any], Phase]] = {
    "started": (started(), "running"),
    "started again": (started(2), "running"),
    "epoch": (epoch(), "running"),
    "lost": (lost(), "lost"),
    "stopped": (ended("stopped"), "interrupted"),
    "complete": (ended("complete"), "complete"),
    "pruned": (ended("pruned"), "pruned"),
    "failed": (ended("failed"), "failed"),
}
"""What may happen to it, and where that leads."""
RUNNING = {"started", "epoch", "lost", "stopped", "complete", "pruned", "failed"}
POSSIBLE: dict[Phase, set[str]] = {
    "asked": {"started"},
    "running": RUNNING,
    "interrupted": {"started"},
    "lost": {"started again"},
    "complete": set(),
    "pruned": set(),
    "failed": set(),
}


def state_of(events: list[dict[str, Any]]) -> StudyState:
    state = StudyState(GOALS)
    for event in events:
        state.apply(event)
    return state


def test_all_phases_and_statuses_are_here() -> None:
    assert set(REACHED) == set(get_args(Phase)) == set(POSSIBLE)
    assert set(STATUSES) <= {"running", "complete", "stopped", "failed", "pruned"}


@pytest.mark.parametrize("phase", REACHED)
@pytest.mark.parametrize("what", NEXT)
def test_each_transition_is_made_or_refused(phase: Phase, what: str) -> None:
    state = state_of(REACHED[phase])
    assert state.trials[0].phase == phase
    event, after = NEXT[what]
    if what in POSSIBLE[phase]:
        state.apply(event)
        assert state.trials[0].phase == after
        return
    with pytest.raises(ImpossibleError):
        state.apply(event)
    assert state.trials[0].phase == phase


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ([started()], "trial 0 is started, and was never asked for"),
        ([epoch()], "trial 0 is reports, and was never asked for"),
        ([asked(), asked()], "trial 0 is asked for a second time"),
        ([asked(), started(2)], "attempt 2 at trial 0 is started, which is at 0"),
        ([asked(), started(), epoch(1), epoch(1)], "trial 0 reports epoch 1 for a second time"),
        ([asked(), started(), lost(), started(2), epoch(1, 1)], "attempt 1 at trial 0 reports; it is at 2, running"),
        ([{"tomorrow": {}}], "an event 'tomorrow', which this arat-ray does not know: a newer one wrote it"),
    ],
)
def test_what_cannot_follow_is_named(events: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(ImpossibleError, match=words):
        state_of(events)


def test_rows_are_what_events_add_up_to() -> None:
    state = state_of([asked(), started(device_s=0.0)])
    first = state.apply(epoch(1, clean_accuracy=0.4, device_s=2.0))
    assert [change.table for change in first] == ["epochs", "trials"]
    assert first[1].row["clean_accuracy"] == 0.4
    state.apply(lost())
    state.apply(started(2, device_s=0.0))
    (second,) = state.apply(epoch(1, attempt=2))  # trained again, because its checkpoint was older
    assert second.row["attempt"] == 2
    assert state.trials[0].epochs == {1: 2}
    (end,) = state.apply(ended("complete", 2, device_s=3.0, cost_usd=0.1))
    assert (end.row["clean_accuracy"], end.row["status"], end.row["attempt"]) == (0.5, "complete", 2)
    assert state.spent == {("small-00000", 1): (2.0, None), ("small-00000", 2): (3.0, 0.1)}
    assert state.trials[0].goals == [0.5, 0.5]
    assert (state.trials[0].row, state.trials[0].epochs) == (None, {})


def test_the_front_grows_and_what_has_not_let_it_grow_is_counted() -> None:
    state = StudyState(GOALS)
    ends = [(0.5, 0.5, {}), (0.4, 0.4, {}), (0.9, 0.9, {"feasible": False}), (0.4, 0.6, {}), (None, None, None)]
    counts = []
    for number, (clean, robust, more) in enumerate(ends):
        key = {"trial_id": f"small-{number:05d}", "attempt": 1}
        state.apply(asked(number))
        state.apply({"started": {**key, "number": number, "status": "running"}})
        goals = {"clean_accuracy": clean, "robust_accuracy": robust, "is_full_fidelity": True, "status": "complete"}
        state.apply({"ended": {**key, **(goals | more if more is not None else {"status": "failed"})}})
        counts.append(state.since_growth)
    assert counts == [0, 1, 2, 0, 1]
    assert list(state.front.points) == ["small-00000", "small-00003"]
    assert state.front.hypervolume == pytest.approx(0.5 * 0.5 + 0.4 * 0.1)
    assert [trial.number for trial in state.ended()] == [0, 1, 2, 3, 4]


def test_a_trial_has_the_number_that_its_name_ends_in() -> None:
    assert number_of(trial_id("layers-2", 7)) == 7
    with pytest.raises(ValueError, match="'best' is no trial_id of a study: it does not end in a number, as in"):
        number_of("best")
