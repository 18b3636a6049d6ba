"""Lengths in pixel units, where an image lies in [0, 1]: 8/255, as papers write a radius, read and written."""

from __future__ import annotations

import re
from math import isfinite
from typing import Literal

Norm = Literal["linf", "l2"]
"""How a distance between images is measured."""

_FRACTION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*/\s*(\d+(?:\.\d+)?)\s*")


def parse_fraction(value: object) -> object:
    """`"8/255"` as a float; anything else unchanged. ValueError for 8/0."""
    match = _FRACTION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return value
    if float(match[2]) == 0:
        raise ValueError(f"{value} divides by zero")
    return float(match[1]) / float(match[2])


def radius(words: str) -> float:
    """The number that --epsilon says, as 8/255 or 0.2; ValueError where it is none above zero."""
    try:
        value = float(str(parse_fraction(words)))
    except ValueError:
        value = 0.0
    if not (isfinite(value) and value > 0):
        raise ValueError(f"--epsilon: {words!r} is no radius; write it as 8/255 or 0.031")
    return value


def format_pixels(value: float) -> str:
    """8/255 for 0.03137, 0.5/255 for 0.00196, and 0.2 for 0.2, which is meant as 0.2 and not as 51/255."""
    levels = value * 255
    is_decimal = abs(value - round(value, 3)) < 1e-9
    return f"{value:g}" if is_decimal or abs(levels - round(levels, 1)) >= 1e-6 else f"{levels:.4g}/255"
