"""Lengths in pixel units, read and written as papers write them."""

from __future__ import annotations

import re

import pytest

from arat_ray.pixels import format_pixels, parse_fraction, radius


@pytest.mark.parametrize(
    ("text", "value"), [("8/255", 8 / 255), ("0.2", 0.2), ("7.5/255", 7.5 / 255), (" 1 / 4 ", 0.25)]
)
def test_a_radius_is_a_fraction_or_a_number(text: str, value: float) -> None:
    assert radius(text) == value


@pytest.mark.parametrize("text", ["", "8/", "8/0", "abc", "nan", "inf", "0", "-1", "1/2/3"])
def test_what_is_no_radius_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"--epsilon: {text!r} is no radius; write it as 8/255")):
        radius(text)


def test_what_is_no_fraction_stays_as_it_is_and_nothing_is_divided_by_zero() -> None:
    assert [parse_fraction(value) for value in ("8/255", "stage4", 0.2, None)] == [8 / 255, "stage4", 0.2, None]
    with pytest.raises(ValueError, match="8/0 divides by zero"):
        parse_fraction("8/0")


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (8 / 255, "8/255"),
        (2 / 255, "2/255"),
        (0.5 / 255, "0.5/255"),
        (128 / 255, "128/255"),
        (300 / 255, "300/255"),
        (0.2, "0.2"),
        (0.3, "0.3"),
        (0.5, "0.5"),
        (2.0, "2"),
        (0.0123, "0.0123"),
        (0.0123456, "0.0123456"),
    ],
)
def test_a_radius_is_written_as_it_was_meant_and_read_again(value: float, written: str) -> None:
    assert format_pixels(value) == written
    assert radius(written) == pytest.approx(value, rel=1e-6)
