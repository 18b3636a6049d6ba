"""Learning-rate factors at points worked by hand."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from arat_ray.training.schedules import Cosine, OneCycle, Piecewise, Schedule


def factors(spec: Piecewise, epochs: int) -> list[float]:
    """One factor an epoch, epoch 1 first."""
    return [spec.factor(epoch=epoch, epochs=epochs, progress=epoch / epochs) for epoch in range(epochs)]


def test_the_default_over_100_epochs_is_that_of_the_authors() -> None:
    expected = [0.2] + [1.0] * 75 + [0.1] * 15 + [0.01] * 9  # epochs 1, 2-76, 77-91, 92-100
    assert factors(Piecewise(), 100) == pytest.approx(expected)


def test_decays_are_shares_of_the_run() -> None:
    assert factors(Piecewise(), 25) == pytest.approx([0.2] + [1.0] * 18 + [0.1] * 4 + [0.01] * 2)
    halves = Piecewise(warmup_epochs=0, decays=(0.5,), decay_factor=0.5)
    assert factors(halves, 6) == pytest.approx([1, 1, 1, 0.5, 0.5, 0.5])
    assert factors(Piecewise(warmup_epochs=2, decays=()), 4) == pytest.approx([0.2, 0.2, 1, 1])


@pytest.mark.parametrize("percent", range(1, 100))
def test_a_decay_after_so_many_percent_of_100_epochs_comes_after_so_many_epochs(percent: int) -> None:
    spec = Piecewise(warmup_epochs=0, decays=(percent / 100,))
    assert factors(spec, 100) == pytest.approx([1.0] * percent + [0.1] * (100 - percent))


@pytest.mark.parametrize(
    ("spec", "progress", "expected"),
    [
        (Cosine(), 0, 1),
        (Cosine(), 1 / 3, 0.75),  # (1 + cos 60 degrees) / 2
        (Cosine(), 1 / 2, 0.5),
        (Cosine(), 2 / 3, 0.25),
        (Cosine(), 1, 0),
        (Cosine(final=0.1), 1 / 2, 0.55),  # 0.1 + 0.9 / 2
        (Cosine(final=0.1), 1, 0.1),
        (Cosine(warmup=0.2), 0, 0),
        (Cosine(warmup=0.2), 0.1, 0.5),
        (Cosine(warmup=0.2), 0.2, 1),
        (Cosine(warmup=0.2), 0.6, 0.5),  # half of what is left
        (OneCycle(), 0, 0.04),
        (OneCycle(), 0.15, 0.52),  # half way from 0.04 to 1
        (OneCycle(), 0.3, 1),
        (OneCycle(), 0.65, 0.5),
        (OneCycle(), 1, 0),
        (OneCycle(peak=0.5, start=0, final=0.2), 0.25, 0.5),
        (OneCycle(peak=0.5, start=0, final=0.2), 0.75, 0.6),
    ],
)
def test_points_worked_by_hand(spec: Cosine | OneCycle, progress: float, expected: float) -> None:
    for epoch in (0, 7):  # how far the run has come is all that counts
        assert spec.factor(epoch=epoch, epochs=10, progress=progress) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", ["piecewise", "cosine", "one_cycle"])
def test_every_schedule_has_a_name_and_stays_between_0_and_1(name: str) -> None:
    spec: Any = TypeAdapter(Schedule).validate_python({"name": name})
    for epoch in range(10):
        for progress in (epoch / 10, epoch / 10 + 0.099):
            assert 0 <= spec.factor(epoch=epoch, epochs=10, progress=progress) <= 1


@pytest.mark.parametrize(
    "bad", [{"name": "piecewise", "decays": [1.2]}, {"name": "one_cycle", "peak": 0}, {"name": "cosine", "warmup": 1}]
)
def test_shares_beyond_the_run_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="than"):
        TypeAdapter(Schedule).validate_python(bad)


@pytest.mark.parametrize("epochs", [1, 2, 3, 7, 10, 25, 97, 100, 110, 150])
@pytest.mark.parametrize(
    "spec",
    [
        Piecewise(),
        Piecewise(warmup_epochs=0, decays=(0.7, 0.9)),
        Piecewise(warmup_epochs=5, decays=(0.55, 0.55, 0.91, 1.0)),
        Piecewise(warmup_epochs=0, decays=(0.0, 0.75)),
        Piecewise(warmup_epochs=200, decays=()),
    ],
)
def test_the_stretches_of_a_run_are_its_epochs_one_by_one(spec: Piecewise, epochs: int) -> None:
    written = [0.0] * epochs
    for first, last, factor in spec.stretches(epochs):
        written[first - 1 : last] = [factor] * (last - first + 1)
    assert written == factors(spec, epochs)


@pytest.mark.parametrize(
    ("spec", "epochs", "spelled"),
    [
        (Piecewise(warmup_epochs=0, decays=(0.7, 0.9)), 10, "0.1 in epochs 1-7, 0.01 in 8-9, 0.001 in 10"),
        (Piecewise(), 10, "0.02 in epoch 1, 0.1 in 2-8, 0.01 in 9-10"),
        (Piecewise(), 1, "0.02 in epoch 1"),
        (
            Piecewise(),
            10**9,
            "0.02 in epoch 1, 0.1 in 2-760000000, 0.01 in 760000001-910000000, 0.001 in 910000001-1000000000",
        ),
        (Cosine(), 20, "0.1, falling to 0 at the end as half a cosine"),
        (
            Cosine(warmup=0.1, final=0.01),
            20,
            "0 rising to 0.1 after 2 of 20 epochs, falling to 0.001 at the end as half a cosine",
        ),
        (OneCycle(), 20, "0.004 rising to 0.1 after 6 of 20 epochs, falling to 0 at the end"),
    ],
)
def test_the_rate_of_each_epoch_is_spelled_out(spec: Any, epochs: int, spelled: str) -> None:
    assert spec.spelled(0.1, epochs) == spelled


def test_many_decays_are_spelled_in_one_line() -> None:
    spec = Piecewise(warmup_epochs=0, decays=tuple(share / 50 for share in range(1, 50)))
    assert spec.spelled(0.1, 100).endswith("1e-07 in 13-14, ..., 1e-50 in 99-100")
