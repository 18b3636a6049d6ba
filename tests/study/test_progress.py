"""What a running study shows."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from arat_ray.study import progress as progress_module
from arat_ray.study.progress import Progress

GOALS = ("clean_accuracy", "robust_accuracy")


def test_a_terminal_shows_one_table_with_the_front_marked() -> None:
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=140, height=30, color_system=None)
    with Progress(console, goals=GOALS, total=3, ended=0, epochs=2) as progress:
        for number, (clean, robust) in enumerate([(0.9, 0.5), (0.8, 0.4)]):
            progress.started(number, {"method.invariance_weight": 41.73})
            row = {"status": "complete", "epochs_done": 2, "clean_accuracy": clean, "robust_accuracy": robust}
            progress.ended(number, row)
            progress.front.add(f"small-{number:05d}", (clean, robust))
        progress.started(2, {"method.invariance_weight": 1.0})
    last = shown.getvalue().split("2 of 3 trials")[-1]
    assert "front of 1, hypervolume 0.4500" in last
    assert any(line.split()[:2] == ["trial", "status"] for line in last.splitlines())
    assert "left" in last
    lines = {
        line.split()[0]: line for line in last.splitlines() if line.strip() and line.split()[0].strip("*").isdigit()
    }
    assert "90.0 %" in lines["*0"]
    assert "invariance_weight 41.7" in lines["*0"]
    assert "complete" in lines["1"]
    assert "running" in lines["2"]


def test_a_pipe_shows_one_line_a_trial() -> None:
    shown = io.StringIO()
    with Progress(Console(file=shown, width=200), goals=GOALS, total=2, ended=1, epochs=2) as progress:
        progress.started(1, {})
        progress.ended(1, {"status": "failed", "epochs_done": 0, "error": "out of memory"})
    assert shown.getvalue() == "[2/2] trial 1 failed: out of memory (as in train)\n"


def test_trials_that_were_stopped_early_are_counted_and_stay_in_the_table() -> None:
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=140, height=30, color_system=None)
    reason = "pareto_asha: rung 10, rank 2 of 2, front 2; beaten by trial 0"
    with Progress(console, goals=GOALS, total=3, ended=0, epochs=100) as progress:
        for number, status, epochs in [(0, "complete", 100), (1, "pruned", 10)]:
            progress.started(number, {"method.invariance_weight": 2.0})
            row = {"status": status, "epochs_done": epochs, "clean_accuracy": 0.9, "robust_accuracy": 0.99}
            progress.ended(number, row | {"stop_reason": reason if number else None})
        progress.front.add("small-00000", (0.9, 0.99))
    last = shown.getvalue().split("2 of 3 trials, 1 stopped early, ")[-1]
    assert "front of 1" in last
    (line,) = [line for line in last.splitlines() if line.strip().startswith("1 ")]
    assert line.split()[:3] == ["1", "pruned", "10/100"]
    piped = io.StringIO()
    with Progress(Console(file=piped, width=200), goals=GOALS, total=2, ended=0, epochs=100) as progress:
        progress.started(1, {})
        progress.ended(1, {"status": "pruned", "epochs_done": 10, "stop_reason": reason})
    assert f"trial 1 pruned: {reason} (as in train)" in piped.getvalue()


def table_of(width: int, height: int, trials: int = 60) -> list[str]:
    """The lines of the last drawing: a study of twelve parameters, with long labels and long errors."""
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=width, height=height, color_system=None)
    with Progress(console, goals=GOALS, total=2 * trials, ended=0, epochs=200) as progress:
        for number in range(trials):
            progress.started(number, {f"method.parameter_{i}": 1.23456 * i for i in range(12)})
            row = {"epochs_done": 150, "clean_accuracy": 0.9 - number / 1e6, "robust_accuracy": 0.1 + number / 1e6}
            progress.reported(number, row)
            if number % 3:
                error = "RuntimeError: [/pytorch/third_party/gloo/pair.cc:598] connection closed by peer" * 5
                status = "failed" if number % 3 == 1 else "complete"
                progress.ended(number, row | {"status": status, "error": error if status == "failed" else None})
        shown.truncate(0)
        shown.seek(0)
        progress._refreshed = 0
        progress.refresh()
        drawing = shown.getvalue()
    return drawing.splitlines()


@pytest.mark.parametrize(("width", "height"), [(120, 40), (100, 30), (80, 24), (60, 20)])
def test_short_columns_keep_their_width_and_what_was_sampled_is_cut(width: int, height: int) -> None:
    lines = table_of(width, height)
    assert len(lines) <= height
    assert all(len(line) <= width for line in lines)
    (heading,) = [line for line in lines if "trial" in line and "status" in line]
    goals = [goal.replace("_", " ") if width >= 100 else goal.removesuffix("_accuracy") for goal in GOALS]
    for name in ("trial", "status", "epoch", *goals, "sampled"):
        assert f" {name} " in f" {heading} "
    running = [line for line in lines if "running" in line]
    assert running
    for line in running:
        assert line.split()[:7] == [line.split()[0], "running", "150/200", "90.0", "%", "10.0", "%"]
        assert "parameter_0 0" in line
        assert line.rstrip().endswith("\u2026")


def test_a_narrow_terminal_is_left_without_what_was_sampled() -> None:
    lines = table_of(45, 15)
    assert any(line.split()[:7] == ["57", "running", "150/200", "90.0", "%", "10.0", "%"] for line in lines)


def test_a_drawing_of_ten_thousand_trials_draws_what_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = [0]

    def sampled(values: dict[str, Any]) -> str:
        cells[0] += 1
        return str(values)

    monkeypatch.setattr(progress_module, "_sampled", sampled)
    console = Console(file=io.StringIO(), force_terminal=True, width=120, height=40, color_system=None)
    with Progress(console, goals=GOALS, total=20_000, ended=0, epochs=1) as progress:
        monkeypatch.setattr(progress_module, "REFRESH_S", 1e9)
        for number in range(10_000):
            progress.started(number, {"a": number})
            row = {"epochs_done": 1, "clean_accuracy": number % 97 / 97, "robust_accuracy": number % 89 / 89}
            progress.ended(number, row | {"status": "complete"})
        for _ in range(3):
            progress._render()
        assert cells[0] == 3 * 35


def test_where_the_table_of_the_front_follows_one_line_is_left_of_the_live_one() -> None:
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=140, height=30, color_system=None)
    with Progress(console, goals=GOALS, total=1, ended=0, epochs=1) as progress:
        progress.started(0, {"a": 1})
        row = {"epochs_done": 1, "clean_accuracy": 0.9, "robust_accuracy": 0.5}
        progress.ended(0, row | {"status": "complete"})
        progress.front.add("small-00000", (0.9, 0.5))
        progress.is_kept = False
        shown.truncate(0)
        shown.seek(0)
    assert "1 of 1 trials" in shown.getvalue()
    assert "status" not in shown.getvalue()
