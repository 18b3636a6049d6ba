"""What the report of real searches makes of a study's tables."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from real import (
    SPACE,
    STRATEGIES,
    Measure,
    experiment,
    is_measured,
    measure,
    reached,
    read,
    report,
    study,
    under_autoattack,
    when,
)

from arat_ray.experiment.checks import problems
from arat_ray.frontier.dominance import hypervolume
from arat_ray.frontier.evaluations import Conditions
from arat_ray.results.schema import Metadata
from arat_ray.study.tables import StudyTables
from tests.frontier.tables import add, judged
from tests.training.data.pictures import image, png, write

GOALS = ("clean_accuracy", "robust_accuracy")
HOW = Measure(Conditions(attack="pgd-20", split="test"), Conditions(attack="autoattack", split="test"))
METADATA = Metadata(study="small", goals=GOALS, reference_point=(0.0, 0.0), revision="4f2a")


def at(minute: int) -> datetime:
    return datetime(2026, 1, 1, 12, minute, tzinfo=UTC)


@pytest.fixture
def ran(tmp_path: Path) -> Path:
    """Trial 0 ends whole after 3 epochs of all, 1 is stopped at the 5th, 2 ends whole at the 6th, 3 beyond."""
    writer = StudyTables(tmp_path / "small", params={}, metadata=METADATA, decisions=True)
    order = (0, 1, 0, 2, 1, 2, 3, 3)
    for i, number in enumerate(order):
        epoch = order[: i + 1].count(number)
        writer.epoch({"trial_id": f"small-{number:05d}", "attempt": 1, "epoch": epoch})
    goals = {0: (0.9, 0.5), 1: (0.5, 0.1), 2: (0.8, 0.6), 3: (0.95, 0.9)}
    for number, values in goals.items():
        status = "pruned" if number == 1 else "complete"
        row: dict[str, Any] = {"trial_id": f"small-{number:05d}", "attempt": 1, "number": number, "status": status}
        moments = {"started_at": at(number), "ended_at": at(number + 2), "device_s": 60.0}
        goal = dict(zip(GOALS, values, strict=True))
        writer.trial(row | {"epochs_done": 2, "is_full_fidelity": True, **goal, **moments})
    writer.flush()
    for number, verdicts in {0: "rrrrcccccx", 2: "rrrrrrccxx", 3: "rrrrrrrrrx"}.items():
        name, sha = f"small-{number:05d}", f"{number:012d}"
        judged(tmp_path / "small", name, verdicts, attack="pgd-20", checkpoint_sha256=sha)
        if number:
            judged(tmp_path / "small", name, verdicts[::-2], first=1, checkpoint_sha256=sha, key="attacked")
    return tmp_path / "small"


def test_what_a_study_had_after_so_many_epochs_on_validation_and_on_test(ran: Path) -> None:
    run = read(ran, 6, HOW)
    assert run.epochs.tolist() == [3, 6]
    assert (run.trials, run.device_s, run.wall_s) == (3, 180.0, 240.0)
    assert reached(run, 2) == (0.0, 0.0)
    assert reached(run, 5) == pytest.approx((0.45, 0.9 * 0.4))
    both = hypervolume([[0.9, 0.5], [0.8, 0.6]], [0, 0]), hypervolume([[0.9, 0.4], [0.8, 0.6]], [0, 0])
    assert reached(run, 6) == pytest.approx(both)
    assert (when(run, 0.45, 6), when(run, 0.5, 6), when(run, 0.9, 6)) == (0.5, 1.0, math.inf)


def test_the_members_at_the_end_are_under_autoattack_and_who_was_not_attacked_is_no_number(ran: Path) -> None:
    """Trial 0 is on the front and was not attacked; of trial 2 every other image was."""
    run = read(ran, 6, HOW)
    assert np.isnan(run.attacked[0]).all()
    assert run.attacked[1].tolist() == [0.8, 0.6]
    assert math.isnan(under_autoattack(run))
    whole = run._replace(attacked=np.array([[0.9, 0.2], [0.7, 0.4]]))
    assert under_autoattack(whole) == pytest.approx(0.9 * 0.2 + 0.7 * 0.2)


def test_the_report_has_what_was_reached_and_what_it_took(ran: Path) -> None:
    whole = read(ran, 6, HOW)._replace(attacked=np.array([[0.9, 0.2], [0.7, 0.4]]))
    asked = experiment("random", 0)
    asked = asked.model_copy(update={"budget": asked.budget.model_copy(update={"trials": 1})})
    assert asked.base.epochs == 9
    lines = list(report({"random": [whole, whole], "tpe": [whole]}, asked, HOW, SPACE.name))
    volume = hypervolume([[0.9, 0.5], [0.8, 0.6]], [0, 0])
    assert "| random | 2 | 0.0000 [0.0000, 0.0000] | 0.4500 [0.4500, 0.4500] | " in lines[8]
    assert lines[8].endswith(f"{volume:.4f} [{volume:.4f}, {volume:.4f}] | 3 |")
    assert "| TPE + pareto_asha | 1 | 0.3200 | 2 | 3.0 | 4.0 |" in lines
    assert f"{volume:.4f} on validation" in lines[-4]
    assert lines[-2:] == ["- random: 0.67, 0.67", "- TPE + pareto_asha: 0.67"]


@pytest.mark.ray
def test_a_study_is_run_to_its_budget_and_measured_and_not_once_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = tmp_path / "small.yaml"
    space.write_text(SPACE.read_text().replace("epochs: 9", "epochs: 2").replace("trials: 60", "trials: 2"))
    asked = experiment("random", 0, space)
    how = measure(asked, 40, 20)
    folder = study(asked, tmp_path, how)
    run = read(folder, 4, how)
    assert is_measured(run)
    assert len(run.checkpoints) == run.trials == 2
    assert 0 <= under_autoattack(run) <= reached(run, 4)[0] + 0.3
    assert "2 trials, 4 epochs" in capsys.readouterr().out
    assert not is_measured(read(folder, 4, measure(asked, 40, 30)))
    before = {path: path.stat().st_mtime_ns for path in (folder / "evaluations").iterdir()}
    study(asked, tmp_path, how)
    assert {path: path.stat().st_mtime_ns for path in (folder / "evaluations").iterdir()} == before


def test_a_trial_that_was_killed_between_two_epochs_has_not_ended_and_a_repeated_epoch_counts_once(ran: Path) -> None:
    add(ran, "trials", {"trial_id": "small-00003", "attempt": 1, "status": "running", "epochs_done": 2})
    add(ran, "epochs", {"trial_id": "small-00002", "attempt": 2, "epoch": 2})
    run = read(ran, 99, HOW)
    assert run.trials == 3
    assert run.epochs.tolist() == [3, 9]


def test_a_study_without_a_whole_trial_has_nothing_and_is_not_measured(ran: Path) -> None:
    run = read(ran, 2, HOW)
    assert (run.trials, run.wall_s, reached(run, 2)) == (0, 0.0, (0.0, 0.0))
    assert not is_measured(run)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_strategy_is_a_search_that_can_be_run_and_begins_with_the_same_point(strategy: str) -> None:
    spec = experiment(strategy, 3)
    assert problems(spec) == []
    assert spec.sampler is not None
    assert spec.sampler.seed == 3
    assert len(spec.first) == 1


def test_the_images_of_a_space_may_come_from_a_folder(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write(
            tmp_path / f"{split}.parquet",
            [png(image(n, size=(32, 32))) for n in range(40)],
            [n % 10 for n in range(40)],
        )
    space = tmp_path / "space.yaml"
    space.write_text(SPACE.with_name("cifar10.yaml").read_text().replace("images: 6000", "images: 30"))
    there = experiment("curves", 0, space, tmp_path).base.dataset
    assert (there.name, there.shape, there.images) == ("parquet", (3, 32, 32), 30)
    assert experiment("curves", 0, space).base.dataset.name == "cifar10"
