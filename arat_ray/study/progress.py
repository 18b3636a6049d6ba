"""What a running study shows: one live table on a terminal, one line a trial elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from arat_ray.frontier.pareto import hypervolume, non_dominated
from arat_ray.results.schema import short_param
from arat_ray.training.timing import duration

REFRESH_S = 0.5
STYLES = {"running": "cyan", "complete": "", "failed": "red", "stopped": "yellow", "pruned": "dim"}


class Progress:
    """The trials of a study with both goals, how far it is, and how long it will take."""

    def __init__(self, console: Console, *, goals: Sequence[str], total: int | None, ended: int, epochs: int) -> None:
        self.console, self.goals, self.total, self.epochs = console, tuple(goals), total, epochs
        self.ended_before = self.ended_count = ended
        self.trials: dict[int, dict[str, Any]] = {}
        self.began = self._refreshed = time.monotonic()
        self.live: Live | None = None

    def __enter__(self) -> Progress:
        if self.console.is_terminal:
            self.live = Live(console=self.console, auto_refresh=False, vertical_overflow="crop")
            self.live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self.live:
            self.live.update(self._render(), refresh=True)
            self.live.stop()

    def started(self, number: int, sampled: dict[str, Any]) -> None:
        self.trials[number] = {"status": "running", "epochs_done": 0, "sampled": sampled}

    def reported(self, number: int, row: dict[str, Any]) -> None:
        self.trials[number] |= row
        self.refresh()

    def ended(self, number: int, row: dict[str, Any]) -> None:
        self.trials[number] |= row
        if row["status"] != "stopped":
            self.ended_count += 1
        if not self.live:
            self.console.print(self._line(number), highlight=False, soft_wrap=True)

    def refresh(self) -> None:
        """Draw again, at most twice a second."""
        now = time.monotonic()
        if self.live and now - self._refreshed >= REFRESH_S:
            self._refreshed = now
            self.live.update(self._render(), refresh=True)

    def _line(self, number: int) -> str:
        trial = self.trials[number]
        scores = ", ".join(f"{goal.replace('_', ' ')} {_percent(trial.get(goal))}" for goal in self.goals)
        if broken := trial.get("broken_constraints"):
            scores += f", infeasible: {broken}"
        outcome = trial.get("error") or trial.get("stop_reason") or scores
        done = f"{self.ended_count}/{self.total}" if self.total else str(self.ended_count)
        return f"[{done}] trial {number} {trial['status']}: {outcome} ({_sampled(trial['sampled'])}){self._left()}"

    def _left(self) -> str:
        done = self.ended_count - self.ended_before
        if not self.total or not done or self.ended_count >= self.total:
            return ""
        seconds = (time.monotonic() - self.began) / done * (self.total - self.ended_count)
        return f"; about {duration(seconds)} left"

    def _front(self) -> tuple[set[int], float]:
        trials = self.trials.items()
        complete = [n for n, trial in trials if trial["status"] == "complete" and trial.get("feasible") is not False]
        points = [[self.trials[n][goal] for goal in self.goals] for n in complete]
        if not points:
            return set(), 0.0
        mask = non_dominated(points)
        return {n for n, on in zip(complete, mask, strict=True) if on}, hypervolume(points, [0.0] * len(self.goals))

    def _render(self) -> RenderableType:
        front, volume = self._front()
        early = sum(trial["status"] == "pruned" for trial in self.trials.values())
        head = Text(f"{self.ended_count}{f' of {self.total}' if self.total else ''} trials, ")
        head.append(f"{early} stopped early, " if early else "")
        head.append(f"{duration(time.monotonic() - self.began)}{self._left()}")
        if front:
            head.append(f"; front of {len(front)}, hypervolume {volume:.4f}")
        bar = Table.grid()  # a bar by itself does not end its line
        if self.total:
            bar.add_row(ProgressBar(self.total, self.ended_count, width=60))
        table = Table(box=None, pad_edge=False)
        for name in ("trial", "status", "epoch", *(goal.replace("_", " ") for goal in self.goals), "sampled"):
            table.add_column(name, no_wrap=True, justify="left" if name in ("status", "sampled") else "right")
        room = max(3, self.console.height - 5)
        order = sorted(self.trials, key=lambda n: (self.trials[n]["status"] != "running", n not in front, -n))
        for number in order[:room]:
            trial = self.trials[number]
            table.add_row(
                f"{'*' if number in front else ''}{number}",
                trial["status"],
                f"{trial['epochs_done']}/{self.epochs}",
                *(_percent(trial.get(goal)) for goal in self.goals),
                trial.get("error") or _sampled(trial["sampled"]),
                style="bold green" if number in front else STYLES.get(trial["status"], ""),
            )
        hidden = len(order) - room
        return Group(head, bar, table, Text(f"and {hidden} more trials" if hidden > 0 else "* on the front"))


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _sampled(sampled: dict[str, Any]) -> str:
    """Parameters by the last parts of their paths: invariance_weight 41.7, layers stage4."""
    shown = []
    for path, value in sampled.items():
        text = f"{value:.3g}" if isinstance(value, float) else str(value)
        shown.append(f"{short_param(path)} {text}")
    return ", ".join(shown) or "as in train"
