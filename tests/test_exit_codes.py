"""Exit codes are a promise to scripts: these numbers stay."""

from __future__ import annotations

from arat_ray import exit_codes
from arat_ray.experiment.spec import Budget


def test_the_numbers_stay_as_they_are() -> None:
    names = ("FAILED", "BAD_INPUT", "NOT_SAVED", "RAY_GONE", "NOT_FOUND", "INTERRUPTED")
    assert [getattr(exit_codes, name) for name in names] == [1, 2, 3, 9, 127, 130]
    assert exit_codes.BUDGETS == {"hours": 4, "device_hours": 5, "usd": 6, "stall": 7, "max_failures": 8, "gain": 10}


def test_each_budget_but_the_number_of_trials_has_its_own() -> None:
    assert set(exit_codes.BUDGETS) == set(Budget.model_fields) - {"trials"}
    assert len(set(exit_codes.MEANINGS)) == 1 + 6 + len(exit_codes.BUDGETS)
