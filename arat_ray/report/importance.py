"""How much each knob of a search moves each goal and the front, as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from arat_ray.frontier.importance import Effect, Importance, Moved
from arat_ray.results.schema import ACCURACIES
from arat_ray.text import line

FRONT = "front"


def as_json(found: Sequence[Importance], goals: Sequence[str]) -> list[dict[str, Any]]:
    """A knob each: the effect on each goal in its unit, on the front as a share of its hypervolume, and of members."""
    return [
        {
            "knob": each.knob,
            **{name: _moved(moved) for name, moved in zip([*goals, FRONT], [*each.goals, each.front], strict=True)},
            "members": {
                member: {name: effect._asdict() for name, effect in zip([*goals, FRONT], effects, strict=True)}
                for member, effects in each.members.items()
            },
        }
        for each in found
    ]


def _moved(moved: Moved) -> dict[str, Any]:
    return {"best": moved.best, "worst": moved.worst, **moved.by._asdict()}


def lines(found: Sequence[Importance], goals: Sequence[str], *, trials: int) -> Iterator[str]:
    """For people."""
    yield (
        "what a knob moves: its best value over its worst, the other knobs averaged over; 90 % intervals, by a model "
        f"of {trials} trials"
    )
    for each in found:
        yield ""
        yield line(each.knob)
        for name, moved in zip([*goals, FRONT], [*each.goals, each.front], strict=True):
            values = f"{_value(moved.best)} over {_value(moved.worst)}"
            yield f"  {_words(name):<16} {_shown(name, moved.by):<34} {line(values)}{_doubt(moved.by)}"
    for each in found:
        if each.members:
            yield ""
            yield f"{line(each.knob)}: settings with a member over those without"
        for member, effects in each.members.items():
            yield f"  {line(member)}"
            for name, effect in zip([*goals, FRONT], effects, strict=True):
                yield f"    {_words(name):<16} {_shown(name, effect)}{_doubt(effect)}"


def _shown(name: str, effect: Effect) -> str:
    """`12.3 points [9.1, 15.2]`: accuracies in points, the front in percent of its hypervolume."""
    if name in ACCURACIES or name == FRONT:
        unit = "points" if name in ACCURACIES else "% of hypervolume"
        return f"{100 * effect.effect:.1f} {unit} [{100 * effect.low:.1f}, {100 * effect.high:.1f}]"
    return f"{effect.effect:.3g} [{effect.low:.3g}, {effect.high:.3g}]"


def _doubt(effect: Effect) -> str:
    return "; not told from none" if effect.low <= 0 <= effect.high else ""


def _value(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _words(name: str) -> str:
    return name.replace("_", " ")
