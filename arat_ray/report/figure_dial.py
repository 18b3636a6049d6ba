"""The figure of dials: a line for each network through its settings, and how sure we are of each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from arat_ray.report.figure_style import COLOURS, TEXT, style
from arat_ray.report.labels import goal_label
from arat_ray.text import line

SETTINGS = COLOURS[2]

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from arat_ray.frontier.dial import Curve
    from arat_ray.frontier.dominance import Floats
    from arat_ray.frontier.pareto import Front


def plot_curves(curves: Sequence[Curve], path: Path) -> None:
    """Draw curves that were measured alike. Bars are 95 % Wilson intervals; what is deployed is filled.

    The branches are named by their settings, and so is each setting that no other of its network beats.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(5.6, 4.4), dpi=200, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        axes.set(xlabel=goal_label(curves[0], 0), ylabel=goal_label(curves[0], 1))
        axes.grid(color="#e8e8e8", linewidth=0.6)
        axes.set_axisbelow(True)
        for number, curve in enumerate(curves):
            _draw(axes, curve, COLOURS[number % len(COLOURS)])
        axes.legend(loc="lower left", fontsize=8, handletextpad=0.4, framealpha=0.8, edgecolor="none")
        figure.savefig(path)


def _draw(axes: Axes, curve: Curve, colour: str) -> None:
    points = 100 * curve.points
    bars = 100 * np.array(
        [
            [(share.value - share.low, share.high - share.value) for share in (each.clean, each.robust)]
            for each in curve.settings
        ]
    )
    axes.errorbar(
        points[:, 0],
        points[:, 1],
        xerr=bars[:, 0].T,
        yerr=bars[:, 1].T,
        fmt="o-",
        color=colour,
        markersize=4,
        markerfacecolor="white",
        linewidth=1.1,
        ecolor=(colour, 0.25),
        elinewidth=0.7,
        label=line(curve.name),
    )
    for setting, point, is_kept in zip(curve.settings, points, curve.on_front, strict=True):
        at = (float(point[0]), float(point[1]))
        if setting.dial == 0:
            axes.plot(*at, "o", color=colour, markersize=5.5, zorder=4)
        if is_kept or setting.dial in (0, 1):
            name = f"{setting.dial:.3g}"
            axes.annotate(name, at, (4, 4), textcoords="offset points", fontsize=7, color=TEXT, zorder=5)


def draw_settings(axes: Axes, front: Front, points: Floats, others: Floats) -> None:
    """A line through the settings of each trial's dial, of points [F, 2] on the front and others [M, 2]."""
    keys = [(trial["study"], trial["trial_id"], trial.get("dial")) for trial in front.trials]
    keys += zip(front.others.studies, front.others.trial_ids, front.others.dials, strict=False)
    curves: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    for (study, trial_id, dial), (x, y) in zip(keys, np.concatenate([points, others]).tolist(), strict=False):
        curves.setdefault((study, trial_id), []).append((dial or 0.0, x, y))
    dials = {key: sorted(settings) for key, settings in curves.items() if len(settings) > 1}
    label = "settings of dials" if len(dials) > 1 else "".join(f"dial of {trial_id}" for _, trial_id in dials)
    for number, settings in enumerate(dials.values()):
        _, x, y = zip(*settings, strict=True)
        axes.plot(
            x,
            y,
            "D-",
            label=line(label) if number == 0 else None,
            color=SETTINGS,
            markerfacecolor="white",
            markersize=3.6,
            linewidth=0.9,
            zorder=3,
        )
