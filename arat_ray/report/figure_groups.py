"""Trials of a figure by what they are: a colour, a marker and a front for each group, or a scale of colours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from arat_ray.frontier.dominance import Floats, non_dominated
from arat_ray.report.figure_style import COLOURS, GREY, MARKERS, TEXT
from arat_ray.text import line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

REST = "others"
"""What the values that have no colour left are called."""


def draw(
    axes: Axes,
    points: Floats,
    bars: Floats,
    values: Sequence[Any],
    *,
    on_front: int,
    by: str,
    names: Mapping[Any, str],
) -> None:
    """Draw points [N, 2], the first `on_front` of which are the front, with bars [2, N, 2] below and above them.

    Numbers of more values than there are colours get a scale, and the front of all is drawn; other values, in words
    as `names` has them, a front each.
    """
    known = [value for value in values if value is not None]
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in known)
    if numbers and len(set(known)) > len(COLOURS):
        _draw_scale(axes, points, bars, np.array([np.nan if v is None else float(v) for v in values]), on_front, by)
        return
    common = [value for value, _ in Counter(known).most_common()]
    shown = common if len(common) <= len(COLOURS) else common[: len(COLOURS) - 1]
    order = list(names)
    shown = sorted(shown, key=order.index) if names else sorted(shown, key=(float if numbers else str))
    groups = {value: np.array([each == value for each in values], dtype=bool) for value in shown}
    rest = ~np.any(list(groups.values()), axis=0) if groups else np.ones(len(points), dtype=bool)
    labels = [names.get(value) or _words(value) for value in groups] + [REST] * bool(rest.any())
    for number, (label, mask) in enumerate(zip(labels, [*groups.values(), rest], strict=False)):
        is_rest = label == REST and number == len(groups)
        colour = GREY if is_rest else COLOURS[number]
        _draw_group(axes, points[mask], bars[:, mask], label, colour, MARKERS[-1 if is_rest else number])


def _draw_group(axes: Axes, points: Floats, bars: Floats, label: str, colour: str, marker: str) -> None:
    own = non_dominated(points)
    left, bottom = axes.get_xlim()[0], axes.get_ylim()[0]
    axes.step(*staircase(points[own], left, bottom), where="pre", color=colour, linewidth=1.0, alpha=0.8, zorder=2)
    axes.scatter(
        points[~own, 0],
        points[~own, 1],
        s=11,
        marker=marker,
        color=colour,
        alpha=0.35,
        linewidth=0,
        zorder=1,
        rasterized=len(points) > 2000,
    )
    axes.errorbar(
        points[own, 0],
        points[own, 1],
        xerr=bars[:, own, 0],
        yerr=bars[:, own, 1],
        fmt=marker,
        color=colour,
        markersize=5.2,
        markeredgecolor="white",
        markeredgewidth=0.6,
        ecolor=(colour, 0.4),
        elinewidth=0.7,
        zorder=4,
        label=line(label),
    )


def _draw_scale(axes: Axes, points: Floats, bars: Floats, values: Floats, on_front: int, by: str) -> None:
    from matplotlib.colors import LogNorm, Normalize

    known = values[~np.isnan(values)]
    is_wide = known.min() > 0 and known.max() / known.min() >= 50
    norm = (LogNorm if is_wide else Normalize)(known.min(), known.max())
    front = np.arange(len(points)) < on_front
    left, bottom = axes.get_xlim()[0], axes.get_ylim()[0]
    axes.step(*staircase(points[front], left, bottom), where="pre", color=TEXT, linewidth=1.0, alpha=0.7, zorder=2)
    axes.errorbar(
        points[front, 0],
        points[front, 1],
        xerr=bars[:, front, 0],
        yerr=bars[:, front, 1],
        fmt="none",
        ecolor=(TEXT, 0.4),
        elinewidth=0.7,
        zorder=3,
    )
    unknown = np.isnan(values)
    axes.scatter(points[unknown, 0], points[unknown, 1], s=14, color=GREY, marker="x", linewidth=0.8, zorder=1)
    for mask, size, edge, label in ((~front, 14, "none", None), (front, 38, TEXT, "front")):
        drawn = axes.scatter(
            points[mask & ~unknown, 0],
            points[mask & ~unknown, 1],
            c=values[mask & ~unknown],
            s=size,
            cmap="viridis",
            norm=norm,
            edgecolor=edge,
            linewidth=0.6,
            zorder=4 if label else 1,
            label=label,
            rasterized=len(points) > 2000,
        )
    bar = axes.figure.colorbar(drawn, ax=axes, label=line(by.replace("_", " ")), pad=0.02)
    bar.ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    bar.ax.yaxis.set_minor_formatter(lambda value, _: "")


def staircase(points: Floats, left: float, bottom: float) -> tuple[Floats, Floats]:
    """Corners of the steps under a front [P, 2]: between two neighbours only the right one dominates."""
    order = np.argsort(points[:, 0], kind="stable")
    x, y = points[order].T
    return np.concatenate([[left], x, x[-1:]]), np.concatenate([y[:1], y, [bottom]])


def _words(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
