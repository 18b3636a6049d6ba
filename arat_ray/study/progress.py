"""What a running study shows: one live table on a terminal, one line a trial elsewhere."""

from __future__ import annotations

import heapq
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

from arat_ray.frontier.growing_front import GrowingFront
from arat_ray.results.schema import goal_text, short_param
from arat_ray.study.remaining import Remaining
from arat_ray.study.state import number_of
from arat_ray.terminal import Table, harmless, report
from arat_ray.text import line
from arat_ray.units import duration

REFRESH_S = 0.5
SHOWN_AT_MOST = 1000
STYLES = {"running": "cyan", "complete": "", "failed": "red", "stopped": "yellow", "pruned": "dim"}
NARROW, ROOMY = 60, 100
"""Columns of a terminal from which on there is room for what was sampled, and for long headings."""


class Progress:
    """The trials of a study with both goals, how far it is, and how long it will take.

    Nothing that goes wrong with showing them is raised: the study is worth more than its picture.
    """

    def __init__(self, console: Console, *, goals: Sequence[str], total: int | None, ended: int, epochs: int) -> None:
        self.console, self.goals, self.total, self.epochs = console, tuple(goals), total, epochs
        self.ended_count = ended
        self.trials: dict[int, dict[str, Any]] = {}
        self.remaining = Remaining(waiting=None if total is None else total - ended, epochs=epochs)
        self.began = self._refreshed = time.monotonic()
        self.live: Live | None = None
        self.is_kept = True
        """Whether the table stays when the study has ended: not where a table of its front follows."""
        self._is_visible = True
        self._running: set[int] = set()
        self._statuses: Counter[str] = Counter()
        self.front = GrowingFront()
        """Of the study; whoever has its state puts that one's here."""

    def __enter__(self) -> Progress:
        with harmless(self.console):
            if self.console.is_terminal:
                self.live = Live(console=self.console, auto_refresh=False, vertical_overflow="crop")
                self.live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self.live:
            with harmless(self.console):
                front, _ = self._front()
                is_kept = self.is_kept or bool(self._running) or not front
                self.live.update(self._render() if is_kept else self._head(), refresh=True)
            with harmless(self.console):
                self.live.stop()

    def started(self, number: int, sampled: dict[str, Any], *, epochs_done: int = 0) -> None:
        self._note(number, {"status": "running", "epochs_done": epochs_done, "sampled": sampled})
        self.remaining.started(number, epochs_done)

    def reported(self, number: int, row: Mapping[str, Any]) -> None:
        self._note(number, row)
        self.remaining.reported(number, row["epochs_done"])
        self.refresh()

    def ended(self, number: int, row: Mapping[str, Any]) -> None:
        self._note(number, row)
        self.remaining.ended(number, self.trials[number]["epochs_done"], row["status"])
        if row["status"] != "stopped":
            self.ended_count += 1
        if not self.live:
            report(self.console, self._line(number))

    def refresh(self) -> None:
        """Draw again, at most twice a second."""
        now = time.monotonic()
        if self.live and self._is_visible and now - self._refreshed >= REFRESH_S:
            self._refreshed, self._is_visible = now, False
            with harmless(self.console):
                self.live.update(self._render(), refresh=True)
                self._is_visible = True

    def _note(self, number: int, row: Mapping[str, Any]) -> None:
        trial = self.trials.get(number, {})
        if "status" in trial:
            self._statuses[trial["status"]] -= 1
        self.trials[number] = {**trial, **row}
        status = self.trials[number]["status"]
        self._statuses[status] += 1
        (self._running.add if status == "running" else self._running.discard)(number)

    def _line(self, number: int) -> str:
        trial = self.trials[number]
        scores = ", ".join(f"{goal.replace('_', ' ')} {_shown(goal, trial.get(goal))}" for goal in self.goals)
        if broken := trial.get("broken_constraints"):
            scores += f", infeasible: {broken}"
        outcome = _short(trial.get("error") or trial.get("stop_reason") or scores)
        done = f"{self.ended_count}/{self.total}" if self.total else str(self.ended_count)
        return f"[{done}] trial {number} {trial['status']}: {outcome} ({_sampled(trial['sampled'])}){self._left()}"

    def _left(self) -> str:
        seconds = self.remaining.seconds()
        if seconds is None or not self.total or self.ended_count >= self.total:
            return ""
        return f"; about {duration(max(seconds, 1))} left"

    def _front(self) -> tuple[set[int], float]:
        """The numbers on the front and its hypervolume."""
        return {number_of(name) for name in self.front.points}, self.front.hypervolume

    def _head(self) -> Text:
        front, volume = self._front()
        early = self._statuses["pruned"]
        head = f"{self.ended_count}{f' of {self.total}' if self.total else ''} trials, "
        head += f"{early} stopped early, " if early else ""
        head += f"{duration(time.monotonic() - self.began)}{self._left()}"
        head += f"; front of {len(front)}, hypervolume {volume:.4f}" if front else ""
        return Text(head, no_wrap=True, overflow="ellipsis")

    def _render(self) -> RenderableType:
        front, _ = self._front()
        width = self.console.width
        bar = Table(show_header=False, padding=0)  # a bar by itself does not end its line
        bar.add_column()
        if self.total:
            bar.add_row(ProgressBar(self.total, self.ended_count, width=min(60, width)))
        is_wide = width >= NARROW
        goals = [goal if width >= ROOMY else goal.removesuffix("_accuracy") for goal in self.goals]
        table = Table()
        for name in ("trial", "status", "epoch", *(goal.replace("_", " ") for goal in goals)):
            table.add_column(name, no_wrap=True, justify="left" if name == "status" else "right")
        if is_wide:
            table.add_column("sampled")  # the only one that gives way
        room = max(3, self.console.height - 5)

        def rank(number: int) -> tuple[bool, bool, int]:
            return number not in self._running, number not in front, -number

        for number in heapq.nsmallest(room, self.trials, key=rank):
            trial = self.trials[number]
            cells = [f"{'*' if number in front else ''}{number}", trial["status"]]
            cells += [f"{trial['epochs_done']}/{self.epochs}", *(_shown(goal, trial.get(goal)) for goal in self.goals)]
            what = Text(_short(trial.get("error") or _sampled(trial["sampled"])), no_wrap=True, overflow="ellipsis")
            style = "bold green" if number in front else STYLES.get(trial["status"], "")
            table.add_row(*cells, *([what] if is_wide else []), style=style)
        hidden = len(self.trials) - room
        return Group(self._head(), bar, table, Text(f"and {hidden} more trials" if hidden > 0 else "* on the front"))


def _short(text: object) -> str:
    """One line of a text, not longer than a screen could show; the tables have all of it."""
    text = str(text)
    return line(text if len(text) <= SHOWN_AT_MOST else f"{text[:SHOWN_AT_MOST]}...")


def _shown(goal: str, value: float | None) -> str:
    return "-" if value is None else goal_text(goal, value)


def _sampled(sampled: dict[str, Any]) -> str:
    """Parameters by the last parts of their paths: invariance_weight 41.7, layers stage4."""
    shown = []
    for path, value in sampled.items():
        text = f"{value:.3g}" if isinstance(value, float) else _short(value)
        shown.append(f"{short_param(path)} {text}")
    return ", ".join(shown) or "as in train"
