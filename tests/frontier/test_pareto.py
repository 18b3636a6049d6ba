from __future__ import annotations

import io
import itertools
import re
import shlex
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from rich.console import Console

from arat_ray.frontier.dominance import hypervolume, non_dominated, wilson
from arat_ray.frontier.pareto import Front, load_front
from arat_ray.report import printing
from arat_ray.results.schema import Metadata
from arat_ray.study.tables import StudyTables

Floats = npt.NDArray[np.float64]


def dominated_by_definition(points: Floats) -> list[bool]:
    """The definition, read aloud: O(N^2)."""
    return [any(all(b >= a) and any(b > a) for b in points) for a in points]


def volume_by_inclusion_exclusion(points: Floats, reference: Floats) -> float:
    """Of the union of the boxes between the reference and each point, over all 2^N - 1 subsets."""
    total = 0.0
    for size in range(1, len(points) + 1):
        for chosen in itertools.combinations(points, size):
            sides = np.clip(np.min(chosen, axis=0) - reference, 0, None)
            total += (-1) ** (size + 1) * float(np.prod(sides))
    return total


# ------------------------------------------------------------------------------------------ domination


def test_a_small_front_by_hand() -> None:
    points = [[0.9, 0.4], [0.8, 0.5], [0.8, 0.4], [0.7, 0.5], [0.6, 0.6], [0.9, 0.3]]
    assert non_dominated(points).tolist() == [True, True, False, False, True, False]


@pytest.mark.parametrize("goals", [1, 2, 3, 4])
@pytest.mark.parametrize("levels", [3, 8, 1000])
@pytest.mark.parametrize("seed", range(5))
def test_the_front_is_what_the_definition_says(goals: int, levels: int, seed: int) -> None:
    points = np.random.default_rng(seed).integers(0, levels, (80, goals)) / levels
    assert non_dominated(points).tolist() == [not each for each in dominated_by_definition(points)]


def test_duplicates_of_a_non_dominated_point_are_all_on_the_front() -> None:
    assert non_dominated([[1, 2], [2, 1], [1, 2], [1, 1]]).tolist() == [True, True, True, False]
    assert non_dominated([[1, 2, 0], [1, 2, 0], [0, 2, 0]]).tolist() == [True, True, False]


def test_a_point_with_a_nan_is_never_on_the_front_and_dominates_nobody() -> None:
    points = [[np.nan, 9.0], [1.0, 1.0], [9.0, np.nan]]
    assert non_dominated(points).tolist() == [False, True, False]
    assert non_dominated([[np.nan, 1.0]]).tolist() == [False]


def test_no_points_have_no_front_and_infinite_ones_do() -> None:
    assert non_dominated(np.empty((0, 2))).tolist() == []
    assert non_dominated([[-np.inf, -np.inf], [-np.inf, np.inf]]).tolist() == [False, True]
    assert non_dominated([[-np.inf, -np.inf]]).tolist() == [True]
    with pytest.raises(ValueError, match=r"\[N, G\]"):
        non_dominated([0.5, 0.6])


# ----------------------------------------------------------------------------------------- hypervolume


def test_the_area_under_two_steps_by_hand() -> None:
    # 0.5 x 0.2 under the flat point, and 0.2 x (0.4 - 0.2) more under the steep one.
    assert hypervolume([[0.5, 0.2], [0.2, 0.4]], [0.0, 0.0]) == pytest.approx(0.14)
    assert hypervolume([[0.5, 0.2], [0.2, 0.4]], [0.1, 0.1]) == pytest.approx(0.4 * 0.1 + 0.1 * 0.2)


@pytest.mark.parametrize("goals", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("seed", range(6))
def test_the_volume_is_that_of_the_union_of_boxes(goals: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    points = draw.integers(0, 6, (9, goals)) / 5  # ties and duplicates among them
    reference = draw.uniform(-0.1, 0.3, goals)
    expected = volume_by_inclusion_exclusion(points, reference)
    assert hypervolume(points, reference) == pytest.approx(expected, abs=1e-12)


def test_many_points_agree_with_monte_carlo() -> None:
    draw = np.random.default_rng(0)
    points, darts = draw.uniform(0, 1, (60, 3)), draw.uniform(0, 1, (40_000, 3))
    hits = np.mean(np.any(np.all(darts[:, None, :] < points[None], axis=2), axis=1))
    assert hypervolume(points, [0, 0, 0]) == pytest.approx(hits, abs=0.01)


def test_points_not_better_than_the_reference_contribute_nothing() -> None:
    assert hypervolume([[0.9, 0.1], [0.1, 0.9], [0.3, 0.5]], [0.3, 0.3]) == 0.0
    assert hypervolume([[0.5, 0.5], [0.9, 0.1], [np.nan, 0.9]], [0.3, 0.3]) == pytest.approx(0.04)
    assert hypervolume(np.empty((0, 2)), [0.0, 0.0]) == 0.0


def test_dominated_points_and_their_order_do_not_matter() -> None:
    points = np.random.default_rng(1).uniform(0, 1, (50, 3))
    front = points[non_dominated(points)]
    assert hypervolume(points[::-1], [0, 0, 0]) == pytest.approx(hypervolume(front, [0, 0, 0]))


@pytest.mark.parametrize("goals", [2, 3, 4])
def test_a_point_that_adds_nothing_leaves_the_volume_bit_for_bit(goals: int) -> None:
    points = np.random.default_rng(2).uniform(0, 1, (30, goals))
    again = np.concatenate([points[:3], points[::-1], 0.5 * points[:5]])
    assert hypervolume(again, [0.0] * goals) == hypervolume(points, [0.0] * goals)


def test_hundreds_of_trials_with_five_goals_take_no_time() -> None:
    """Slicing takes half a minute for them; all lie on the front."""
    points = np.abs(np.random.default_rng(3).normal(size=(300, 5)))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    began = time.process_time()
    assert 0.08 < hypervolume(points, [0.0] * 5) < np.pi**2 / 60  # of the orthant of the unit ball
    assert time.process_time() - began < 2


def test_a_reference_with_another_number_of_goals_is_refused() -> None:
    with pytest.raises(ValueError, match=re.escape("[N, G] and [G]")):
        hypervolume([[0.5, 0.5]], [0.0, 0.0, 0.0])


# ---------------------------------------------------------------------------------------------- Wilson


def test_wilson_by_hand() -> None:
    # 8 of 10, z = 1.959964: centre (0.8 + 0.192073) / 1.384146 = 0.716740,
    # half 1.959964 / 1.384146 * sqrt(0.016 + 0.009604) = 0.226577
    low, high = wilson(8, 10)
    assert (float(low), float(high)) == pytest.approx((0.490163, 0.943317), abs=2e-6)


def test_wilson_bounds_solve_its_equation() -> None:
    """(p - q)^2 = z^2 q (1 - q) / n at both bounds q; 1.644854 is the 95th percentile of the normal."""
    correct, images = np.array([1, 517, 4090]), np.array([50, 1000, 5000])
    for bound in wilson(correct, images, confidence=0.90):
        np.testing.assert_allclose(
            (correct / images - bound) ** 2, 1.644854**2 * bound * (1 - bound) / images, rtol=1e-5
        )


def test_wilson_stays_inside_zero_and_one() -> None:
    low, high = wilson([0, 10], [10, 10])
    assert low[0] == pytest.approx(0.0, abs=1e-15)
    assert high[1] == pytest.approx(1.0)
    assert (low >= 0).all()
    assert (high <= 1).all()
    assert 0.2 < high[0] < 0.3
    assert 0.7 < low[1] < 0.8


@pytest.mark.parametrize(("correct", "images"), [(3, 0), (-1, 10), (11, 10)])
def test_impossible_counts_are_refused(correct: int, images: int) -> None:
    with pytest.raises(ValueError, match="between 0 and images"):
        wilson(correct, images)


# ----------------------------------------------------------------------------------- the front of studies

CONDITIONS = {"attack": "pgd-20", "norm": "linf", "epsilon": 8 / 255, "split": "validation", "images": 1000}


def write(
    folder: Path,
    *trials: dict[str, Any],
    params: dict[str, pa.DataType] | None = None,
    goals: tuple[str, ...] = ("clean_accuracy", "robust_accuracy"),
    reference: tuple[float, ...] = (0.0, 0.0),
) -> Path:
    metadata = Metadata(study=folder.name, goals=goals, reference_point=reference, revision="4f2a")
    writer = StudyTables(folder, params=params or {}, metadata=metadata)
    for number, row in enumerate(trials):
        known = {"trial_id": f"t{number}", "attempt": 0, "number": number, "status": "complete"}
        writer.trial(known | {"is_full_fidelity": True} | CONDITIONS | row)
    writer.flush()
    return folder


def accuracies(clean: float | None, robust: float | None, **changes: Any) -> dict[str, Any]:
    return {"clean_accuracy": clean, "robust_accuracy": robust} | changes


def numbers(front: Front) -> list[int]:
    return [trial["number"] for trial in front.trials]


def test_the_front_of_a_study_by_hand(tmp_path: Path) -> None:
    study = write(
        tmp_path / "layers",
        accuracies(0.8, 0.5, param_layers="stage4", param_depth=None, epochs_done=100, checkpoint="c/0"),
        accuracies(0.9, 0.4, param_layers="stage3", param_depth=2),
        accuracies(0.7, 0.4),
        accuracies(0.99, 0.99, status="stopped", is_full_fidelity=False),
        accuracies(None, None, status="running", is_full_fidelity=None),
        accuracies(0.99, None, status="failed"),
        params={"layers": pa.string(), "depth": pa.int64()},
    )
    front = load_front([study])
    assert numbers(front) == [1, 0]
    assert front.hypervolume == pytest.approx(0.9 * 0.4 + 0.8 * 0.1)
    assert (front.goals, front.reference_point) == (("clean_accuracy", "robust_accuracy"), (0.0, 0.0))
    assert (front.attack, front.norm, front.epsilon) == ("pgd-20", "linf", 8 / 255)
    assert (front.split, front.images) == ("validation", 1000)
    assert front.counts == {"complete": 3, "stopped": 1, "running": 1, "failed": 1}
    assert (front.others.studies, front.others.trial_ids) == ([str(study)], ["t2"])
    assert front.others.points.tolist() == [[0.7, 0.4]]
    best_robust = front.trials[1]
    assert best_robust["study"] == str(study)
    assert best_robust["params"] == {"layers": "stage4"}
    assert (best_robust["epochs_done"], best_robust["checkpoint"]) == (100, "c/0")
    low, high = wilson(500, 1000)
    assert (best_robust["robust_accuracy_low"], best_robust["robust_accuracy_high"]) == (low, high)


def test_partial_trials_compete_only_when_asked_for(tmp_path: Path) -> None:
    study = write(tmp_path, accuracies(0.8, 0.5), accuracies(0.9, 0.6, status="stopped", is_full_fidelity=False))
    assert numbers(load_front([study])) == [0]
    assert numbers(load_front([study], include_partial=True)) == [1]


def test_only_the_last_attempt_at_a_trial_counts(tmp_path: Path) -> None:
    again = accuracies(0.7, 0.5, trial_id="t0", attempt=1)
    front = load_front([write(tmp_path, accuracies(0.9, 0.6), again)])
    assert [(trial["trial_id"], trial["attempt"]) for trial in front.trials] == [("t0", 1)]
    assert front.counts == {"complete": 1}


def test_the_front_over_studies_with_different_params(tmp_path: Path) -> None:
    first = write(
        tmp_path / "a",
        accuracies(0.8, 0.5, param_beta=6.0),
        accuracies(0.6, 0.4, param_beta=3.0),
        params={"beta": pa.float64()},
    )
    second = write(tmp_path / "b", accuracies(0.85, 0.45, param_depth=2), params={"depth": pa.int64()})
    front = load_front([first, second])
    assert [(trial["study"], trial["params"]) for trial in front.trials] == [
        (str(second), {"depth": 2}),
        (str(first), {"beta": 6.0}),
    ]
    assert front.others.studies == [str(first)]


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"attack": "pgd-50"}, "attack (results/a: pgd-20; results/b: pgd-50)"),
        ({"norm": "l2"}, "norm (results/a: linf; results/b: l2)"),
        ({"epsilon": 0.5}, "epsilon"),
        ({"split": "test"}, "split (results/a: validation; results/b: test)"),
    ],
)
def test_studies_measured_differently_are_not_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], what: str
) -> None:
    monkeypatch.chdir(tmp_path)
    first = write(Path("results/a"), accuracies(0.8, 0.5))
    second = write(Path("results/b"), accuracies(0.9, 0.4, **changes))
    with pytest.raises(ValueError, match=re.escape(f"differ in {what}")):
        load_front([first, second])


@pytest.mark.parametrize(("other", "refused"), [("cifar100", True), ("cifar10", False), ("parquet", False)])
def test_studies_of_different_data_sets_are_not_compared(other: str, refused: bool, tmp_path: Path) -> None:
    config = '{"dataset": {"name": "%s"}}'
    first = write(tmp_path / "a", accuracies(0.8, 0.5, config=config % "cifar10"))
    second = write(tmp_path / "b", accuracies(0.9, 0.4, config=config % other))
    if refused:
        with pytest.raises(ValueError, match=r"differ in their data set \(.*a: cifar10; .*b: cifar100\)"):
            load_front([first, second])
    else:
        assert len(load_front([first, second]).trials) == 2


def test_studies_with_other_goals_or_another_reference_are_not_compared(tmp_path: Path) -> None:
    first = write(tmp_path / "a", accuracies(0.8, 0.5))
    robust = write(tmp_path / "b", accuracies(0.8, 0.5), goals=("robust_accuracy",), reference=(0.0,))
    moved = write(tmp_path / "c", accuracies(0.8, 0.5), reference=(0.1, 0.1))
    with pytest.raises(ValueError, match="differ in goals"):
        load_front([first, robust])
    with pytest.raises(ValueError, match="differ in reference point"):
        load_front([first, moved])


def test_different_image_counts_are_kept_apart_in_the_intervals(tmp_path: Path) -> None:
    front = load_front([write(tmp_path, accuracies(0.8, 0.5), accuracies(0.9, 0.4, images=100))])
    assert front.images is None
    widths = [trial["robust_accuracy_high"] - trial["robust_accuracy_low"] for trial in front.trials]
    assert widths[0] > 3 * widths[1]


def test_a_goal_that_is_no_accuracy_has_no_interval(tmp_path: Path) -> None:
    goals = ("robust_accuracy", "train_s")
    study = write(tmp_path, accuracies(0.8, 0.5, train_s=3.0), goals=goals)
    (trial,) = load_front([study]).trials
    assert (trial["train_s_low"], trial["train_s_high"]) == (None, None)
    assert trial["robust_accuracy_low"] < 0.5


def test_a_study_without_complete_trials_says_what_it_has(tmp_path: Path) -> None:
    running = accuracies(None, None, status="running")
    study = write(tmp_path / "s", running, running, accuracies(0.8, 0.5, status="failed"))
    with pytest.raises(ValueError, match=r"no complete trial .* in .*s \(1 failed, 2 running\)"):
        load_front([study])
    with pytest.raises(ValueError, match="no trial yet in"):
        load_front([write(tmp_path / "empty")])
    with pytest.raises(ValueError, match="no study given"):
        load_front([])


def test_a_study_without_a_complete_trial_names_the_command_that_shows_partial_ones(tmp_path: Path) -> None:
    study = write(tmp_path / "a study", accuracies(0.9, 0.6, status="stopped", is_full_fidelity=False))
    with pytest.raises(ValueError, match=r"no complete trial at full fidelity yet in .*1 stopped") as caught:
        load_front([study])
    command = str(caught.value).partition("the front of what they reached: ")[2]
    assert shlex.split(command) == ["arat-ray", "pareto", str(study), "--partial"]


@pytest.mark.parametrize("include_partial", [True, False])
def test_where_nothing_was_measured_partial_trials_are_no_help(include_partial: bool, tmp_path: Path) -> None:
    study = write(tmp_path, accuracies(None, None, status="running", is_full_fidelity=False))
    with pytest.raises(ValueError, match=r"no trial with a measurement yet in .*1 running") as caught:
        load_front([study], include_partial=include_partial)
    assert "--partial" not in str(caught.value)


def test_trials_that_would_be_on_the_front_before_their_last_epoch_are_counted_and_named(tmp_path: Path) -> None:
    pruned: dict[str, Any] = {"status": "pruned", "is_full_fidelity": False}
    study = write(
        tmp_path,
        accuracies(0.8, 0.5),
        accuracies(0.9, 0.6, **pruned),
        accuracies(0.7, 0.7, **pruned),
        accuracies(0.6, 0.4, **pruned),
        accuracies(0.8, 0.6, **pruned),
    )
    front = load_front([study])
    assert (front.ahead, load_front([study], include_partial=True).ahead) == (2, 0)
    file = io.StringIO()
    printing.print_table(front, Console(file=file, width=160))
    assert "2 trials before the last epoch would be on the front: `arat-ray pareto --partial` lets" in file.getvalue()
    complete = write(tmp_path / "b", accuracies(0.8, 0.5), accuracies(0.7, 0.4, **pruned))
    file = io.StringIO()
    printing.print_table(load_front([complete]), Console(file=file, width=160))
    assert "--partial" not in file.getvalue()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_after_a_search_it_is_said_that_robust_accuracy_is_a_bound_and_how_to_measure(
    norm: str, tmp_path: Path
) -> None:
    study = write(tmp_path / "my study", accuracies(0.8, 0.5, norm=norm, split="validation", epsilon=2 / 255))
    bound, measure, see, again = printing.next_steps(load_front([study]), study)
    assert bound.startswith("robust accuracy is an upper bound: stronger attacks than PGD-20, ")
    options = ["--norm", "l2"] if norm == "l2" else []
    assert shlex.split(measure.partition(": ")[2]) == [
        *("arat-ray", "evaluate", str(study), "--front", "--attack", "autoattack"),
        *(*options, "--epsilon", "2/255", "--split", "validation"),
    ]
    assert shlex.split(see.partition(": ")[2]) == [
        *("arat-ray", "pareto", str(study), "--attack", "autoattack", "--split", "validation")
    ]
    assert shlex.split(again.partition(": ")[2]) == ["arat-ray", "confirm", str(study), "--seeds", "3"]
