"""One member of a front: constraints, extremes and the knee, by hand on one small front."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from arat_ray.frontier.pareto import Front, load_front
from arat_ray.frontier.pick import bulges, pick
from arat_ray.report.printing import choice_lines
from arat_ray.results.schema import Metadata
from arat_ray.study.tables import StudyTables

# [clean, robust] of 400 images: trial 0 to 3 are the front, trial 4 is not on it
FRONT = [(0.98, 0.40), (0.97, 0.70), (0.96, 0.72), (0.90, 0.75), (0.96, 0.60)]
Make = Callable[[Sequence[tuple[float, float]]], Front]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def front(points: Sequence[tuple[float, float]]) -> Front:
        goals = ("clean_accuracy", "robust_accuracy")
        metadata = Metadata(study="small", goals=goals, reference_point=(0.0, 0.0), revision="4f2a")
        writer = StudyTables(tmp_path / "small", params={}, metadata=metadata)
        for number, point in enumerate(points):
            conditions = {"attack": "pgd-20", "norm": "linf", "epsilon": 0.2, "split": "validation", "images": 400}
            ended = {"status": "complete", "is_full_fidelity": True, **dict(zip(goals, point, strict=True))}
            writer.trial({"trial_id": f"small-{number:05d}", "attempt": 1, "number": number, **conditions, **ended})
        writer.flush()
        return load_front([tmp_path / "small"])

    return front


@pytest.mark.parametrize(
    ("least", "best", "number"),
    [
        (["robust_accuracy=0.7"], None, 1),  # trials 1 to 3 are so robust, of which trial 1 is the best clean
        (["robust_accuracy=70%"], None, 1),
        (["robust=70.1%"], None, 2),
        (["clean_accuracy=96%"], None, 2),
        (["clean=0.95", "robust=0.5"], "clean_accuracy", 1),
        (["clean=0.95", "robust=0.5"], "robust", 2),
        (["clean=0.95"], "clean", 0),
        ([], "clean_accuracy", 0),
        ([], "robust_accuracy", 3),
    ],
)
def test_the_member_is_the_best_of_those_that_satisfy_the_constraints(
    least: list[str], best: str | None, number: int, make: Make
) -> None:
    assert pick(make(FRONT), least=least, best=best).trial["number"] == number


def test_a_constraint_holds_for_exactly_the_accuracy_that_it_names(make: Make) -> None:
    """Divided by 100, 10.8 is more than the double nearest to 0.108, which 108 of 1,000 images are."""
    assert 10.8 / 100 > 108 / 1000
    assert pick(make([(0.9, 108 / 1000)]), least=["robust=10.8%"]).trial["number"] == 0


def test_the_reason_says_what_was_chosen_from_and_whether_noise_could_break_the_constraint(make: Make) -> None:
    front = make(FRONT)
    wide = pick(front, least=["robust=70%"])
    assert wide.reason == (
        "the best clean accuracy of the 3 of 4 members of the front with robust accuracy of at least 70 %; "
        "the 95 % interval of its robust accuracy reaches below that"
    )
    assert pick(front, least=["robust=60%"]).reason.endswith("with robust accuracy of at least 60 %")
    lines = choice_lines(wide, front)
    assert lines[0].startswith("small-00001 of ")
    assert "clean accuracy 97.0 [94.8, 98.3], robust accuracy 70.0 [65.3, 74.3] (%, 95 %)" in lines[0]
    assert lines[-1].startswith("robust accuracy: PGD-20, Linf, 0.2; validation split, 400 images; on its front: the")


def test_the_knee_is_farthest_above_the_line_between_the_extremes(make: Make) -> None:
    """Scaled, the front is (1, 0), (7/8, 6/7), (3/4, 32/35), (0, 1): trial 1 has u + v - 1 = 41/56, trial 2 93/140."""
    points = np.array(FRONT[:4])
    expected = [0, 41 / 56 / math.sqrt(2), 93 / 140 / math.sqrt(2), 0]
    np.testing.assert_allclose(bulges(points), expected, rtol=0, atol=1e-12)
    chosen = pick(make(FRONT), knee=True)
    assert chosen.trial["number"] == 1
    assert chosen.reason.startswith("the knee: 0.518 above the line between the extremes trial 0 and trial 3,")


def test_the_knee_is_the_distance_to_the_line_by_the_formula_for_two_points() -> None:
    points = np.array([(0.2, 9.0), (0.5, 8.0), (0.6, 4.0), (1.0, 1.0)])
    u, v = ((points - points.min(axis=0)) / np.ptp(points, axis=0)).T
    (x1, y1), (x2, y2) = (u[0], v[0]), (u[-1], v[-1])
    distance = np.abs((y2 - y1) * u - (x2 - x1) * v + x2 * y1 - y2 * x1) / math.hypot(y2 - y1, x2 - x1)
    np.testing.assert_allclose(np.abs(bulges(points)), distance, rtol=0, atol=1e-12)
    assert bulges(points)[2] < 0


@pytest.mark.parametrize(
    "points",
    [
        [(0.9, 0.5)],
        [(0.9, 0.5), (0.8, 0.6)],
        [(0.9, 0.5), (0.8, 0.6), (0.8, 0.6)],
        [(0.9, 0.5), (0.7, 0.6), (0.5, 0.9)],  # the third lies below the line: 0.5 + 0.25 < 1
        [(0.75, 0.25), (0.5, 0.5), (0.25, 0.75)],  # on the line
    ],
)
def test_a_front_that_does_not_bulge_has_no_knee(points: list[tuple[float, float]], make: Make) -> None:
    with pytest.raises(ValueError, match=r"the front has no knee: .*; choose with --min or --max"):
        pick(make(points), knee=True)


def test_equal_members_are_told_apart_by_their_number(make: Make) -> None:
    front = make([(0.8, 0.6), (0.9, 0.5), (0.9, 0.5)])
    assert pick(front, best="clean").trial["number"] == 1


@pytest.mark.parametrize(
    ("least", "best", "knee", "message"),
    [
        (
            ["robust=80%"],
            None,
            False,
            "no member of the front has robust accuracy of at least 80 %; the best is 75 % "
            "(trial 3, clean accuracy 90 %, robust accuracy 75 %)",
        ),
        (
            ["clean=97%", "robust=71%"],
            "clean",
            False,
            "no member of the front has clean accuracy of at least 97 % and robust accuracy of at least 71 % together; "
            "with clean accuracy of at least 97 %, the best robust accuracy is 70 % (trial 1, ",
        ),
        (["robust=85"], None, False, "--min robust=85: an accuracy lies in [0, 1], not at 85; did you mean 85%?"),
        (["robust=850"], None, False, "--min robust=850: an accuracy lies in [0, 1], not at 850; write 0.85 or 85%"),
        (["robust=nan"], None, False, "--min robust=nan: 'nan' is no number; write 0.85 or 85%"),
        (["robust=-1%"], None, False, "an accuracy lies in [0, 1], not at -1%; write 0.85 or 85%"),
        (["robust=1/0"], None, False, "'1/0' is no number"),
        (["robust=1e999999999"], None, False, "'1e999999999' is no number"),
        (["robust"], None, False, "--min robust: write GOAL=VALUE, such as robust_accuracy=60%"),
        (["robst_accuracy=1"], None, False, "--min: no goal 'robst_accuracy' in these results; did you mean 'robust_"),
        (["robust=0.1", "robust_accuracy=0.2"], None, False, "robust_accuracy is given twice"),
        (["robust=0.1", "clean=0.2"], None, False, "add --max clean_accuracy or --max robust_accuracy"),
        ([], "speed", False, "--max: no goal 'speed' in these results; known: clean_accuracy, robust_accuracy"),
        ([], None, False, "say which member: --min robust_accuracy=VALUE, --max clean_accuracy, or --knee"),
        ([], "clean", True, "--knee chooses by itself; leave --min and --max out"),
    ],
)
def test_what_cannot_be_chosen_is_refused_with_what_can(
    least: list[str], best: str | None, knee: bool, message: str, make: Make
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        pick(make(FRONT), least=least, best=best, knee=knee)
