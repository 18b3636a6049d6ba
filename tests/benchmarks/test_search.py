"""The search problems of benchmarks/search, and a short search of each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from problems import Crossing, Problem, Surrogate
from quality import STRATEGIES, simulate

from arat_ray.frontier.dominance import hypervolume
from arat_ray.study.curve_record import space_of

PROBLEMS = [Surrogate, Crossing]


@pytest.mark.parametrize("kind", PROBLEMS)
def test_no_trial_lies_beyond_the_front_that_is_called_true(kind: type[Problem]) -> None:
    problem, draw = kind(), np.random.default_rng(0)
    space, last = space_of(problem.experiment.search), problem.experiment.base.epochs
    ends = [problem.truth(space.sample(draw.random(len(space.knobs))), last) for _ in range(1500)]
    assert 0.85 < hypervolume(ends, [0, 0]) / problem.best < 1


@pytest.mark.parametrize("kind", PROBLEMS)
@pytest.mark.parametrize("name", ["curves + expected_gain", "TPE + pareto_asha"])
def test_a_search_is_simulated(name: str, kind: type[Problem], tmp_path: Path) -> None:
    problem = kind()
    run = simulate(problem, STRATEGIES[name](problem, 0, tmp_path), 0, 7 * problem.experiment.base.epochs)
    assert 0 < run.share[-1] < 1
    assert run.trials[-1] >= 3
