"""What a running study shows."""

from __future__ import annotations

import io

from rich.console import Console

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
    last = shown.getvalue().split("2 of 3 trials, 1 stopped early, ")[-1]
    assert "front of 1" in last
    (line,) = [line for line in last.splitlines() if line.strip().startswith("1 ")]
    assert line.split()[:3] == ["1", "pruned", "10/100"]
    piped = io.StringIO()
    with Progress(Console(file=piped, width=200), goals=GOALS, total=2, ended=0, epochs=100) as progress:
        progress.started(1, {})
        progress.ended(1, {"status": "pruned", "epochs_done": 10, "stop_reason": reason})
    assert f"trial 1 pruned: {reason} (as in train)" in piped.getvalue()
