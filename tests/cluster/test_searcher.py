"""The searcher between Ray Tune and the trials of a study, without a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from arat_ray.cluster.searcher import StudySearcher
from arat_ray.experiment.spec import Experiment
from arat_ray.study.trials import StudyTrials
from tests.cluster.studies import EXPERIMENT
from tests.study.driving import opened


def test_a_trial_that_is_not_wanted_is_not_asked_for_and_the_search_ends_when_it_is_over(tmp_path: Path) -> None:
    experiment = Experiment.model_validate(EXPERIMENT)
    study_trials = StudyTrials(experiment, opened(tmp_path, experiment, warn=pytest.fail))
    now = {"wants": True, "over": False}
    given: list[int] = []

    def configure(asked: Any) -> Any:
        given.append(asked.number)
        return f"trial {asked.number}"

    searcher = StudySearcher(
        study_trials,
        configure,
        limit=None,
        log=pytest.fail,
        wait=lambda: pytest.fail("nothing has to be written"),
        over=lambda: now["over"],
        wants=lambda: now["wants"],
    )
    assert searcher.suggest("a") == "trial 0"
    now["wants"] = False
    assert searcher.suggest("b") is None
    assert study_trials.running == 1
    now["wants"] = True
    assert searcher.suggest("b") == "trial 1"
    now |= {"wants": False, "over": True}
    assert searcher.suggest("c") == searcher.FINISHED
    assert given == [0, 1]
