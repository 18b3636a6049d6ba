"""Exit codes are a promise to scripts: these numbers stay."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from arat_ray import exit_codes
from arat_ray.experiment.config import load
from arat_ray.experiment.spec import Budget
from tests.cluster.studies import without_ray
from tests.study.conftest import EXPERIMENT
from tests.study.driving import DrivenTrials


def test_the_numbers_stay_as_they_are() -> None:
    names = ("FAILED", "BAD_INPUT", "NOT_SAVED", "RAY_GONE", "NOT_FOUND", "INTERRUPTED")
    assert [getattr(exit_codes, name) for name in names] == [1, 2, 3, 9, 127, 130]
    assert exit_codes.BUDGETS == {"hours": 4, "device_hours": 5, "usd": 6, "stall": 7, "max_failures": 8, "gain": 10}


def test_each_budget_but_the_number_of_trials_has_its_own() -> None:
    assert set(exit_codes.BUDGETS) == set(Budget.model_fields) - {"trials"}
    assert len(set(exit_codes.MEANINGS)) == 1 + 6 + len(exit_codes.BUDGETS)


@pytest.mark.parametrize("are_stopped", [False, True])
def test_a_search_whose_trials_have_all_failed_says_so_each_time(are_stopped: bool, tmp_path: Path) -> None:
    """Also that of a start that has nothing left to run; a trial that is stopped early has not failed."""
    file, folder = tmp_path / "small.yaml", tmp_path / "results"
    file.write_text(yaml.safe_dump(EXPERIMENT | {"budget": {"trials": 2}}))
    study_trials = DrivenTrials(folder / "small", load(file))
    for _ in range(2):
        number = study_trials.ask().number
        if are_stopped:
            study_trials.prune(number, "worse", {})
        else:
            study_trials.fail(number, "NaN")
    again = without_ray("tune", f"{file}", "--results", f"{folder}", "--resume")
    assert "all 2 trials" in again.stdout
    assert again.returncode == (0 if are_stopped else exit_codes.FAILED), again.stderr
