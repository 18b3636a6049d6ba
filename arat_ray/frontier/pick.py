"""One member of a front: the best in one goal among those good enough in others, or the knee.

The knee is the member that bulges out the most: the one farthest above the line between the front's two extremes, once
each goal is scaled to [0, 1] over the front. It is Das's knee (1999, https://doi.org/10.1007/BF01195985), the point
farthest from the convex hull of individual minima, which for two goals is that line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import sqrt
from typing import NamedTuple

import numpy as np

from arat_ray.frontier.between import Proposal, Trial, propose
from arat_ray.frontier.dominance import Floats
from arat_ray.frontier.pareto import Front, at_setting
from arat_ray.results.schema import ACCURACIES
from arat_ray.text import did_you_mean


class Choice(NamedTuple):
    """A member of a front, and why it is the one."""

    trial: Trial
    reason: str
    better: Proposal | None = None
    """A setting between two of a dial that may be better; only a measurement can say so."""


def pick(front: Front, *, least: Sequence[str] = (), best: str | None = None, knee: bool = False) -> Choice:
    """The member that the command line's words choose.

    `least` are constraints as `robust_accuracy=60%`, `best` the goal to be best in (by default the one goal that no
    constraint speaks of), and `knee` asks for the knee instead. Equal values go to the best in the other goals, then to
    the trial with the lowest number, then to the setting of its dial nearest to 0. ValueError where the words are not
    clear, and where no member satisfies them.
    """
    if knee:
        if least or best:
            raise ValueError("--knee chooses by itself; leave --min and --max out")
        return _knee(front)
    floors = _floors(front, least)
    goal = _goal(front, best, "--max") if best else _other_goal(front, floors)
    fitting = [trial for trial in front.trials if all(trial[name] >= floor for name, floor in floors.items())]
    if not fitting:
        raise ValueError(_unattainable(front, floors))
    trial = _best(fitting, goal, front)
    if not floors:
        return Choice(trial, f"the best {_words(goal)} of the {len(front.trials)} members of the front")
    wanted = " and ".join(f"{_words(name)} of at least {shown(name, floor)}" for name, floor in floors.items())
    reason = f"the best {_words(goal)} of the {len(fitting)} of {len(front.trials)} members of the front with {wanted}"
    better = propose(front.trials, floors, goal, chosen=trial) if "dial" in trial else None
    return Choice(trial, reason + _reaching_below(trial, floors), better)


def shown(goal: str, value: float) -> str:
    """A value of a goal for people: accuracies in percent."""
    return f"{100 * value:.4g} %" if goal in ACCURACIES else f"{value:.4g}"


def bulges(points: Floats) -> Floats:
    """float [N]: how far points [N, 2] of a front lie above the line between its extremes, each goal scaled to [0, 1].

    Of a front, the best in one goal is the worst in the other: scaled, the extremes are (1, 0) and (0, 1) and the line
    is u + v = 1. Negative below it.
    """
    span = points.max(axis=0) - points.min(axis=0)
    assert (span > 0).all(), points
    return np.asarray(((points - points.min(axis=0)) / span).sum(axis=1) - 1) / sqrt(2)


def _knee(front: Front) -> Choice:
    if len(front.goals) != 2:
        raise ValueError(f"--knee needs two goals, these results have {', '.join(front.goals)}; choose with --max")
    points = np.array([[trial[goal] for goal in front.goals] for trial in front.trials], dtype=np.float64)
    if len(np.unique(points, axis=0)) < 3:
        raise ValueError(
            f"the front has no knee: {len(front.trials)} member(s), and between two extremes there must be a third; "
            "choose with --min or --max"
        )
    distance = bulges(points)
    if distance.max() <= 1e-9:
        raise ValueError(
            "the front has no knee: no member lies above the line between its extremes; choose with --min or --max"
        )
    trial = front.trials[int(np.argmax(distance))]
    ends = " and ".join(_name(front.trials[i]) for i in (0, -1))
    return Choice(
        trial,
        f"the knee: {distance.max():.3f} above the line between the extremes {ends}, each goal scaled to [0, 1] over "
        f"the {len(front.trials)} members of the front (Das 1999, doi:10.1007/BF01195985)",
    )


def _floors(front: Front, least: Sequence[str]) -> dict[str, float]:
    """{"robust_accuracy": 0.6} of the words after each --min."""
    floors: dict[str, float] = {}
    for words in least:
        name, equals, text = words.partition("=")
        if not equals:
            raise ValueError(f"--min {words}: write GOAL=VALUE, such as {front.goals[-1]}=60%")
        goal = _goal(front, name.strip(), "--min")
        if goal in floors:
            raise ValueError(f"--min {words}: {goal} is given twice; one of them is enough")
        floors[goal] = _value(goal, text.strip(), f"--min {words}")
    return floors


def _goal(front: Front, name: str, option: str) -> str:
    """A goal by its name, or by that without `_accuracy`."""
    for goal in front.goals:
        if name in (goal, goal.removesuffix("_accuracy")):
            return goal
    raise ValueError(f"{option}: no goal {name!r} in these results{did_you_mean(name, front.goals)}")


def _value(goal: str, text: str, option: str) -> float:
    """0.85 or 85%, the double nearest to what is written, so that 72% is what 288 of 400 images are."""
    is_accuracy = goal in ACCURACIES
    has_percent = text.endswith("%")
    word = text.removesuffix("%").strip()
    try:  # 1e999999999 as a fraction would take all memory
        value = (Fraction(float(word)) if "e" in word.lower() else Fraction(word)) / (100 if has_percent else 1)
    except (ValueError, ZeroDivisionError, OverflowError):
        raise ValueError(f"{option}: {text!r} is no number; write 0.85 or 85%") from None
    if has_percent and not is_accuracy:
        raise ValueError(f"{option}: {goal} is no accuracy; write a plain number")
    if is_accuracy and not 0 <= value <= 1:
        hint = f"; did you mean {text}%?" if not has_percent and 1 < value <= 100 else "; write 0.85 or 85%"
        raise ValueError(f"{option}: an accuracy lies in [0, 1], not at {text}{hint}")
    return float(value)


def _other_goal(front: Front, floors: Mapping[str, float]) -> str:
    """What to be best in where --max does not say."""
    others = [goal for goal in front.goals if goal not in floors]
    if len(others) == 1 and (floors or len(front.goals) == 1):
        return others[0]
    if not floors:
        raise ValueError(
            f"say which member: --min {front.goals[-1]}=VALUE, --max {front.goals[0]}, or --knee; "
            "`arat-ray pareto` lists them"
        )
    raise ValueError(f"--min leaves open which goal to be best in; add --max {' or --max '.join(front.goals)}")


def _best(trials: Sequence[Trial], goal: str, front: Front) -> Trial:
    others = [other for other in front.goals if other != goal]
    return min(
        trials,
        key=lambda trial: (
            *(-trial[name] for name in (goal, *others)),
            trial["number"],
            trial["trial_id"],
            abs(trial.get("dial") or 0),
        ),
    )


def _unattainable(front: Front, floors: Mapping[str, float]) -> str:
    """What is asked for too much of, and how much there is."""
    for goal, floor in floors.items():
        trial = _best(front.trials, goal, front)
        if trial[goal] < floor:
            return (
                f"no member of the front has {_words(goal)} of at least {shown(goal, floor)}; the best is "
                f"{shown(goal, trial[goal])} ({_values(trial, front)})"
            )
    goal, floor = list(floors.items())[-1]
    above = {name: value for name, value in floors.items() if name != goal}
    rest = [trial for trial in front.trials if all(trial[name] >= value for name, value in above.items())]
    given = " and ".join(f"{_words(name)} of at least {shown(name, value)}" for name, value in above.items())
    if not rest:
        return f"no member of the front has {given} together"
    trial = _best(rest, goal, front)
    return (
        f"no member of the front has {given} and {_words(goal)} of at least {shown(goal, floor)} together; with "
        f"{given}, the best {_words(goal)} is {shown(goal, trial[goal])} ({_values(trial, front)})"
    )


def _reaching_below(trial: Trial, floors: Mapping[str, float]) -> str:
    """A measured value may satisfy a constraint that the true one does not."""
    below = [name for name, floor in floors.items() if (trial[f"{name}_low"] or floor) < floor]
    return f"; the 95 % interval of its {' and '.join(map(_words, below))} reaches below that" if below else ""


def _values(trial: Trial, front: Front) -> str:
    return ", ".join([_name(trial), *(f"{_words(goal)} {shown(goal, trial[goal])}" for goal in front.goals)])


def _name(trial: Trial) -> str:
    return f"trial {trial['number']}{at_setting(trial)}"


def _words(goal: str) -> str:
    return goal.replace("_", " ")
