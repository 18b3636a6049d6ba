"""The paper figure: every trial, the front as a staircase, and how sure we are of each point on it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from arat_ray.frontier.dominance import Floats
from arat_ray.frontier.pareto import Front, Searched, at_setting
from arat_ray.pixels import format_pixels
from arat_ray.results.schema import ACCURACIES
from arat_ray.text import line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

SUFFIXES = (".pdf", ".png", ".svg")

# Blue and orange of Okabe and Ito (2008), distinct under every common colour blindness; greys for the rest.
FRONT, TEXT, OTHER, GREY = "#D55E00", "#333333", "#0072B2", "#666666"
STYLE: dict[Any, Any] = {
    "font.size": 9.0,
    "axes.labelsize": 9.0,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "pdf.fonttype": 42,  # text stays text, as publishers ask
    "svg.fonttype": "none",
    "text.parse_math": False,  # a name with a dollar in it is a name
    "text.usetex": False,
}


@contextmanager
def style() -> Iterator[None]:
    """How figures look, whatever the user's matplotlibrc says; a name in letters that the font lacks is no warning."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def plot_front(front: Front, path: Path | None, *, title: str | None = None) -> Figure:
    """Draw a front of two goals, into a .png, .pdf or .svg file if one is named.

    ValueError for other suffixes or goal counts.

    What lies under the staircase is dominated. Bars are the 95 % Wilson intervals of the trials on the front.
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
        figure = Figure(figsize=(5.6, 4.4), dpi=200, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        outside = _draw(axes, front)
        heading = title or ", ".join(dict.fromkeys(_study_name(trial) for trial in front.trials))
        axes.set_title(line(heading), loc="left", fontsize=11, fontweight="bold", pad=19)
        axes.annotate(
            _caption(front, outside),
            (0, 1),
            (0, 6),
            xycoords="axes fraction",
            textcoords="offset points",
            fontsize=8,
            color=GREY,
        )
        figure.draw_without_rendering()  # settles the layout, which the names are fitted into
        _annotate(axes, canvas, front)
        if path is not None:
            figure.savefig(path)
    return figure


def check_suffix(path: Path) -> None:
    """ValueError for a file that is no picture."""
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"cannot draw {path}: the suffix must be one of {', '.join(SUFFIXES)}")


def _draw(axes: Axes, front: Front) -> int:
    """Points, bars, staircase and limits; how many trials the limits leave out."""
    points, low, high = (_values(front, suffix) for suffix in ("", "_low", "_high"))
    others = front.others.points.reshape(-1, 2) * _scale(front)
    searched = front.searched.points * _scale(front) if front.searched else points
    (left, right), (bottom, top) = _limits(np.minimum(low, searched), np.maximum(high, searched), others)
    axes.set(xlim=(left, right), ylim=(bottom, top), xlabel=goal_label(front, 0), ylabel=goal_label(front, 1))
    axes.grid(color="#e8e8e8", linewidth=0.6)
    axes.set_axisbelow(True)

    # Between two neighbours on the front only the right one dominates: the step falls at the left one.
    x, y = points[::-1].T
    stairs_x, stairs_y = np.concatenate([[left], x, x[-1:]]), np.concatenate([y[:1], y, [bottom]])
    axes.fill_between(stairs_x, stairs_y, bottom, step="pre", color=FRONT, alpha=0.06, linewidth=0, zorder=0)
    axes.step(stairs_x, stairs_y, where="pre", color=FRONT, linewidth=1.1, alpha=0.8, zorder=2)
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
    is_setting = np.array([trial.get("dial") is not None for trial in front.trials])
    bars = np.abs(np.stack([low, high]) - points)
    label = "front, 95 % Wilson intervals" if np.any(high > low) else "front"
    for which, marker, name in ((~is_setting, "o", label), (is_setting, "D", "setting of a dial")):
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
            label=name,
        )
    if front.searched:
        is_same = (front.searched.norm, front.searched.epsilon) == (front.norm, front.epsilon)
        how = front.searched._replace(norm=None, epsilon=None) if is_same else front.searched
        _draw_searched(axes, how, searched, points)
    if len(others):
        axes.scatter([], [], s=12, color=OTHER, alpha=0.5, linewidth=0, label="dominated")
    axes.legend(loc="lower left", fontsize=8, handletextpad=0.3, borderaxespad=0.4, framealpha=0.8, edgecolor="none")
    return int(((others < [left, bottom]) | (others > [right, top])).any(axis=1).sum())


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


def _study_name(trial: dict[str, Any]) -> str:
    return Path(trial["study"]).resolve().name


def _values(front: Front, suffix: str) -> Floats:
    """float [F, 2] of the trials on the front; an unknown bound is the value itself, a bar of no length."""
    values = np.array([[trial[goal] for goal in front.goals] for trial in front.trials], dtype=np.float64)
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


def _annotate(axes: Axes, canvas: FigureCanvasAgg, front: Front) -> None:
    """Name the trials on the front, to the upper right where nothing else lies; omit what does not fit."""
    from matplotlib.patheffects import withStroke
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

    renderer = canvas.get_renderer()  # type: ignore[no-untyped-call]
    points = _values(front, "")
    radius = 3.5 * canvas.figure.dpi / 72
    legend = axes.get_legend()
    taken = [Bbox.from_extents(*(at - radius), *(at + radius)) for at in axes.transData.transform(points)]
    taken += [legend.get_window_extent(renderer)] if legend else []
    for trial, point in zip(front.trials, points, strict=True):
        for offset in (4.5, 10, 16):
            text = axes.annotate(
                _name(trial, front),
                (point[0], point[1]),
                (offset, offset),
                textcoords="offset points",
                fontsize=7,
                color=TEXT,
                zorder=5,
                arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3}
                if offset > 5
                else None,
                path_effects=[withStroke(linewidth=1.5, foreground="white")],
            )
            text.update_positions(renderer)
            box = Text.get_window_extent(text, renderer).padded(1)  # of the name alone, without its line
            if axes.bbox.contains(*box.max) and not any(box.overlaps(each) for each in taken):
                taken.append(box)
                break
            text.remove()


def _name(trial: dict[str, Any], front: Front) -> str:
    name = str(trial["trial_id"] if trial["number"] is None else trial["number"]) + at_setting(trial)
    several = len({each["study"] for each in front.trials} | set(front.others.studies)) > 1
    return line(f"{_study_name(trial)} {name}" if several else name)


class _Attacked(Protocol):
    @property
    def attack(self) -> str | None: ...
    @property
    def norm(self) -> str | None: ...
    @property
    def epsilon(self) -> float | None: ...


class _Measured(_Attacked, Protocol):
    @property
    def goals(self) -> tuple[str, ...]: ...
    @property
    def split(self) -> str | None: ...
    @property
    def images(self) -> int | None: ...


def goal_label(measured: _Measured, axis: int) -> str:
    """A goal with everything that its number depends on."""
    goal = measured.goals[axis]
    if goal not in ACCURACIES:
        return line(goal.replace("_", " "))
    what = "Clean accuracy (%)"
    if goal == "robust_accuracy":
        what = f"Robust accuracy (%), {attack_label(measured)}"
    split = f"{measured.split} split" if measured.split else "unnamed split"
    return f"{line(what)}\n{line(split)}" + (f", n = {measured.images:,} images" if measured.images else "")


def attack_label(measured: _Attacked) -> str:
    """`PGD-20, Linf, 8/255 (0.031)`."""
    parts = [(measured.attack or "unnamed attack").replace("pgd", "PGD").replace("autoattack", "AutoAttack")]
    if measured.norm:
        parts.append(measured.norm.capitalize())
    if measured.epsilon is not None:
        radius = format_pixels(measured.epsilon)
        parts.append(f"{radius} ({measured.epsilon:.3f})" if "/" in radius else radius)
    return ", ".join(parts)


def _caption(front: Front, outside: int) -> str:
    trials = len(front.trials) + len(front.others.trial_ids)
    of = f"{front.coverage or f'{trials:,} trial' + 's' * (trials != 1)}"
    if front.settings and front.coverage:
        of = f"{front.coverage.evaluated:,} of {front.coverage.trials:,} trials, {front.settings} settings of dials"
    parts = [
        f"{of}, {len(front.trials)} on the front",
        f"hypervolume {front.hypervolume:.4g} above ({', '.join(f'{x:g}' for x in front.reference_point)})",
    ]
    if outside:
        parts.append(f"{outside} outside the axes")
    return "; ".join(parts)
