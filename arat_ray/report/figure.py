"""The paper figure: every trial, the front as a staircase, and how sure we are of each point on it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np

from arat_ray.frontier.attributes import STUDY
from arat_ray.frontier.dominance import Floats
from arat_ray.frontier.pareto import Front, Searched, at_setting
from arat_ray.frontier.references import Reference
from arat_ray.report import figure_groups
from arat_ray.report.figure_dial import draw_settings
from arat_ray.report.figure_style import FRONT, GREY, OTHER, TEXT, style
from arat_ray.report.labels import attack_label, goal_label, study_name
from arat_ray.report.looks import PLAIN, Look
from arat_ray.results.schema import ACCURACIES
from arat_ray.text import line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

SUFFIXES = (".pdf", ".png", ".svg")
UPPER_RIGHT = ((4.5, 4.5), (10.0, 10.0), (16.0, 16.0))
"""Where the name of a point may stand, in points from it."""
AROUND = tuple((right * by, up * by) for by, _ in UPPER_RIGHT for right, up in ((1, 1), (-1, 1), (1, -1), (-1, -1)))


def plot_front(front: Front, path: Path | None, look: Look = PLAIN) -> Figure:
    """Draw a front of two goals, into a .png, .pdf or .svg file if one is named.

    ValueError for other suffixes or goal counts.

    What lies under the staircase is dominated. Bars are the 95 % Wilson intervals of the trials on the front, or the
    standard deviations over seeds. What a caption says, `caption` has.
    """
    if path is not None:
        check_suffix(path)
    if len(front.goals) != 2:
        raise ValueError(f"the figure needs two goals, these results have {len(front.goals)}: {front.goals}")
    if not front.trials:
        raise ValueError("the front is empty: nothing to draw")

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=look.size, dpi=200, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        _draw(axes, front, look)
        if look.title:
            axes.set_title(line(look.title), loc="left", fontsize=11, fontweight="bold")
        figure.draw_without_rendering()  # settles the layout, which the names are fitted into
        _annotate(axes, canvas, front, look)
        if path is not None:
            figure.savefig(path)
    return figure


def check_suffix(path: Path) -> None:
    """ValueError for a file that is no picture."""
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"cannot draw {path}: the suffix must be one of {', '.join(SUFFIXES)}")


def _draw(axes: Axes, front: Front, look: Look = PLAIN) -> None:
    """Points, bars, staircase and limits."""
    points, low, high = (_values(front, suffix) for suffix in ("", "_low", "_high"))
    others = front.others.points.reshape(-1, 2) * _scale(front)
    (left, right), (bottom, top) = _window(front, look)
    labels = [_fitted(goal_label(front, axis), look.size[axis]) for axis in (0, 1)]
    axes.set(xlim=(left, right), ylim=(bottom, top), xlabel=labels[0], ylabel=labels[1])
    axes.grid(color="#e8e8e8", linewidth=0.6)
    axes.set_axisbelow(True)
    if look.values is None:
        _draw_one(axes, front, points, low, high, others, look)
    else:
        keys = [(trial["study"], trial["trial_id"]) for trial in front.trials]
        keys += zip(front.others.studies, front.others.trial_ids, strict=True)
        bars = np.concatenate([np.abs(np.stack([low, high]) - points), np.zeros((2, len(others), 2))], axis=1)
        values = [look.values.get(key) for key in keys]
        names = {study: study_name(study, look.labels) for study in front.studies} if look.by == STUDY else {}
        figure_groups.draw(
            axes, np.concatenate([points, others]), bars, values, on_front=len(points), by=look.by or "", names=names
        )
    if front.searched:
        searched = front.searched.points * _scale(front)
        is_same = (front.searched.norm, front.searched.epsilon) == (front.norm, front.epsilon)
        how = front.searched._replace(norm=None, epsilon=None) if is_same else front.searched
        _draw_searched(axes, how, searched, points)
    if look.references:
        _draw_references(axes, front, look.references)
    axes.legend(
        loc="best" if look.references else "lower left",  # which published points may lie on as well
        fontsize=8,
        handletextpad=0.3,
        borderaxespad=0.4,
        framealpha=0.8,
        edgecolor="none",
    )


def _fitted(label: str, inches: float) -> str:
    """The label in lines that an axis of a figure so large has room for."""
    letters = max(12, int((inches - 0.6) * 15))  # of 9 points, some 15 an inch
    return "\n".join(each for part in label.split("\n") for each in wrap(part, letters, break_on_hyphens=False))


def _draw_one(axes: Axes, front: Front, points: Floats, low: Floats, high: Floats, others: Floats, look: Look) -> None:
    """All trials in one colour, the front in another."""
    left, bottom = axes.get_xlim()[0], axes.get_ylim()[0]
    stairs = figure_groups.staircase(points, left, bottom)
    axes.fill_between(*stairs, bottom, step="pre", color=FRONT, alpha=0.06, linewidth=0, zorder=0)
    axes.step(*stairs, where="pre", color=FRONT, linewidth=1.1, alpha=0.8, zorder=2)
    few = min(1.0, 100 / max(len(others), 1)) ** 0.5  # 1 up to 100 trials, 0.1 at 10,000
    axes.scatter(
        others[:, 0],
        others[:, 1],
        s=5 + 9 * few,
        color=OTHER,
        alpha=0.08 + 0.42 * few,
        linewidth=0,
        zorder=1,
        rasterized=len(others) > 2000,  # a vector file of 10,000 dots is slow to open
    )
    draw_settings(axes, front, points, others)
    is_setting = np.array([trial.get("dial") is not None for trial in front.trials])
    bars = np.abs(np.stack([low, high]) - points)
    name = line(next(iter(look.labels.values()), "front"))
    label = f"{name}, {_of_bars(front)}" if np.any(high > low) else name
    for which, marker, label_of in ((~is_setting, "o", label), (is_setting, "D", "setting of a dial")):
        if not which.any():
            continue
        axes.errorbar(
            points[which, 0],
            points[which, 1],
            xerr=bars[:, which, 0],
            yerr=bars[:, which, 1],
            fmt=marker,
            color=FRONT,
            markersize=5.8 if marker == "o" else 4.6,
            markeredgecolor="white",
            markeredgewidth=0.7,
            ecolor=(FRONT, 0.45),
            elinewidth=0.7,
            zorder=4,
            label=label_of,
        )
    if len(others):
        axes.scatter([], [], s=12, color=OTHER, alpha=0.5, linewidth=0, label="dominated")


def _of_bars(front: Front) -> str:
    return "mean and standard deviation over seeds" if front.over_seeds else "95 % Wilson intervals"


def _draw_references(axes: Axes, front: Front, references: Sequence[Reference]) -> None:
    """Stars, with their standard deviations where they have some."""
    points, sds = _of_references(front, references)
    axes.errorbar(
        points[:, 0],
        points[:, 1],
        xerr=sds[:, 0],
        yerr=sds[:, 1],
        fmt="*",
        color=TEXT,
        markersize=6.5,
        markeredgecolor="white",
        markeredgewidth=0.5,
        ecolor=(TEXT, 0.5),
        elinewidth=0.7,
        zorder=3,
        label="published",
    )


def _of_references(front: Front, references: Sequence[Reference]) -> tuple[Floats, Floats]:
    """Their accuracies and standard deviations [R, 2] in percent; one that is not said is 0."""
    names = [goal.removesuffix("_accuracy") for goal in front.goals]
    points = [[getattr(each, goal) for goal in front.goals] for each in references]
    sds = [[getattr(each, f"{name}_sd") or 0.0 for name in names] for each in references]
    return 100 * np.array(points).reshape(-1, 2), 100 * np.array(sds).reshape(-1, 2)


def _window(front: Front, look: Look) -> list[tuple[float, float]]:
    """The limits of both axes."""
    low, high = _values(front, "_low"), _values(front, "_high")
    others = front.others.points.reshape(-1, 2) * _scale(front)
    searched = front.searched.points * _scale(front) if front.searched else low
    points, sds = _of_references(front, look.references)
    return _limits(
        np.concatenate([low, searched, points - sds]), np.concatenate([high, searched, points + sds]), others
    )


def _draw_searched(axes: Axes, searched: Searched, before: Floats, points: Floats) -> None:
    """What the search measured of each trial on the front, hollow, and a line from there to the front."""
    for (x0, y0), (x1, y1) in zip(before, points, strict=True):
        axes.plot([x0, x1], [y0, y1], color=GREY, linewidth=0.6, linestyle=":", zorder=3)
    label = line(f"in the search: {attack_label(searched)}, {searched.split} split")
    axes.scatter(
        before[:, 0], before[:, 1], s=26, facecolor="none", edgecolor=GREY, linewidth=0.9, zorder=3, label=label
    )


def _scale(front: Front) -> Floats:
    """Accuracies are drawn in percent."""
    return np.array([100.0 if goal in ACCURACIES else 1.0 for goal in front.goals])


def _values(front: Front, suffix: str) -> Floats:
    """float [F, 2] of the trials on the front; an unknown bound is the value itself, a bar of no length."""
    values = np.array([[trial[goal] for goal in front.goals] for trial in front.trials], dtype=np.float64)
    if front.over_seeds:
        sds = np.array([[trial[f"{goal}_sd"] or 0.0 for goal in front.goals] for trial in front.trials])
        return np.asarray((values + {"": 0, "_low": -1, "_high": 1}[suffix] * sds) * _scale(front))
    bounds = np.array([[trial[goal + suffix] for goal in front.goals] for trial in front.trials], dtype=np.float64)
    return np.asarray(np.where(np.isnan(bounds), values, bounds) * _scale(front))


def _limits(low: Floats, high: Floats, others: Floats) -> list[tuple[float, float]]:
    """Both axes show the whole front, and of the others those less than two fronts away from it."""
    limits = []
    for axis in (0, 1):
        start, end = low[:, axis].min(), high[:, axis].max()
        span = max(end - start, 1e-3 * max(abs(end), 1.0))
        start = min([start, *others[others[:, axis] > start - 2 * span, axis]])
        margin = 0.05 * max(end - start, span)
        limits.append((float(start - margin), float(end + margin)))
    return limits


def _annotate(axes: Axes, canvas: FigureCanvasAgg, front: Front, look: Look = PLAIN) -> None:
    """Name the trials on the front, to the upper right where nothing else lies, and the references, on any side; omit
    what does not fit."""
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

    renderer = canvas.get_renderer()  # type: ignore[no-untyped-call]
    references, _ = _of_references(front, look.references)
    points = np.concatenate([_values(front, ""), references])
    names = [_name(trial, front, look) for trial in front.trials] + [each.label for each in look.references]
    radius = 3.5 * canvas.figure.dpi / 72
    legend = axes.get_legend()
    taken = [Bbox.from_extents(*(at - radius), *(at + radius)) for at in axes.transData.transform(points)]
    taken += [legend.get_window_extent(renderer)] if legend else []
    sides = [UPPER_RIGHT] * len(front.trials) + [AROUND] * len(look.references)
    for name, point, places in zip(names, points, sides, strict=True):
        for offset in places:
            text = axes.annotate(
                name,
                (point[0], point[1]),
                offset,
                textcoords="offset points",
                fontsize=7,
                color=TEXT,
                zorder=5,
                ha="left" if offset[0] > 0 else "right",
                va="baseline" if offset[1] > 0 else "top",
                arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3}
                if abs(offset[0]) > 5
                else None,
                bbox={"boxstyle": "square,pad=0.05", "facecolor": (1, 1, 1, 0.6), "edgecolor": "none"},
            )
            text.update_positions(renderer)
            box = Text.get_window_extent(text, renderer).padded(1)  # of the name alone, without its line
            is_inside = axes.bbox.contains(*box.max) and axes.bbox.contains(*box.min)
            if is_inside and not any(box.overlaps(each) for each in taken):
                taken.append(box)
                break
            text.remove()


def _name(trial: dict[str, Any], front: Front, look: Look) -> str:
    name = str(trial["trial_id"] if trial["number"] is None else trial["number"]) + at_setting(trial)
    several = look.by != STUDY and len({each["study"] for each in front.trials} | set(front.others.studies)) > 1
    return line(f"{study_name(trial['study'], look.labels)} {name}" if several else name)


def caption(front: Front, look: Look = PLAIN) -> str:
    """What a caption of the figure says: how many trials, the hypervolume, the bars, and where references are from."""
    trials = len(front.trials) + len(front.others.trial_ids)
    of = f"{front.coverage or f'{trials:,} trial' + 's' * (trials != 1)}"
    if front.settings and front.coverage:
        of = f"{front.coverage.evaluated:,} of {front.coverage.trials:,} trials, {front.settings} settings of dials"
    if front.over_seeds:
        of = f"{trials:,} configurations, each the mean over its seeds"
    parts = [
        f"{of}, {len(front.trials)} on the front",
        f"hypervolume {front.hypervolume:.4g} above ({', '.join(f'{x:g}' for x in front.reference_point)})",
    ]
    (left, right), (bottom, top) = _window(front, look)
    others = front.others.points.reshape(-1, 2) * _scale(front)
    if outside := int(((others < [left, bottom]) | (others > [right, top])).any(axis=1).sum()):
        parts.append(f"{outside} outside the axes")
    if np.any(_values(front, "_high") > _values(front, "_low")):
        parts.append(f"bars: {_of_bars(front)}")
    if look.references:
        sources = list(dict.fromkeys(each.source.split(", model_info")[0] for each in look.references))
        noted: dict[str, list[str]] = {}
        for each in look.references:
            if each.note:
                noted.setdefault(each.note, []).append(each.label)
        parts += [f"published points: {line('; '.join(sources))}"]
        parts += [line(f"{note} ({_some(labels)})") for note, labels in noted.items()]
    return "; ".join(parts)


def _some(labels: Sequence[str]) -> str:
    """The first of them, and how many more."""
    return ", ".join(labels[:3]) + (f" and {len(labels) - 3} more" if len(labels) > 3 else "")
