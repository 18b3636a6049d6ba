"""The trials of a study as lines: which rows, which columns, in which order."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arat_ray.pixels import format_pixels
from arat_ray.results import reader
from arat_ray.results.schema import ACCURACIES, short_param
from arat_ray.text import did_you_mean

if TYPE_CHECKING:
    from _typeshed import SupportsWrite
    from rich.console import Console

CONDITIONS = ("attack", "norm", "epsilon", "split", "images")
WHY_AT_MOST = 60
ENDINGS = ("stop_reason", "error", "broken_constraints")


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Rows of `trials`, each with the columns in `columns`, and how the accuracies of all of them were measured."""

    goals: tuple[str, ...]
    columns: list[str]
    rows: list[dict[str, Any]]
    conditions: dict[str, Any]
    """By the names of CONDITIONS, those that are the same in all rows."""
    are_usual: bool
    """Whether nobody chose the columns."""
    found: int
    """How many rows there are, of which `rows` may be the first ones."""


def load(
    study: Path,
    *,
    statuses: Sequence[str] = (),
    sort: str | None = None,
    reverse: bool = False,
    columns: Sequence[str] = (),
    limit: int | None = None,
    attempts: bool = False,
    everything: bool = False,
) -> Listing:
    """The last attempt at each trial, or all `attempts`, by number or `sort`ed: goals the best first, others ascending.

    `columns` are those of the table, parameters also without `param_` or by the end of their path; without any, those
    that say something, or `everything` but the resolved config. ValueError for a column that there is not.
    """
    names, goals = reader.schema(study).names, reader.metadata(study).goals
    wanted = [_column(study, each, names) for each in columns]
    by = _column(study, sort, names) if sort else "number"
    needed = ["trial_id", "attempt", "status", "number", by, *goals, *CONDITIONS]
    if everything and not wanted:
        wanted = [name for name in names if name != "config"]
    usual = [*_usual(names, goals, attempts=attempts), *ENDINGS] if not wanted else []
    table = reader.read(study, "trials", list(dict.fromkeys([*needed, *wanted, *(n for n in usual if n in names)])))
    if not attempts:
        table = reader.keep(table, reader.latest_attempt(table))
    rows = [row for row in table.to_pylist() if not statuses or row["status"] in statuses]
    rows.sort(key=lambda row: (row["number"] is None, row["number"], row["attempt"]))
    rows.sort(key=lambda row: _worth(row[by]), reverse=reverse ^ (by in goals))
    rows.sort(key=lambda row: _is_nothing(row[by]))
    if not wanted:
        wanted = [name for name in usual if any(not _is_nothing(row.get(name)) for row in rows) or name in goals]
    values = {name: {row[name] for row in rows} - {None} for name in CONDITIONS}
    return Listing(
        goals=goals,
        columns=wanted,
        rows=[{name: row[name] for name in dict.fromkeys([*wanted, "status"])} for row in rows[:limit]],
        conditions={name: next(iter(each)) for name, each in values.items() if len(each) == 1},
        are_usual=not columns and not everything,
        found=len(rows),
    )


def write_csv(listing: Listing, file: SupportsWrite[str]) -> None:
    """One line a row, all numbers in full."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(listing.columns)
    writer.writerows([_cell(row[name]) for name in listing.columns] for row in listing.rows)


def as_json(listing: Listing) -> list[dict[str, Any]]:
    """The rows as JSON has them: no NaN, times as text."""
    return [{name: _json(row[name]) for name in listing.columns} for row in listing.rows]


def print_table(listing: Listing, console: Console) -> None:
    """For people: accuracies in percent, with how they were measured."""
    from arat_ray.terminal import Table, say

    table = Table()
    endings = [name for name in listing.columns if name in ENDINGS] if listing.are_usual else []
    columns = [name for name in listing.columns if name not in endings]
    for name in columns:
        is_text = name in (*ENDINGS, "status", "config")
        heading = _heading(name, listing.conditions)
        least = max(map(len, heading.splitlines()))
        table.add_column(heading, justify="left" if is_text else "right", overflow="fold", min_width=least)
    if endings:
        is_wide = console.width >= 120
        table.add_column("why", overflow="ellipsis" if is_wide else "fold", no_wrap=is_wide)
    for row in listing.rows:
        cells = [_shown(name, row[name], row["status"]) for name in columns]
        why = [_cut("; ".join(row[name] for name in endings if row[name]))] if endings else []
        table.add_row(*cells, *why)
    console.print(table)
    shown = f"{len(listing.rows):,} of " if len(listing.rows) < listing.found else ""
    say(console, f"{shown}{listing.found:,} trials")


def measured(conditions: Mapping[str, Any]) -> str:
    """`pgd-20 linf 8/255, validation, 5,000 images`, as far as it is known."""
    attack = [conditions.get("attack"), conditions.get("norm")]
    attack += [format_pixels(conditions["epsilon"])] if conditions.get("epsilon") is not None else []
    images = f"{conditions['images']:,} images" if conditions.get("images") else None
    return ", ".join(filter(None, [" ".join(filter(None, attack)), conditions.get("split"), images]))


def _usual(names: Sequence[str], goals: Sequence[str], *, attempts: bool) -> list[str]:
    """The columns that most questions are about."""
    params = [name for name in names if name.startswith("param_")]
    return [
        "number",
        *(["attempt"] if attempts else []),
        "status",
        *goals,
        "on_front",
        *params,
        "epochs_done",
        "train_s",
        "cost_usd",
    ]


def _column(study: Path, word: str, names: Sequence[str]) -> str:
    """The column that a user means."""
    if word in names:
        return word
    params = [name for name in names if name.startswith("param_")]
    for short in (lambda name: name.removeprefix("param_"), lambda name: short_param(name.removeprefix("param_"))):
        if len(found := [name for name in params if short(name) == word]) == 1:
            return found[0]
    known = [*names, *(name.removeprefix("param_") for name in params)]
    raise ValueError(f"{study}/trials has no column {word!r}{did_you_mean(word, known)}")


def _is_nothing(value: Any) -> bool:
    return value is None or value != value  # NaN


def _worth(value: Any) -> Any:
    """Something to sort by; what is nothing is sorted apart."""
    return (0, 0) if _is_nothing(value) else (1, value)


def _heading(name: str, conditions: Mapping[str, Any]) -> str:
    """The column in words, an accuracy with how it was measured, in lines."""
    if name.startswith("param_"):
        return short_param(name.removeprefix("param_"))
    if name in ACCURACIES:
        of_images = {key: conditions.get(key) for key in ("split", "images")}
        attack = {key: conditions.get(key) for key in ("attack", "norm", "epsilon")}
        under = measured(attack) if name == "robust_accuracy" else ""
        return "\n".join(filter(None, [f"{name.replace('_', ' ')}, %", under, measured(of_images)]))
    return {"number": "trial", "on_front": "front", "epochs_done": "epochs"}.get(name, name)


def _shown(name: str, value: Any, status: str) -> str:
    if value is None:
        return "-" if name in ACCURACIES and status != "running" else ""
    if isinstance(value, bool):
        return "*" if name == "on_front" and value else "" if name == "on_front" else "yes" if value else "no"
    if name in ACCURACIES:
        return f"{100 * value:.1f}"
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds")
    if isinstance(value, list):
        return ", ".join(f"{key} {each:.4g}" for key, each in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _cut(text: str) -> str:
    """The beginning of a long text: one line a trial; `--columns error` has all of it."""
    return text if len(text) <= WHY_AT_MOST else f"{text[: WHY_AT_MOST - 3]}..."


def _plain(value: Any) -> Any:
    """A map, of which Arrow makes pairs, by its keys, and a time as text."""
    if isinstance(value, list):
        return dict(value)
    return value.isoformat() if isinstance(value, datetime) else value


def _cell(value: Any) -> Any:
    return json.dumps(dict(value)) if isinstance(value, list) else _plain(value)


def _json(value: Any) -> Any:
    return None if _is_nothing(value) else _plain(value)
