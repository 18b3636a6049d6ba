"""The table of what was injected, and its place in docs/reliability.md."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from typing import NamedTuple

from tests.lab.hosts import CHECKOUT

PAGE = CHECKOUT / "docs" / "reliability.md"
BEGIN, END = "<!-- lab: faults -->", "<!-- end of lab: faults -->"


class Row(NamedTuple):
    """A fault that was survived: how many epochs had been reported before it, how many attempts its trials took, after
    how many seconds there was a new one, and what a person did."""

    sentence: str
    before: int
    attempts: int
    recovered_s: float
    by_hand: str


def lines(rows: Sequence[Row]) -> list[str]:
    head = ("fault", "rows before", "lost", "doubled", "attempts", "new row after", "by hand")
    return [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *map(line, rows)]


def line(row: Row) -> str:
    cells = (row.sentence, row.before, 0, 0, row.attempts, f"{row.recovered_s:.0f} s", row.by_hand)
    return f"| {' | '.join(map(str, cells))} |"


def write(rows: Sequence[Row], caption: str) -> None:
    """Put the table between its marks, below a caption."""
    before, begin, rest = PAGE.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin, f"{PAGE} has no {BEGIN}"
    assert end, f"{PAGE} has no {END}"
    PAGE.write_text("\n".join([f"{before}{begin}", caption, "", *lines(rows), f"{end}{after}"]))


def caption(*, seconds: float, load: float) -> str:
    """Where and how it was measured; `load` is the mean number of busy processes in the minute before."""
    libraries = ", ".join(f"{name} {version(name)}" for name in ("ray", "torch"))
    others = "nothing else ran there" if load < 0.5 else f"other work kept {load:.1f} processes busy there"
    return (
        f"`python -m tests.lab.faults --write` on {datetime.date.today()}, {seconds / 60:.0f} minutes: the whole lab on "
        f"one machine of {os.cpu_count()} cores without a GPU; {others} when it began. "
        f"Python {platform.python_version()}, {libraries}."
    )
