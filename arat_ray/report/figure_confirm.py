"""The figure of a confirmation: the front over seeds as bands, members with error bars, what was selected hollow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from arat_ray.frontier.confirm import Confirmation
from arat_ray.frontier.confirmed_dials import MeanCurve
from arat_ray.frontier.dominance import Floats
from arat_ray.report.figure_dial import SETTINGS
from arat_ray.report.figure_style import FRONT, GREY, OTHER, TEXT, style
from arat_ray.report.labels import goal_label
from arat_ray.results.schema import ACCURACIES
from arat_ray.text import line

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_confirmation(confirmation: Confirmation, path: Path) -> None:
    """Draw a confirmation of two goals. Bars are one standard deviation over the seeds."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    assert len(confirmation.goals) == 2
    with style():
        figure = Figure(figsize=(5.6, 4.4), dpi=200, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        _draw(axes, confirmation)
        axes.set_title(line(confirmation.folder.name), loc="left", fontsize=11, fontweight="bold", pad=19)
        seeds = f"{len(confirmation.seeds)} new seed{'s' * (len(confirmation.seeds) > 1)}"
        confirmed = f"{len(confirmation.confirmed)} of {len(confirmation.members)} members confirmed"
        axes.annotate(
            f"{seeds} of {confirmation.epochs} epochs; {confirmed}; mean and standard deviation",
            (0, 1),
            (0, 6),
            xycoords="axes fraction",
            textcoords="offset points",
            fontsize=8,
            color=GREY,
        )
        figure.savefig(path)


def _draw(axes: Axes, confirmation: Confirmation) -> None:
    goals, trained = confirmation.goals, [member for member in confirmation.members if member.mean]
    means, stds, selected = (
        100 * np.array([[values[goal] if values else 0.0 for goal in goals] for values in column]).reshape(-1, 2)
        for column in (
            [member.mean for member in trained],
            [member.std for member in trained],
            [member.selected for member in trained],
        )
    )
    surfaces = [100 * points for points in confirmation.surfaces]
    curves = [_curve(each) for each in confirmation.dials] if goals == ACCURACIES else []
    ends = [curve.points + sign * curve.bars[:, :, side] for curve in curves for sign, side in ((-1, 0), (1, 1))]
    corners = np.concatenate([means - stds, means + stds, selected, *surfaces, *ends])
    low, high = corners.min(axis=0), corners.max(axis=0)
    margin = 0.06 * np.maximum(high - low, 0.5)
    (left, bottom), (right, top) = low - margin, high + margin
    axes.set(xlim=(left, right), ylim=(bottom, top), xlabel=goal_label(confirmation, 0))
    axes.set_ylabel(goal_label(confirmation, 1))
    axes.grid(color="#e8e8e8", linewidth=0.6)
    axes.set_axisbelow(True)

    x = np.unique(np.concatenate([[left, right], *(points[:, 0] for points in surfaces)]))
    heights = [_height(points, x, bottom) for points in surfaces]
    best, worst = heights[0], heights[-1] if len(heights) == len(confirmation.seeds) else np.full_like(x, bottom)
    axes.fill_between(x, worst, best, step="pre", color=OTHER, alpha=0.13, linewidth=0, label="best to worst seed")
    low, high = (_height(100 * confirmation.surface(percent), x, bottom) for percent in (75, 25))
    axes.fill_between(x, low, high, step="pre", color=OTHER, alpha=0.18, linewidth=0, label="25 to 75 % of the seeds")
    median = _height(100 * confirmation.surface(50), x, bottom)
    axes.step(x, median, where="pre", color=OTHER, linewidth=1.2, label="at least half of the seeds")

    for curve in curves:
        axes.errorbar(
            curve.points[:, 0],
            curve.points[:, 1],
            xerr=curve.bars[:, 0].T,
            yerr=curve.bars[:, 1].T,
            fmt="D-",
            color=SETTINGS,
            markersize=3,
            markerfacecolor="white",
            linewidth=0.9,
            ecolor=(SETTINGS, 0.35),
            elinewidth=0.7,
            zorder=3,
            label=None if curve is not curves[0] else "dials over the seeds, 95 %",
        )
    for (x0, y0), (x1, y1) in zip(selected, means, strict=True):
        axes.plot([x0, x1], [y0, y1], color=GREY, linewidth=0.6, linestyle=":", zorder=3)
    axes.scatter(
        selected[:, 0],
        selected[:, 1],
        s=30,
        facecolor="none",
        edgecolor=GREY,
        linewidth=0.9,
        zorder=3,
        label="as selected",
    )
    groups = {"confirmed": (True, FRONT), "not confirmed": (False, GREY)}
    for label, (is_confirmed, color) in groups.items():
        rows = [i for i, member in enumerate(trained) if member.is_confirmed == is_confirmed]
        if rows:
            axes.errorbar(
                means[rows, 0],
                means[rows, 1],
                xerr=stds[rows, 0],
                yerr=stds[rows, 1],
                fmt="o",
                color=color,
                markersize=5,
                elinewidth=0.8,
                ecolor=(color, 0.5),
                zorder=4,
                label=label,
            )
    for member, point in zip(trained, means, strict=True):
        at = (float(point[0]), float(point[1]))
        axes.annotate(str(member.number), at, (4, 4), textcoords="offset points", fontsize=7, color=TEXT, zorder=5)
    axes.legend(loc="lower left", fontsize=7, handletextpad=0.4, framealpha=0.8, edgecolor="none")


class _Curve(NamedTuple):
    points: Floats  # [S, 2], in percent
    bars: Floats  # [S, 2, 2]: of each axis how far down and up the interval reaches


def _curve(curve: MeanCurve) -> _Curve:
    means = [(each.clean, each.robust) for each in curve.settings]
    bars = [
        [((m.value - m.low), (m.high - m.value)) if m.low is not None and m.high is not None else (0, 0) for m in each]
        for each in means
    ]
    return _Curve(100 * np.array([[m.value for m in each] for each in means]), 100 * np.array(bars, dtype=np.float64))


def _height(points: Floats, x: Floats, bottom: float) -> Floats:
    """float [N]: how high a surface [P, 2] lies at x [N]; `bottom` right of it."""
    above = points[None, :, 0] >= x[:, None]
    return np.asarray(np.where(above, points[None, :, 1], bottom).max(axis=1, initial=bottom))
