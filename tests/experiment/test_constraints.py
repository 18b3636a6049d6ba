"""Constraints: which numbers can be bounded, and how a trial stands to the bounds."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from arat_ray.experiment import plan
from arat_ray.experiment.config import load
from arat_ray.experiment.constraints import Bound, check
from arat_ray.experiment.errors import ExperimentError
from tests.experiment.test_errors import GOOD


def bounds(**given: dict[str, Any]) -> dict[str, Bound]:
    return {name: Bound.model_validate(bound) for name, bound in given.items()}


def test_a_violation_is_a_share_of_the_bound_and_says_what_is_broken() -> None:
    constraints = bounds(robust_accuracy={"min": 0.4}, epoch_s={"min": 1, "max": 60})
    verdict = check(constraints, {"robust_accuracy": 0.3, "epoch_s": 75})
    assert verdict.violations == pytest.approx({"robust_accuracy.min": 0.25, "epoch_s.min": -74, "epoch_s.max": 0.25})
    assert verdict.broken == ["robust_accuracy 0.3 is below 0.4", "epoch_s 75 is above 60"]


def test_a_bound_that_is_met_exactly_is_satisfied_also_at_zero() -> None:
    constraints = bounds(robust_accuracy={"min": 0.4}, gradient_cosine={"min": 0})
    verdict = check(constraints, {"robust_accuracy": 0.4, "gradient_cosine": 0.0})
    assert verdict.broken == []
    assert max(verdict.violations.values()) <= 0
    assert (
        check(constraints, {"robust_accuracy": 0.4, "gradient_cosine": -0.5}).violations["gradient_cosine.min"] == 0.5
    )


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_a_number_that_is_missing_breaks_its_constraint(value: float | None) -> None:
    verdict = check(bounds(epoch_s={"max": 60}), {"epoch_s": value})
    assert verdict.violations == {"epoch_s.max": 1.0}
    assert verdict.broken == ["epoch_s was not measured"]


@pytest.mark.parametrize(
    ("constraints", "message"),
    [
        (
            "{robust_acuracy: {min: 0.4}}",
            "'robust_acuracy' is no number in trials or epochs; did you mean 'robust_acc",
        ),
        ("{status: {min: 0.4}}", "constraints: 'status' is no number in trials or epochs"),
        ("{robust_accuracy: {mn: 0.4}}", "constraints.robust_accuracy: unknown key 'mn'; did you mean 'min'?"),
        ("{robust_accuracy: {}}", "constraints.robust_accuracy: write {min: ...}, {max: ...} or both"),
        (
            "{robust_accuracy: {min: 40}}",
            "robust_accuracy.min: 40 is no accuracy, which lies in [0, 1]; did you mean 0.4?",
        ),
        ("{epoch_s: {min: 9, max: 3}}", "constraints.epoch_s: min 9 is above max 3, so nothing satisfies it"),
        (
            "{bn_divergence: {max: 3}}",
            "bn_divergence: is measured by diagnostics only; write `train: {diagnostics: {ev",
        ),
        ("{cost_usd: {max: 3}}", "constraints.cost_usd: needs a price"),
        ("{epoch_s: fast}", "constraints.epoch_s: must be a mapping"),
    ],
)
def test_a_constraint_that_cannot_be_judged_is_refused_with_one_line(
    constraints: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(f"{GOOD}constraints: {constraints}\n")
    with pytest.raises(ExperimentError) as error:
        load(path)
    (problem,) = error.value.problems
    assert message in problem


def test_the_plan_says_the_constraints_and_what_gp_makes_of_conditions(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(GOOD.replace("name: tpe", "name: gp") + "constraints: {epoch_s: {min: 1, max: 60}}\n")
    text = "\n".join(plan.describe(load(path)))
    assert "search: gp, 4 trials" in text
    assert "constraints: epoch_s at least 1 and at most 60" in text
    assert "note: gp" not in text
    assert "note: pareto_asha" not in text
    stopped = (
        path.read_text().replace("epochs: 2", "epochs: 3") + "early_stopping: {name: pareto_asha, min_epochs: 1}\n"
    )
    path.write_text(stopped)
    assert "note: pareto_asha ranks by the goals alone" in "\n".join(plan.describe(load(path)))
    path.write_text(stopped.partition("early_stopping")[0])
    path.write_text(path.read_text().replace("[1, 30]}", "[1, 30], when: {epochs: 2}}"))
    path.write_text(
        path.read_text().replace("search:\n", "search:\n  epochs: {choice: [2, 3]}\n").replace("first:", "# ")
    )
    path.write_text(path.read_text().replace("  - {method.inv", "#  - {method.inv"))
    assert "note: gp draws at random what has a `when`" in "\n".join(plan.describe(load(path)))


def test_constraints_are_part_of_what_makes_results_comparable_where_there_are_any(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(GOOD)
    assert "constraints" not in load(path).identity()
    path.write_text(f"{GOOD}constraints: {{epoch_s: {{max: 60}}}}\n")
    assert load(path).identity()["constraints"] == {"epoch_s": {"min": None, "max": 60.0}}


DIALS = ("validate: {every: 1", "validate: {dials: [-0.5, -0.25, 0.5], every: 1")


def test_the_curve_of_a_dial_may_be_the_goal_and_costs_what_its_settings_cost(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(
        f"{GOOD}maximize: [dial_hypervolume]\nconstraints: {{dial_hypervolume: {{min: 0.3}}}}\n".replace(*DIALS)
    )
    experiment = load(path)
    told = "\n".join(plan.describe(experiment))
    assert "likewise at the settings -0.5, -0.25, 0.5 of the dial, for dial_hypervolume above (0, 0)" in told
    assert "maximising dial_hypervolume" in told
    without = experiment.validation.model_copy(update={"dials": ()})
    training = plan.trial_flops(experiment.base, without.model_copy(update={"images": 0}), 1000)
    cost, before = (plan.trial_flops(experiment.base, each, 1000) for each in (experiment.validation, without))
    assert cost - training == pytest.approx(4 * (before - training))


ARAT = "{name: arat, invariance_weight: 1, layers: [bn3]}"
BRANCHES = "  method.split_norm: {choice: [true, false]}"
METHODS = f"  method: {{choice: {{trades: {{name: trades}}, arat: {ARAT}}}}}"


@pytest.mark.parametrize(
    ("searched", "message"),
    [
        (BRANCHES, "method.split_norm is false, so there is one branch"),
        (METHODS, "search.method: with method: 'trades': validate.dials: method trades trains no clean branch"),
    ],
    ids=["branches", "methods"],
)
def test_what_has_no_dial_is_refused_by_name(searched: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    start, _, end = GOOD.replace(*DIALS).partition("search:\n")
    path.write_text(f"{start}search:\n{searched}\n{end[end.index('validate:') :]}")
    with pytest.raises(ExperimentError) as error:
        load(path)
    (problem,) = error.value.problems
    assert message in problem
