"""The goal `dial_hypervolume`: the curve of a run's network, measured with its validation."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from arat_ray.training import checkpoint
from arat_ray.training.accuracy_counts import correctness
from arat_ray.training.data import splits
from arat_ray.training.dial import domain
from tests.training.runs import assert_same_bits, assert_same_rows, few_digits, last, make, run, run_in_parts, validate

ARAT = {"name": "arat", "invariance_weight": 3, "layers": ["bn3"]}
DIALS = [-0.25, 0.5, 1]
SWA = {"averaging": {"name": "swa", "start": 0.3, "norm_images": 40}}


@pytest.fixture(autouse=True)
def _digits(monkeypatch: pytest.MonkeyPatch) -> None:
    few_digits(monkeypatch, 140)


def area(points: list[tuple[float, float]]) -> float:
    """Of the union of the boxes between (0, 0) and the points, cell by cell."""
    xs, ys = (sorted({0.0, *(point[axis] for point in points)}) for axis in (0, 1))
    return sum(
        (x1 - x0) * (y1 - y0)
        for x0, x1 in pairwise(xs)
        for y0, y1 in pairwise(ys)
        if any(x >= x1 and y >= y1 for x, y in points)
    )


@pytest.mark.parametrize("options", [{}, SWA], ids=["last", "swa"])
def test_it_is_the_area_under_the_networks_that_the_checkpoint_has_at_these_settings(
    options: dict[str, Any], tmp_path: Path
) -> None:
    spec, measured = make(method=ARAT, epochs=3, **options), validate(80, dials=DIALS)
    row = run(spec, measured, tmp_path)[-1]
    state, held_out = last(tmp_path), measured.splits(spec.dataset).validation
    points = {}
    for t in (0, *DIALS):
        network = checkpoint.network(state, dial=t)
        (found,) = correctness(network, held_out, attack=measured.attack, seed=0, batch_size=256)
        points[t] = found.clean.double().mean().item(), found.robust.double().mean().item()
    assert row["validation_dial_hypervolume"] == pytest.approx(area(list(points.values())), abs=1e-12)
    assert row["validation_dial_clean_accuracy"] == {f"{t:g}": points[t][0] for t in sorted(points)}
    assert row["validation_dial_robust_accuracy"] == {f"{t:g}": points[t][1] for t in sorted(points)}


def test_measuring_it_leaves_the_training_alone_and_a_resumed_run_measures_the_same(tmp_path: Path) -> None:
    spec = make(method=ARAT, epochs=2)
    plain, whole = (run(spec, validate(40, dials=dials), tmp_path / f"{len(dials)}") for dials in ([], DIALS))
    assert "validation_dial_hypervolume" not in plain[-1]
    assert_same_bits(last(tmp_path / "0").method, last(tmp_path / "3").method)
    assert_same_rows(run_in_parts(spec, validate(40, dials=DIALS), tmp_path / "parts", 1), whole)


def test_a_setting_where_there_is_no_network_adds_nothing(tmp_path: Path) -> None:
    spec = make(method=ARAT, epochs=1)
    row = run(spec, validate(40, dials=[0.5, -1000]), tmp_path)[-1]
    defined = domain(last(tmp_path).method)
    assert defined is not None
    assert -1000 not in defined
    assert list(row["validation_dial_clean_accuracy"]) == ["0", "0.5"]


@pytest.mark.parametrize(
    ("method", "why"),
    [
        ({"name": "pgd_at"}, "method pgd_at trains no clean branch"),
        (ARAT | {"split_norm": False}, "there is one branch"),
    ],
    ids=["pgd_at", "arat"],
)
def test_a_run_without_two_branches_is_refused_before_it_reads_its_data(
    method: dict[str, Any], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(splits, "read")
    with pytest.raises(ValueError, match=f"^validate.dials: .*{why}"):
        run(make(method=method), validate(40, dials=DIALS), tmp_path)


def test_runs_from_before_stay_the_same_and_settings_are_named_once() -> None:
    assert "dials" not in validate(40).model_dump(mode="json")
    assert validate(40, dials=DIALS).model_dump(mode="json")["dials"] == DIALS
    for wrong in ([0.0], [0.5, 0.5], [float("nan")]):
        with pytest.raises(ValueError, match=r"dials"):
            validate(40, dials=wrong)
