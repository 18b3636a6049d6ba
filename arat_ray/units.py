"""Numbers as people say them: how long, how many operations, how much."""

from __future__ import annotations

import math

PREFIXES = ("", "k", "M", "G", "T", "P", "E", "Z", "Y")
DAY_S = 24 * 3600
YEAR_S = 365.25 * DAY_S


def duration(seconds: float) -> str:
    """7 s, 2 min 10 s, 1 h 5 min, 12 days 3 h, 3.2 years."""
    if not math.isfinite(seconds):
        return "an unknown time"
    minutes, rest = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    if seconds >= YEAR_S:
        years = seconds / YEAR_S
        return f"{years:.2g} years" if years < 10 else f"{number(years)} years"
    if hours >= 48:
        return f"{hours // 24} days {hours % 24} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def flop(operations: float) -> str:
    """3.21 TFLOP: with the prefix that leaves one to three digits before the point."""
    if not math.isfinite(operations):
        return "an unknown number of FLOP"
    power = 0 if operations < 1 else min(int(math.log10(operations) + 1e-9) // 3, len(PREFIXES) - 1)
    if float(f"{operations / 1000**power:.3g}") >= 1000 and power + 1 < len(PREFIXES):
        power += 1
    return f"{number(operations / 1000**power)} {PREFIXES[power]}FLOP"


def number(value: float) -> str:
    """Three digits, and no exponent before a million million: 0.25, 1.5, 1,500."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e12 else f"{value:.3g}"


def parse_share(value: object) -> object:
    """`"0.1%"` as 0.001; anything else unchanged. ValueError for a percentage that is no number."""
    if not (isinstance(value, str) and value.rstrip().endswith("%")):
        return value
    try:
        return float(value.rstrip().removesuffix("%")) / 100
    except ValueError:
        raise ValueError(f"{value} is no percentage; write 0.1%") from None
