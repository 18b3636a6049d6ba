"""`early_stopping:` in an experiment file: what it stands for, and what cannot work."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from arat_ray.experiment import plan
from arat_ray.experiment.config import load
from arat_ray.experiment.early_stopping import ExpectedGain, ParetoAsha
from arat_ray.experiment.errors import ExperimentError
from arat_ray.experiment.spec import Experiment
from arat_ray.units import PREFIXES

FILE = """
name: small
train:
  dataset: {name: digits}
  model: {name: tiny, width: 2}
  epochs: 100
  batch_size: 64
  seed: 0
  attack: {name: pgd, norm: linf, epsilon: 8/255, step_size: 2/255, steps: 5}
  method: {name: pgd_at}
search:
  optimizer.learning_rate: {loguniform: [0.01, 1]}
validate: {every: 10, images: 437, attack: {name: pgd, norm: linf, epsilon: 8/255, step_size: 2/255, steps: 20}}
sampler: {name: tpe, seed: 0}
early_stopping: {name: pareto_asha, min_epochs: 10, reduction_factor: 3}
budget: {trials: 64}
"""
FLOP = re.compile(r"(\S+) ([kMGTPE]?)FLOP")


def write(folder: Path, **changes: str) -> Path:
    text = FILE
    for old, new in changes.items():
        line = next(line for line in FILE.splitlines() if line.strip().startswith(f"{old}:"))
        text = text.replace(line, new)
    path = folder / "small.yaml"
    path.write_text(text)
    return path


def problem(folder: Path, **changes: str) -> str:
    with pytest.raises(ExperimentError) as error:
        load(write(folder, **changes))
    (line,) = error.value.problems
    assert str(error.value).startswith(str(folder / "small.yaml"))
    return line


def stopping(fields: str) -> dict[str, str]:
    return {"early_stopping": f"early_stopping: {{name: pareto_asha, {fields}}}"}


@pytest.mark.parametrize(
    ("min_epochs", "reduction_factor", "epochs", "rungs"),
    [(10, 3, 100, [10, 30, 90]), (10, 3, 90, [10, 30]), (1, 2, 9, [1, 2, 4, 8]), (5, 10, 6, [5]), (7, 2, 7, [])],
)
def test_rungs_lie_before_the_last_epoch(min_epochs: int, reduction_factor: int, epochs: int, rungs: list[int]) -> None:
    spec = ParetoAsha(name="pareto_asha", min_epochs=min_epochs, reduction_factor=reduction_factor)
    assert spec.rungs(epochs) == rungs
    ends = list(spec.survival(epochs))
    assert [epoch for epoch, _ in ends] == [*rungs, epochs]
    assert sum(share for _, share in ends) == pytest.approx(1)


def test_a_file_with_early_stopping_loads_and_one_without_stops_nobody(tmp_path: Path) -> None:
    experiment = load(write(tmp_path))
    assert experiment.early_stopping == ParetoAsha(name="pareto_asha", min_epochs=10, reduction_factor=3)
    assert load(write(tmp_path, early_stopping="")).early_stopping is None
    assert experiment.without_search().early_stopping is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("min_epochs: 0", "early_stopping.min_epochs: must be at least 1, not 0"),
        ("min_epochs: 10, reduction_factor: 1", "early_stopping.reduction_factor: must be at least 2, not 1"),
        ("min_epochs: 10, reduction_factor: 2.5", "early_stopping.reduction_factor: must be a whole number, not 2.5"),
        ("min_epoch: 10", "early_stopping: unknown key 'min_epoch'; did you mean 'min_epochs'?"),
        ("reduction_factor: 3", "early_stopping.min_epochs: missing"),
        (
            "min_epochs: 100",
            "early_stopping.min_epochs: 100 is not below train.epochs (100), so no trial would stop; "
            "use 10, 20, 30, ... or 90",
        ),
        (
            "min_epochs: 25",
            "early_stopping.min_epochs: 25 is no multiple of validate.every (10), so nothing is measured at the rung; "
            "use 10, 20, 30, ... or 90, or validate.every: 5",
        ),
    ],
)
def test_what_cannot_work_is_refused_with_what_would(fields: str, message: str, tmp_path: Path) -> None:
    assert problem(tmp_path, **stopping(fields)) == message


def test_an_unknown_rule_is_refused_by_name(tmp_path: Path) -> None:
    line = problem(tmp_path, early_stopping="early_stopping: {name: asha, min_epochs: 10}")
    assert line == "early_stopping: unknown name 'asha'; did you mean 'pareto_asha'?"
    line = problem(tmp_path, early_stopping="early_stopping: pareto_asha")
    assert line == "early_stopping: must be a mapping; write {name: pareto_asha, ...}"


def test_a_run_that_is_measured_once_cannot_be_stopped_early(tmp_path: Path) -> None:
    line = problem(tmp_path, epochs="  epochs: 10")
    assert line.startswith("early_stopping.min_epochs: no epoch before the last one (10) is measured")
    assert "lower validate.every (10)" in line


def test_runs_of_different_lengths_do_not_meet_at_a_rung(tmp_path: Path) -> None:
    line = problem(tmp_path, search="search:\n  epochs: {choice: [50, 100]}")
    assert line == (
        "search.epochs: with epochs: 50: a run of 50 epochs is not comparable with one of 100 at the rungs of "
        "early_stopping; leave one of the two out"
    )


def test_a_study_with_other_rungs_is_another_experiment_and_old_studies_without_any_stay_the_same(
    tmp_path: Path,
) -> None:
    here = load(write(tmp_path)).identity()
    other = load(write(tmp_path, **stopping("min_epochs: 20, reduction_factor: 3"))).identity()
    assert here != other
    assert load(write(tmp_path, early_stopping="")).identity()["early_stopping"] is None


def lines_of(experiment: Experiment) -> tuple[list[str], list[str]]:
    return list(plan.describe(experiment)), list(plan.estimate(experiment))


def test_the_plan_says_when_trials_stop_and_that_its_cost_is_an_expectation(tmp_path: Path) -> None:
    described, estimated = lines_of(load(write(tmp_path)))
    assert (
        "  early stopping: pareto_asha, at the epochs 10, 30, 90 the best 1 in 3 by clean_accuracy and robust_accuracy "
        "goes on"
    ) in described
    assert not [line for line in described if "nsga2" in line]
    # 10 + 20/3 + 60/9 + 10/27 epochs; a measurement every ten epochs, so FLOPs are in proportion
    epochs = 10 + 20 / 3 + 60 / 9 + 10 / 27
    assert estimated[1] == (
        f"  early stopping: {epochs:.3g} of 100 epochs a trial expected, if 1 in 3 goes on at each rung; "
        "the first trials there go on more often"
    )
    found = [each for line in (estimated[0], estimated[2]) for each in FLOP.findall(line)]
    full, expected, most = (float(digits) * 1000 ** PREFIXES.index(prefix) for digits, prefix in found)
    assert most == pytest.approx(64 * full, rel=0.01)
    assert expected == pytest.approx(64 * full * epochs / 100, rel=0.01)
    assert estimated[2].endswith("if none were stopped")
    assert " expected, " in estimated[-1]


def test_the_plan_warns_of_a_sampler_that_learns_from_complete_trials_only(tmp_path: Path) -> None:
    described, _ = lines_of(load(write(tmp_path, sampler="sampler: {name: nsga2, seed: 0}")))
    assert any("nsga2 breeds from complete trials only" in line for line in described)


def test_without_early_stopping_the_plan_promises_nothing(tmp_path: Path) -> None:
    described, estimated = lines_of(load(write(tmp_path, early_stopping="")))
    assert not [line for line in [*described, *estimated] if "expected" in line or "early" in line]


def test_expected_gain_decides_at_its_rungs_and_the_plan_says_so(tmp_path: Path) -> None:
    experiment = load(
        write(tmp_path, early_stopping="early_stopping: {name: expected_gain, min_epochs: 10, rung_factor: 2}")
    )
    assert experiment.early_stopping == ExpectedGain(name="expected_gain", min_epochs=10, rung_factor=2, slack=0.4)
    assert experiment.early_stopping.rungs(100) == [10, 20, 40, 80]
    assert sum(share for _, share in experiment.early_stopping.survival(100)) == pytest.approx(1)
    described, estimated = lines_of(experiment)
    assert (
        "  early stopping: expected_gain, at the epochs 10, 20, 40, 80 a trial goes on that adds 0.4 of what a new one "
        "promises an epoch, in clean_accuracy and robust_accuracy"
    ) in described
    assert "of 100 epochs a trial expected, if 7 in 10 go on at each rung" in estimated[1]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("min_epochs: 10, slack: 2", "early_stopping.slack: must be at most 1.0, not 2"),
        (
            "min_epochs: 10, reduction_factor: 3",
            "early_stopping: unknown key 'reduction_factor'; did you mean 'rung_factor'?",
        ),
        (
            "min_epochs: 100",
            "early_stopping.min_epochs: 100 is not below train.epochs (100), so no trial would stop; "
            "use 10, 20, 30, ... or 90",
        ),
    ],
)
def test_expected_gain_that_cannot_work_is_refused(fields: str, message: str, tmp_path: Path) -> None:
    assert problem(tmp_path, early_stopping=f"early_stopping: {{name: expected_gain, {fields}}}") == message
