"""The trials that broke a constraint and are therefore on no front, and what each of them broke."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arat_ray.results import reader
from arat_ray.results.schema import goal_text, short_param

if TYPE_CHECKING:
    from _typeshed import SupportsWrite
    from rich.console import Console


def load(studies: Sequence[Path]) -> list[dict[str, Any]]:
    """Of each infeasible trial: study (its path), trial_id, number, broken, its goals, and params without null ones.

    ValueError where a folder is no study.
    """
    found = []
    for study in studies:
        goals, names = reader.metadata(study).goals, reader.schema(study).names
        params = [name for name in names if name.startswith("param_")]
        columns = ["trial_id", "attempt", "number", "feasible", "broken_constraints", *goals, *params]
        table = reader.read(study, "trials", list(dict.fromkeys(columns)))
        for row in reader.keep(table, reader.latest_attempt(table)).to_pylist():
            if row["feasible"] is False:
                trial = {"study": f"{study}", "trial_id": row["trial_id"], "number": row["number"]}
                trial |= {"broken": row["broken_constraints"], **{goal: row[goal] for goal in goals}}
                values = {name.removeprefix("param_"): row[name] for name in params if row[name] is not None}
                found.append(trial | {"params": values})
    return sorted(found, key=lambda trial: (trial["study"], trial["number"]))


def write_csv(trials: Sequence[dict[str, Any]], file: SupportsWrite[str]) -> None:
    """One line a trial."""
    fixed = list(dict.fromkeys(name for trial in trials for name in trial if name != "params"))
    params = list(dict.fromkeys(name for trial in trials for name in trial["params"]))
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*fixed, *(f"param_{name}" for name in params)])
    for trial in trials:
        writer.writerow([*(trial.get(name) for name in fixed), *(trial["params"].get(name) for name in params)])


def print_table(trials: Sequence[dict[str, Any]], console: Console) -> None:
    """For people: what each trial broke, its goals and what was sampled."""
    from arat_ray.terminal import Table

    known = ("study", "trial_id", "number", "broken", "params")
    goals = list(dict.fromkeys(name for trial in trials for name in trial if name not in known))
    params = list(dict.fromkeys(name for trial in trials for name in trial["params"]))
    table = Table(title=f"infeasible: {len(trials)} trials")
    table.add_column("trial")
    for goal in goals:
        table.add_column(goal.replace("_", " "), justify="right", no_wrap=True)
    table.add_column("broken", overflow="fold")
    for name in params:
        table.add_column(short_param(name), justify="right", overflow="fold")
    for trial in trials:
        values = [trial["params"].get(name) for name in params]
        table.add_row(
            trial["trial_id"],
            *(_shown(trial.get(goal), goal) for goal in goals),
            trial["broken"],
            *("" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value) for value in values),
        )
    console.print(table)


def _shown(value: float | None, goal: str) -> str:
    return "-" if value is None else goal_text(goal, value, unit="")
