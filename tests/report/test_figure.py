from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from arat_ray.frontier.dominance import non_dominated, wilson
from arat_ray.frontier.pareto import Coverage, Front, Others
from arat_ray.report.figure import caption, plot_front
from arat_ray.report.labels import attack_label
from arat_ray.report.looks import Look

GOALS = ("clean_accuracy", "robust_accuracy")
MAGIC = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}


def make_front(points: Any, **changes: Any) -> Front:
    points = np.asarray(points, dtype=float)
    mask = non_dominated(points)
    goals = changes.get("goals", GOALS)
    trials = []
    for number in np.flatnonzero(mask):
        trial: dict[str, Any] = {"study": "results/layers", "trial_id": f"t{number}", "number": int(number)}
        for goal, value in zip(goals, points[number], strict=True):
            low, high = wilson(value * 1000, 1000) if goal in GOALS else (None, None)
            trial |= {goal: value, f"{goal}_low": low, f"{goal}_high": high}
        trials.append(trial)
    rest = int((~mask).sum())
    known: dict[str, Any] = {
        "goals": GOALS,
        "reference_point": (0.0,) * len(goals),
        "hypervolume": 0.4321,
        "attack": "pgd-20",
        "norm": "linf",
        "epsilon": 8 / 255,
        "split": "validation",
        "images": 1000,
        "trials": sorted(trials, key=lambda trial: -float(trial[goals[0]])),
        "others": Others(["results/layers"] * rest, [f"o{i}" for i in range(rest)], points[~mask]),
        "counts": {"complete": len(points)},
    }
    return Front(**(known | changes))


SMALL = [[0.85, 0.50], [0.82, 0.52], [0.80, 0.48]]


@pytest.mark.parametrize("suffix", MAGIC)
def test_each_suffix_gives_a_file_of_its_kind(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"front{suffix}"
    plot_front(make_front(SMALL), path)
    assert path.read_bytes().startswith(MAGIC[suffix])


def test_the_figure_says_under_which_conditions_it_holds(tmp_path: Path) -> None:
    plot_front(make_front(SMALL), tmp_path / "front.svg", Look(title="Which layers?"))
    text = (tmp_path / "front.svg").read_text()
    for words in (
        "Which layers?",
        "Robust accuracy (%), PGD-20, Linf, 8/255 (0.031)",
        "Clean accuracy (%)",
        "validation split, n = 1,000 images",
        "95 % Wilson",
    ):
        assert words in text


def test_what_a_caption_says_is_not_baked_in(tmp_path: Path) -> None:
    plot_front(make_front(SMALL), tmp_path / "front.svg")
    text = (tmp_path / "front.svg").read_text()
    assert "layers" not in text
    assert "hypervolume" not in text
    assert caption(make_front(SMALL)) == (
        "3 trials, 2 on the front; hypervolume 0.4321 above (0, 0); bars: 95 % Wilson intervals"
    )


def test_the_caption_of_evaluations_says_how_many_trials_have_one() -> None:
    front = make_front(SMALL, coverage=Coverage(3, 1200, True))
    assert "3 of 1,200 complete trials evaluated, 2 on the front; hypervolume" in caption(front)


def test_every_point_under_the_staircase_and_no_other_is_dominated(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    from arat_ray.report.figure import _draw

    front = make_front(np.random.default_rng(0).uniform(0.4, 0.6, (40, 2)))
    axes = Figure().add_subplot()
    _draw(axes, front)
    area = axes.collections[0].get_paths()[0]  # the shaded region under the line
    points = np.array([[trial[goal] for goal in GOALS] for trial in front.trials])
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    for x, y in np.random.default_rng(1).uniform([left, bottom], [right, top], (500, 2)):
        is_dominated = bool((points >= [x / 100, y / 100]).all(axis=1).any())
        assert area.contains_point((x, y)) == is_dominated


def test_trials_far_from_the_front_are_counted_instead_of_drawn() -> None:
    assert "1 outside the axes" in caption(make_front([*SMALL, [0.1, 0.1]]))


@pytest.mark.parametrize("points", [[[0.8, 0.5]], [[0.8, 0.5], [0.8, 0.5]], [[1.0, 0.0], [0.9, 0.0]]])
def test_fronts_of_a_single_place_are_drawn(tmp_path: Path, points: list[list[float]]) -> None:
    plot_front(make_front(points), tmp_path / "front.png")
    assert (tmp_path / "front.png").stat().st_size > 10_000


def test_hundreds_of_trials_are_drawn_with_names_that_do_not_overlap(tmp_path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation, Text

    from arat_ray.report.figure import _annotate, _draw

    angle = np.linspace(0.1, 1.4, 60)
    front = make_front(np.column_stack([np.sin(angle), np.cos(angle)]) * 0.5)
    figure = Figure(figsize=(5.6, 4.4), dpi=100)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _draw(axes, front)
    _annotate(axes, canvas, front)
    names = [text for text in axes.texts if isinstance(text, Annotation)]
    assert 10 < len(names) <= 60
    boxes = [Text.get_window_extent(name) for name in names]
    assert not any(boxes[i].overlaps(boxes[j]) for i in range(len(boxes)) for j in range(i))


def test_goals_that_are_no_accuracies_get_plain_labels(tmp_path: Path) -> None:
    front = make_front([[0.5, 3.0], [0.4, 9.0]], goals=("robust_accuracy", "images_per_s"))
    plot_front(front, tmp_path / "front.svg")
    assert "images per s" in (tmp_path / "front.svg").read_text()


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        ({}, "PGD-20, Linf, 8/255 (0.031)"),
        ({"norm": "l2", "epsilon": 0.5, "attack": "autoattack"}, "AutoAttack, L2, 0.5"),
        ({"norm": "l2", "epsilon": 128 / 255}, "PGD-20, L2, 128/255 (0.502)"),
        ({"norm": "l2", "epsilon": 1.0}, "PGD-20, L2, 1"),
        ({"epsilon": 0.03}, "PGD-20, Linf, 0.03"),
        ({"attack": None, "norm": None, "epsilon": None}, "unnamed attack"),
    ],
)
def test_the_attack_is_written_as_papers_write_it(changes: dict[str, Any], label: str) -> None:
    assert attack_label(make_front(SMALL, **changes)) == label


@pytest.mark.parametrize(
    ("front", "name", "message"),
    [
        (make_front(SMALL), "front.gif", "suffix must be one of .pdf, .png, .svg"),
        (make_front(SMALL), "front", "suffix must be one of"),
        (make_front([[0.5]], goals=("robust_accuracy",)), "front.png", "needs two goals"),
        (make_front(np.empty((0, 2))), "front.png", "the front is empty"),
    ],
)
def test_what_cannot_be_drawn_is_refused(tmp_path: Path, front: Front, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plot_front(front, tmp_path / name)


def test_drawing_needs_no_pyplot() -> None:
    code = (
        "import sys, pathlib, tempfile\n"
        "from arat_ray.frontier.pareto import Front, Others\n"
        "from arat_ray.report.figure import plot_front\n"
        "import numpy as np\n"
        "trial = dict(study='s', trial_id='t', number=0, a=1.0, b=2.0)\n"
        "trial |= dict.fromkeys(['a_low', 'a_high', 'b_low', 'b_high'])\n"
        "none = dict.fromkeys(['attack', 'norm', 'epsilon', 'split', 'images'])\n"
        "front = Front(goals=('a', 'b'), reference_point=(0, 0), hypervolume=2.0, trials=[trial],\n"
        "    others=Others([], [], np.empty((0, 2))), counts={}, **none)\n"
        "plot_front(front, pathlib.Path(tempfile.mkdtemp()) / 'front.png')\n"
        "assert not {'matplotlib.pyplot', 'pandas', 'torch', 'ray'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
