"""What is left of a front over new seeds: three members and two seeds, by hand."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

from arat_ray.frontier.confirm import Confirmation, as_json, is_finished, load, summaries
from arat_ray.report.figure_confirm import plot_confirmation
from arat_ray.report.printing import print_confirmation
from arat_ray.results.schema import Metadata
from arat_ray.study.tables import StudyTables

GOALS = ("clean_accuracy", "robust_accuracy")
SELECTED = [(0.95, 0.30), (0.90, 0.50), (0.80, 0.60)]
RUNS = {
    1: [(0.94, 0.28), (0.86, 0.52), (0.80, 0.50)],  # 2 is dominated by 1
    2: [(0.90, 0.20), (0.88, 0.44), (0.78, 0.56)],  # nobody is dominated
}
CONDITIONS = {"attack": "pgd-20", "norm": "linf", "epsilon": 0.2, "split": "validation", "images": 400}


def writer(folder: Path, *params: str) -> StudyTables:
    known = Metadata(study=folder.name, goals=GOALS, reference_point=(0.0, 0.0), revision="4f2a")
    return StudyTables(folder, params={name: pa.int64() for name in params}, metadata=known)


def row(study: str, number: int, point: tuple[float, float] | None, **more: Any) -> dict[str, Any]:
    """A trial that is complete, or failed where it has no point."""
    fixed = {"trial_id": f"{study}-{number:05d}", "attempt": 1, "number": number, "epochs_done": 2, **CONDITIONS}
    ended = {"status": "failed"} if point is None else dict(zip(GOALS, point, strict=True)) | {"status": "complete"}
    return fixed | ended | {"is_full_fidelity": point is not None, "config": '{"epochs": 2}'} | more


@pytest.fixture
def study(tmp_path: Path) -> Path:
    tables = writer(tmp_path / "small", "width")
    for number, point in enumerate(SELECTED):
        tables.trial(row("small", number, point, param_width=number))
    tables.flush()
    return tmp_path / "small"


def confirmation(study: Path, runs: dict[int, list[Any]] = RUNS, *more: dict[str, Any]) -> Confirmation:
    folder = study.parent / "small-confirm"
    tables = writer(folder, "member", "seed")
    trials = [(seed, member, point) for seed, points in runs.items() for member, point in enumerate(points)]
    for number, (seed, member, point) in enumerate(trials):
        tables.trial(row("small-confirm", number, point, param_member=member, param_seed=seed))
    for each in more:
        tables.trial(each)
    tables.flush()
    return load(study, folder)


def test_means_deviations_and_shares_are_over_the_new_seeds_alone(study: Path) -> None:
    found = confirmation(study)
    assert found.seeds == [1, 2]
    a, b, c = found.members
    assert a.mean == pytest.approx({"clean_accuracy": 0.92, "robust_accuracy": 0.24})
    assert a.std == pytest.approx({"clean_accuracy": 0.02 * 2**0.5, "robust_accuracy": 0.04 * 2**0.5})
    assert [member.share for member in (a, b, c)] == [1, 1, 0.5]
    assert [member.is_confirmed for member in (a, b, c)] == [True, True, True]
    assert a.optimism == pytest.approx({"clean_accuracy": 0.03, "robust_accuracy": 0.06})
    # 0.03, 0.03, 0.01 and 0.06, 0.02, 0.07 on average
    assert found.optimism == pytest.approx({"clean_accuracy": 0.07 / 3, "robust_accuracy": 0.05})
    assert c.params == {"width": 2}


def test_surfaces_are_those_that_one_and_both_seeds_attain(study: Path) -> None:
    found = confirmation(study)
    best = [[0.94, 0.28], [0.88, 0.44], [0.86, 0.52], [0.78, 0.56]]
    worst = [[0.90, 0.20], [0.88, 0.28], [0.86, 0.44], [0.78, 0.52]]  # (0.88, 0.28): below (0.94, 0.28), (0.88, 0.44)
    for percent, expected in {25: best, 50: best, 75: worst}.items():
        np.testing.assert_allclose(found.surface(percent), expected, atol=1e-12)


def test_a_member_that_is_mostly_dominated_is_not_confirmed_although_its_mean_may_be_on_the_front() -> None:
    """Seeds where it is just behind and one where it is far ahead: the share and the mean speak of different things."""
    ahead = {"clean_accuracy": 0.9, "robust_accuracy": 0.4}
    behind = {"clean_accuracy": 0.8, "robust_accuracy": 0.3}
    far = {"clean_accuracy": 0.99, "robust_accuracy": 0.99}
    originals = {0: row("small", 0, (0.9, 0.5)), 1: row("small", 1, (0.8, 0.6))}
    runs = {1: {0: ahead, 1: behind}, 2: {0: ahead, 1: behind}, 3: {0: ahead, 1: far}}
    first, second = summaries(originals, runs, GOALS)
    assert (first.share, second.share) == (2 / 3, 1 / 3)
    assert (first.is_confirmed, second.is_confirmed) == (True, False)
    assert (first.mean_is_on_front, second.mean_is_on_front) == (True, True)  # 0.9, 0.4 and 0.863, 0.53


def test_a_run_that_failed_is_on_no_front_and_in_no_mean(study: Path) -> None:
    found = confirmation(study, {1: [(0.9, 0.3), (0.8, 0.5), (0.7, 0.7)], 2: [None, (0.8, 0.5), None], 3: [None] * 3})
    a, b, c = found.members
    assert [(len(member.runs), member.share) for member in (a, b, c)] == [(1, 1 / 3), (2, 2 / 3), (1, 1 / 3)]
    assert a.std is None
    assert b.std == {"clean_accuracy": 0, "robust_accuracy": 0}
    assert [len(points) for points in found.surfaces] == [3, 1]  # all three seeds attain nothing
    assert found.surface(75).shape == (0, 2)
    text = printed(found)
    assert "1 of 3, 2 failed" in text
    assert "confirmed: 1 (1 of 3)" in text


def test_a_seed_with_which_not_every_member_has_ended_is_left_out(study: Path) -> None:
    unfinished = row("small-confirm", 6, (0.99, 0.99), param_member=0, param_seed=3)
    found = confirmation(study, RUNS, unfinished)
    assert (found.seeds, found.unfinished) == ([1, 2], 1)
    assert found.members == confirmation(study).members
    assert "1 more seed(s) are left out" in printed(found)


def printed(found: Confirmation) -> str:
    text = io.StringIO()
    print_confirmation(found, Console(file=text, width=160))
    return text.getvalue()


def test_the_table_says_what_was_selected_what_is_left_and_by_which_rule(study: Path) -> None:
    text = printed(confirmation(study))
    lines = {line.split()[0]: " ".join(line.split()) for line in text.splitlines() if line.strip()}
    assert lines["small-00000"] == "small-00000 95.0 92.0 +- 2.8 30.0 24.0 +- 5.7 2 of 2 yes yes"
    assert lines["small-00002"] == "small-00002 80.0 79.0 +- 1.4 60.0 53.0 +- 4.2 1 of 2 yes yes"
    assert (
        "confirmed: 0, 1, 2 (3 of 3), on the front that the members have with the same seed, in at least half" in text
    )
    assert "selected lies +2.3 (clean accuracy) and +5.0 (robust accuracy) points above the mean over seeds" in text
    assert "the selected runs are in no mean, because they were selected" in text


def test_shorter_runs_and_a_single_seed_are_said(study: Path) -> None:
    tables = writer(study, "width")
    tables.trial(row("small", 0, SELECTED[0], param_width=0, epochs_done=10))
    tables.flush()
    text = printed(confirmation(study, {1: RUNS[1]}))
    assert "the selected runs had 10, 2 epochs and these 2: part of the difference is theirs" in text
    assert "one seed has no standard deviation" in text
    assert "92.0" not in text
    assert " 94.0 " in text


def test_json_has_everything_in_fractions(study: Path) -> None:
    found = as_json(confirmation(study))
    assert found["confirmed"] == [0, 1, 2]
    assert found["surfaces"]["50"][0] == pytest.approx([0.94, 0.28])
    assert found["members"][1]["runs"][2] == {"clean_accuracy": 0.88, "robust_accuracy": 0.44}
    assert found["members"][1]["is_confirmed"]


@pytest.mark.parametrize("runs", [RUNS, {1: RUNS[1]}, {1: [None, (0.5, 0.5), None], 2: [None] * 3}], ids=len)
def test_the_figure_shows_bands_members_and_what_was_selected(runs: dict[int, list[Any]], study: Path) -> None:
    path = study.parent / "confirm.svg"
    plot_confirmation(confirmation(study, runs), path)
    text = path.read_text()
    for words in ("small-confirm", "as selected", "best to worst seed", "at least half of the seeds", "PGD-20, Linf"):
        assert words in text
    assert f"{len(runs)} new seed{'s' * (len(runs) > 1)} of 2 epochs" in text


def test_what_is_no_confirmation_or_has_no_whole_seed_is_named(study: Path) -> None:
    with pytest.raises(ValueError, match="is not a confirmation: its trials have no `param_member`"):
        load(study, study)
    running = row("small-confirm", 1, (0.5, 0.5), param_member=1, param_seed=1) | {"status": "running"}
    with pytest.raises(ValueError, match="no seed has ended with all of its 2 members yet; go on with it first"):
        confirmation(study, {1: [(0.9, 0.1)]}, running)
    with pytest.raises(ValueError, match=r"has members that .* has no trial of: 7"):
        confirmation(study, RUNS, row("small-confirm", 6, (0.5, 0.5), param_member=7, param_seed=1))


def test_it_is_finished_when_enough_trials_have_ended_and_none_is_open(study: Path) -> None:
    assert is_finished(study, 3)
    assert not is_finished(study, 4)
    assert not is_finished(study.parent / "nowhere", 1)
    confirmation(study, RUNS)
    assert is_finished(study.parent / "small-confirm", 6)
