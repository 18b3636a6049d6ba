"""Numbers as people say them."""

import pytest

from arat_ray.units import duration, flop, number


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (7, "7 s"),
        (130, "2 min 10 s"),
        (3900, "1 h 5 min"),
        (0, "0 s"),
        (-3, "0 s"),
        (59.7, "1 min 0 s"),
        (3599.7, "1 h 0 min"),
        (30 * 3600, "30 h 0 min"),
        (12 * 86400 + 3 * 3600, "12 days 3 h"),
        (1e8, "3.2 years"),
        (1e9, "31.7 years"),
        (1e12, "31,688 years"),
        (float("inf"), "an unknown time"),
        (float("nan"), "an unknown time"),
    ],
)
def test_durations_read_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("operations", "text"),
    [
        (0, "0 FLOP"),
        (999, "999 FLOP"),
        (999.9, "1 kFLOP"),
        (3.2e10, "32 GFLOP"),
        (9.999e14, "1 PFLOP"),
        (1.5e15, "1.5 PFLOP"),
        (2.345e18, "2.35 EFLOP"),
        (1e30, "1,000,000 YFLOP"),
    ],
)
def test_operations_have_the_prefix_that_fits(operations: float, text: str) -> None:
    assert flop(operations) == text


@pytest.mark.parametrize(("value", "text"), [(0.25, "0.25"), (1.5, "1.5"), (278000.4, "278,000"), (0, "0")])
def test_large_numbers_have_no_exponent(value: float, text: str) -> None:
    assert number(value) == text
