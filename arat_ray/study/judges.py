"""Who decides at the rungs of a study, by the rule of its early stopping, with what was decided before."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from arat_ray.experiment.early_stopping import ExpectedGain
from arat_ray.experiment.spec import Experiment
from arat_ray.frontier import decisions
from arat_ray.frontier.gain_decision import GainDecision
from arat_ray.frontier.halving import Decision, Halving
from arat_ray.results.rows import DecisionRow

if TYPE_CHECKING:
    from arat_ray.frontier.curves import Curves
    from arat_ray.frontier.expected_gain import GainJudge


def open_judge(
    experiment: Experiment, rows: Iterable[DecisionRow], curves: Curves | None
) -> Halving | GainJudge | None:
    """None where no trial is stopped early; expected gain judges by the study's curves."""
    stopping = experiment.early_stopping
    if stopping is None:
        return None
    rungs, made = stopping.rungs(experiment.base.epochs), decisions.of_rows(rows, experiment.maximize)
    if isinstance(stopping, ExpectedGain):
        from arat_ray.frontier.expected_gain import GainJudge  # with scipy, which one run has no use for

        assert curves is not None
        judge = GainJudge(curves, rungs, slack=stopping.slack)
        judge.recall(each for each in made if isinstance(each, GainDecision))
        return judge
    halving = Halving(rungs, reduction_factor=stopping.reduction_factor)
    halving.recall(each for each in made if isinstance(each, Decision))
    return halving
