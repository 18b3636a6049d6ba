"""The steps of a lab run: said as they happen, timed, and written down as a table."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click


class Steps:
    """What was done, how long it took and what was seen."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, float, str]] = []
        self.began = time.monotonic()
        self.conditions = f"On {os.cpu_count()} cores; {os.getloadavg()[0]:.0f} processes were running before."

    @contextmanager
    def step(self, what: str) -> Iterator[list[str]]:
        """One step; the block appends what it saw."""
        click.echo(f"{time.monotonic() - self.began:6.1f} s  {what} ...")
        began, seen = time.monotonic(), list[str]()
        yield seen
        took = time.monotonic() - began
        self.rows.append((what, took, "; ".join(seen)))
        click.echo(f"{time.monotonic() - self.began:6.1f} s      {took:.1f} s; {'; '.join(seen)}")

    def write(self, file: Path, *, mark: str = "lab") -> None:
        """Put the table between the marks `<!-- mark -->` and `<!-- /mark -->` of a file."""
        begin, end = f"<!-- {mark} -->", f"<!-- /{mark} -->"
        before, _, rest = file.read_text(encoding="utf-8").partition(begin)
        _, found, after = rest.partition(end)
        assert found, f"{file} lacks {begin} or {end}"
        lines = ["", self.conditions, "", "| step | s | seen |", "|---|---|---|"]
        lines += [f"| {what} | {took:.1f} | {seen} |" for what, took, seen in self.rows]
        lines.append(f"| all of it | {time.monotonic() - self.began:.0f} | |")
        file.write_text("\n".join([before + begin, *lines, "", end + after]), encoding="utf-8")


def wait_until(is_so: Callable[[], object], seconds: float, what: str, *, every: float = 0.5) -> None:
    """Ask again and again. Raises AssertionError when it takes longer."""
    give_up = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < give_up, f"waited {seconds:.0f} s for {what}"
        time.sleep(every)
