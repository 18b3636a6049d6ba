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
    """Nothing lost, nothing doubled: there is no Row of a study of which that is not so."""
    cells = (row.sentence, row.before, 0, 0, row.attempts, f"{row.recovered_s:.0f} s", row.by_hand)
    return f"| {' | '.join(map(str, cells))} |"


def write(rows: Sequence[Row], caption: str, *, order: Sequence[str]) -> None:
    """Put the table between its marks, below a caption; rows of other sentences in `order` stay as they are."""
    before, begin, rest = PAGE.read_text().partition(BEGIN)
    there, end, after = rest.partition(END)
    assert begin, f"{PAGE} has no {BEGIN}"
    assert end, f"{PAGE} has no {END}"
    known = {each.split(" | ")[0].removeprefix("| "): each for each in there.splitlines() if each.startswith("| ")}
    known |= {row.sentence: line(row) for row in rows}
    kept = [known[sentence] for sentence in order if sentence in known]
    PAGE.write_text("\n".join([f"{before}{begin}", caption, "", *lines([]), *kept, f"{end}{after}"]))


def caption(*, load: float) -> str:
    """Where and how it was measured; `load` is the mean number of busy processes in the minute before."""
    libraries = ", ".join(f"{name} {version(name)}" for name in ("ray", "torch"))
    others = "nothing else ran there" if load < 0.5 else f"other work kept {load:.0f} more processes busy there"
    return (
        f"`python -m tests.lab.faults --write` on {datetime.date.today()}: the whole lab on one machine of "
        f"{os.cpu_count()} cores without a GPU; {others}. Python {platform.python_version()}, {libraries}."
    )
