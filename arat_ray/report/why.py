"""Why a trial was proposed, and why it stopped early or went on, from the tables of its study alone."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from arat_ray.frontier import decisions
from arat_ray.frontier.decisions import Made
from arat_ray.frontier.eligibility import competes
from arat_ray.frontier.gain_decision import WHOLE
from arat_ray.frontier.halving import Decision, named, sort
from arat_ray.frontier.region import region
from arat_ray.results import reader
from arat_ray.results.schema import ACCURACIES, goal_text
from arat_ray.text import line

OF_PROPOSAL = (
    *("proposed_by", "proposed_expected", "proposed_deviation", "proposed_gain"),
    *("started_at", "ended_at", "feasible", "is_full_fidelity"),
)
PROPOSED = {
    "first": "as a known point of the file",
    "default": "because it is what `train` says",
    "start": "quasi-random, as the first trials are",
    "random": "at random, because a model may be wrong where it has not looked",
    "gain": "for what it was expected to add to the front",
    "grid": "as one of all combinations",
}
"""Beside these there are the names of samplers."""
SHOWN_AT_MOST = 12
"""Rivals of a trial at a rung that are shown before the others are counted."""


def why(study: Path, trial: str) -> dict[str, Any]:
    """How a trial ended, why it was proposed, and what was decided on it, each decision with its rivals at that moment,
    best first.

    `trial` is a number or a trial_id. ValueError where there is no such study or trial.
    """
    columns = ["trial_id", "attempt", "number", "status", "stop_reason", "error", "epochs_done"]
    goals = reader.metadata(study).goals
    table = reader.read(study, "trials", [*columns, *goals, *OF_PROPOSAL])
    attempts = table.to_pylist()
    rows = [row for row, last in zip(attempts, reader.latest_attempt(table), strict=True) if last]
    row = _find(study, trial, rows)
    began = [each["started_at"] for each in attempts if each["number"] == row["number"] and each["started_at"]]
    made = decisions.read(study)
    own = [i for i, decision in enumerate(made) if decision.number == row["number"]]
    decided = [_as_json(made[i]) | _rivals(made[: i + 1], made[i]) for i in own]
    return {
        "study": f"{study}",
        **{name: row[name] for name in columns},
        **{goal: _number(row[goal]) for goal in goals},
        "goals": list(goals),
        "proposal": _proposal(row, rows, goals, began=min(began, default=None)),
        "early_stopping": bool(reader.part_files(study / "decisions")),
        "decisions": decided,
    }


def _proposal(
    row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], goals: Sequence[str], *, began: datetime | None
) -> dict[str, Any] | None:
    """Why a trial was proposed, and where it was expected by the front of when its first attempt `began`; None where
    nobody has put it down."""
    by, gain = row["proposed_by"], row["proposed_gain"]
    if by is None:
        return None
    if gain is None:
        return {"by": by}
    expected, deviation = dict(row["proposed_expected"]), dict(row["proposed_deviation"])
    ended = {
        other["number"]: [other[goal] for goal in goals]
        for other in rows
        if competes(other, goals) and began and other["ended_at"] and other["ended_at"] <= began
    }
    where = region([expected[goal] for goal in goals], ended, goals)
    return {"by": by, "expected": expected, "deviation": deviation, "gain": gain, "region": where}


def _find(study: Path, trial: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    if not rows:
        raise ValueError(f"{study} has no trial yet")
    number = int(trial) if re.fullmatch(r"\d{1,18}", trial) else None
    for row in rows:
        if row["trial_id"] == trial or row["number"] == number:
            return row
    numbers = sorted(row["number"] for row in rows)
    raise ValueError(
        f"{study} has no trial {trial!r}; give a number from {numbers[0]} to {numbers[-1]}, "
        f"or a trial_id such as {rows[0]['trial_id']}"
    )


def _as_json(decision: Made) -> dict[str, Any]:
    return asdict(decision) | {"goals": list(map(_number, decision.goals)), "why": decision.why}


def _number(value: float | None) -> float | None:
    """JSON has no NaN."""
    return value if value is not None and math.isfinite(value) else None


def _rivals(made: list[Made], decision: Made) -> dict[str, Any]:
    """All that were ranked at its rung when a trial was decided on, itself among them, in the order of that moment;
    nothing where it was no ranking."""
    if not isinstance(decision, Decision):
        return {}
    rankings = [each for each in made if isinstance(each, Decision)]
    there = {each.number: each for each in rankings if each.rung == decision.rung and each.rank is not None}
    ranked = [there[number] for number in sorted(there)]
    order, fronts = sort([each.goals for each in ranked]) if ranked else ([], [])
    rivals = [
        {"number": ranked[i].number, "goals": ranked[i].goals, "front": front, "rank": position + 1}
        for position, (i, front) in enumerate(zip(order, fronts, strict=True))
    ]
    return {"rivals": rivals}


def lines(found: dict[str, Any]) -> Iterator[str]:
    """What `why` found, for people."""
    goals = found["goals"]
    measured = ", ".join(f"{_words(goal)} {goal_text(goal, found[goal])}" for goal in goals if found[goal] is not None)
    epochs = f"{found['epochs_done']} epoch{'s' if found['epochs_done'] != 1 else ''}"
    yield f"{line(found['trial_id'])}: {found['status']} after {epochs}{measured and f'; {measured}'}"
    if reason := found["stop_reason"] or found["error"]:
        yield f"  {line(reason)}"
    yield from _proposal_lines(found["proposal"], found["goals"])
    if not found["early_stopping"]:
        yield "  its study stops no trial early: there is no `early_stopping:` in its file"
    elif not found["decisions"]:
        yield "  it has not reached a rung: nothing was decided on it"
    for decision in found["decisions"]:
        yield ""
        yield from _decision_lines(decision, goals) if "rivals" in decision else _gain_lines(decision, goals)


def _proposal_lines(proposal: dict[str, Any] | None, goals: list[str]) -> Iterator[str]:
    if proposal is None:
        return
    by = proposal["by"]
    yield f"  proposed {PROPOSED.get(by, f'by {line(by)}')}"
    if "gain" in proposal:
        ends = _ends(goals, proposal["expected"].values(), proposal["deviation"].values())
        yield f"    expected at its end {ends}; {proposal['region']}"
        yield f"    it would add {proposal['gain']:.1e} to the hypervolume"


def _decision_lines(decision: dict[str, Any], goals: list[str]) -> Iterator[str]:
    if decision["rank"] is None:
        yield f"epoch {decision['rung']}: went on unranked, because a goal was missing or no number"
        return
    keep = f"{decision['keep']} go" if decision["keep"] > 1 else "goes"
    yield (
        f"epoch {decision['rung']}: {'went on' if decision['goes_on'] else 'stopped'}, rank {decision['rank']} of "
        f"{decision['of']}, where the first {keep} on; front {decision['front']}"
    )
    yield f"  {_because(decision)}"
    widths = [max(8, len(_words(goal))) for goal in goals]
    yield "  ".join(
        ["    rank", "front", "trial", *(f"{_words(goal):>{width}}" for goal, width in zip(goals, widths, strict=True))]
    )
    hidden = 0
    for rival in decision["rivals"]:
        own = rival["number"] == decision["number"]
        if rival["rank"] > SHOWN_AT_MOST and not own:
            hidden += 1
            continue
        cells = zip(goals, rival["goals"], widths, strict=True)
        values = [f"{goal_text(goal, value):>{width}}" for goal, value, width in cells]
        first = [f"{rival['rank']:>8}", f"{rival['front']:>5}", f"{rival['number']:>5}"]
        yield "  ".join([*first, *values]) + ("  <- this trial" if own else "")
    if hidden:
        yield f"    and {hidden} more"


def _gain_lines(decision: dict[str, Any], goals: list[str]) -> Iterator[str]:
    """By expected gain."""
    if decision["expected"] is None:
        missing = None in decision["goals"]
        why = "a goal was missing or no number" if missing else f"fewer than {WHOLE} trials had come far enough"
        yield f"epoch {decision['rung']}: went on unjudged, because {why}"
        return
    ends = _ends(goals, decision["expected"], decision["deviation"])
    yield f"epoch {decision['rung']}: {'went on' if decision['goes_on'] else 'stopped'}; expected at its end {ends}"
    gain, of_new = decision["gain"], decision["gain_of_new"]
    share = f": {gain / of_new:.2g} of it; it goes on from `slack` on" if of_new > 0 else ""
    yield f"  it would add {gain:.1e} an epoch to the hypervolume, a new trial {of_new:.1e}{share}"


def _ends(goals: list[str], expected: Iterable[float], deviation: Iterable[float]) -> str:
    each = zip(goals, expected, deviation, strict=True)
    return ", ".join(f"{_words(goal)} {_with_error(goal, mean, error)}" for goal, mean, error in each)


def _with_error(goal: str, mean: float, error: float) -> str:
    """`61.2 +- 0.8 %`."""
    if goal in ACCURACIES:
        return f"{100 * mean:.1f} +- {100 * error:.1f} %"
    return f"{mean:.4g} +- {error:.1g}"


def _because(decision: dict[str, Any]) -> str:
    beaten, behind = decision["beaten_by"], decision["behind"]
    if beaten:
        return f"{named(beaten)} {'are' if len(beaten) > 1 else 'is'} as good in every goal and better in one"
    if decision["of"] == 1:
        return "it was the first to come there"
    if behind:
        return (
            f"no trial beats it; of its front {named(behind)} {'come' if len(behind) > 1 else 'comes'} first by spread"
        )
    return "no trial beats it, and of its front it comes first by spread"


def _words(goal: str) -> str:
    return goal.replace("_", " ")
