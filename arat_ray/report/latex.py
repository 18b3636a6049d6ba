"""The front as a table of LaTeX, with booktabs, as papers print it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from arat_ray.frontier.pareto import Front, at_setting
from arat_ray.frontier.references import Reference
from arat_ray.report.labels import attack_label, study_name
from arat_ray.results.schema import ACCURACIES, short_param
from arat_ray.text import line

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\char34{}",
    "[": "{[}",  # of which the first after a row's end would be an option of it
    "*": "{*}",
    **{char: f"\\{char}" for char in "&%$#_{}"},
}


_LIGATURE = re.compile(r"(?<=-)(?=-)|(?<=')(?=')|(?<=[`!?])(?=`)")
"""Between two characters that LaTeX would set as another one, such as a dash."""


def escaped(text: object) -> str:
    """Foreign text in one line, none of which LaTeX obeys, character by character as it is."""
    return _LIGATURE.sub("{}", "".join(_ESCAPES.get(char, char) for char in line(text)))


def lines(
    front: Front, *, labels: Mapping[str, str] | None = None, references: Sequence[Reference] = ()
) -> Iterator[str]:
    """A `tabular` of the front, best first goal first, and of published points below it; comments say what a caption
    says. It needs \\usepackage{booktabs}."""
    labels, params = labels or {}, list(dict.fromkeys(name for trial in front.trials for name in trial["params"]))
    several = len({trial["study"] for trial in front.trials} | set(front.others.studies)) > 1
    has_bars = not front.over_seeds and any(
        trial[f"{goal}_low"] is not None for trial in front.trials for goal in front.goals
    )
    first = (["Study"] if several else []) + ["Trial", *map(short_param, params)]
    heads = [escaped(name) for name in first]
    for goal in front.goals:
        heads += [_head(goal), *([r"95\,\% interval"] if has_bars and goal in ACCURACIES else [])]
    columns = "l" * len(first) + "r" * (len(heads) - len(first))
    yield rf"% {line(_conditions(front))}"
    yield rf"\begin{{tabular}}{{{columns}}}"
    yield r"\toprule"
    yield _row(heads)
    yield r"\midrule"
    for trial in front.trials:
        name = str(trial["trial_id"] if trial["number"] is None else trial["number"]) + at_setting(trial)
        cells = [escaped(study_name(trial["study"], labels))] if several else []
        cells += [escaped(name), *(_param(trial["params"].get(param)) for param in params)]
        for goal in front.goals:
            sd = trial.get(f"{goal}_sd")
            cells += [
                _number(goal, trial[goal], sd),
                *([_interval(trial, goal)] if has_bars and goal in ACCURACIES else []),
            ]
        yield _row(cells)
    if references:
        yield r"\midrule"
    for each in references:
        cells = [rf"\multicolumn{{{len(first)}}}{{l}}{{{escaped(each.label)}}}"]
        for goal in front.goals:
            sd = getattr(each, f"{goal.removesuffix('_accuracy')}_sd")
            cells += [_number(goal, getattr(each, goal), sd), *([""] if has_bars else [])]
        yield f"{_row(cells)} % {line(each.source)}{f'; {line(each.note)}' * bool(each.note)}"
    yield r"\bottomrule"
    yield r"\end{tabular}"


def _conditions(front: Front) -> str:
    """What the numbers depend on."""
    parts = [f"robust accuracy: {attack_label(front)}"] if "robust_accuracy" in front.goals else []
    parts.append(f"{front.split} split" + (f", {front.images:,} images" if front.images else ""))
    if front.over_seeds:
        seeds = sorted({len(trial["seeds"]) for trial in front.trials})
        parts.append(f"mean and standard deviation over {' or '.join(map(str, seeds))} seeds")
    return "; ".join(parts)


def _head(goal: str) -> str:
    name = escaped(goal.replace("_", " ").removesuffix(" accuracy").capitalize())
    return rf"{name} (\%)" if goal in ACCURACIES else name


def _number(goal: str, value: float, sd: float | None) -> str:
    """`87.82 $\\pm$ 0.19`, as the paper prints it."""
    scale, digits = (100, ".2f") if goal in ACCURACIES else (1, ".4g")
    number = f"{scale * value:{digits}}"
    return number if sd is None else rf"{number} $\pm$ {scale * sd:{digits}}"


def _interval(trial: Mapping[str, Any], goal: str) -> str:
    low, high = trial[f"{goal}_low"], trial[f"{goal}_high"]
    return "" if low is None else f"{{[{100 * low:.1f}, {100 * high:.1f}]}}"


def _param(value: Any) -> str:
    return "" if value is None else escaped(f"{value:.4g}" if isinstance(value, float) else value)


def _row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"
