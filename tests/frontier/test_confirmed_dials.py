"""Curves of dials over seeds: means, Student's interval, and the area that a curve has more than what is deployed."""

from __future__ import annotations

import io
from dataclasses import replace
from math import sqrt
from pathlib import Path

import pytest
from rich.console import Console

from arat_ray.frontier.confirm import Confirmation, as_json
from arat_ray.frontier.confirmed_dials import Mean, MeanCurve, mean_curve, mean_of
from arat_ray.report.confirmed_dials import print_curves
from arat_ray.report.figure_confirm import plot_confirmation
from tests.frontier.test_confirm import confirmation, study  # noqa: F401

CURVES = {
    1: {0.0: (0.90, 0.50), 0.5: (0.94, 0.45), 1.0: (0.96, 0.10)},
    2: {0.0: (0.88, 0.54), 0.5: (0.90, 0.50), 1.0: (0.98, 0.20)},
    3: {0.0: (0.92, 0.46), 0.5: (0.92, 0.46), 0.25: (0.93, 0.46)},  # without 1.0
}
GAINS = [0.04 * 0.45, 0.02 * 0.50, 0.0]


def curve() -> MeanCurve:
    found = mean_curve(7, CURVES)
    assert found is not None
    return found


def test_the_interval_is_that_of_students_table() -> None:
    mean, low, high = mean_of([0.1, 0.2, 0.6])
    deviation = sqrt((0.2**2 + 0.1**2 + 0.3**2) / 2)
    assert low is not None
    assert high is not None
    assert (mean, high - mean) == pytest.approx((0.3, 4.302653 * deviation / sqrt(3)))
    assert mean - low == pytest.approx(high - mean)
    assert mean_of([0.1]) == Mean(0.1, None, None)


def test_settings_that_every_seed_has_are_averaged_and_the_gain_is_paired() -> None:
    found = curve()
    assert (found.number, found.seeds, [each.dial for each in found.settings]) == (7, [1, 2, 3], [0.0, 0.5])
    assert found.settings[1].clean.value == pytest.approx(0.92)
    assert found.settings[1].robust.value == pytest.approx(0.47)
    areas = [at_0[0] * at_0[1] + gain for (at_0, gain) in zip((c[0.0] for c in CURVES.values()), GAINS, strict=True)]
    assert found.hypervolume == pytest.approx(mean_of(areas))
    assert found.gain == pytest.approx(mean_of(GAINS))


def test_without_the_deployed_network_there_is_no_gain_and_without_a_common_setting_no_curve() -> None:
    apart = {seed: {dial: point for dial, point in each.items() if dial} for seed, each in CURVES.items()}
    found = mean_curve(7, apart)
    assert found is not None
    assert found.gain is None
    assert mean_curve(7, {1: {0.0: (0.9, 0.5)}, 2: {1.0: (0.9, 0.5)}}) is None
    assert mean_curve(7, {1: {}, 2: {}}) is None


def test_they_are_printed_drawn_and_in_json(study: Path) -> None:  # noqa: F811
    found: Confirmation = replace(confirmation(study), dials=[curve()])
    console = Console(file=io.StringIO(), width=200)
    print_curves(found.dials, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "92.0 [87.0, 97.0]" in text
    gain, low, high = mean_of(GAINS)
    assert f"over 3 seed(s); {gain:.4f} [{low:.4f}, {high:.4f}] more than what is deployed" in text
    plot_confirmation(found, study / "confirm.svg")
    assert "dials over the seeds, 95 %" in (study / "confirm.svg").read_text()
    (json,) = as_json(found)["dials"]
    assert json["settings"][0]["clean"]["value"] == pytest.approx(0.9)
