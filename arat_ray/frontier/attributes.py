"""What trials are, beside what was measured of them: by which a figure colours them, and their data set."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from arat_ray.results import reader
from arat_ray.results.schema import PARAM, short_param
from arat_ray.text import did_you_mean

STUDY, METHOD, LAYERS = "study", "method", "layers"
Key = tuple[str, str]
"""A study as it is written, and a trial_id."""


def values(studies: Sequence[Path], by: str) -> dict[Key, Any]:
    """Of every trial its `study`, its `method`, its `layers`, or what a column of `trials` says, or None.

    A parameter may be named without `param_`, and by its last word where that is one parameter's alone. ValueError
    where a study has no such column.
    """
    found: dict[Key, Any] = {}
    for study in studies:
        column = _column(study, f"method.{by}" if by == LAYERS else by)
        if column is None and by not in (STUDY, METHOD, LAYERS):
            known = [STUDY, METHOD, LAYERS, *reader.schema(study).names]
            raise ValueError(f"{study} has no column {by!r} in `trials`{did_you_mean(by, known)}")
        wanted = STUDY if by == STUDY else column or "config"
        table = reader.read(study, "trials", list(dict.fromkeys(["trial_id", "attempt", wanted])))
        table = reader.keep(table, reader.latest_attempt(table))
        for trial, value in zip(table["trial_id"].to_pylist(), table[wanted].to_pylist(), strict=True):
            of_trial = f"{study}" if by == STUDY else value if column else _method(value, by)
            found[f"{study}", trial] = of_trial
    return found


def _column(study: Path, by: str) -> str | None:
    names = reader.schema(study).names
    if by in names or f"{PARAM}{by}" in names:
        return f"{PARAM}{by}" if f"{PARAM}{by}" in names else by
    ends = [name for name in names if name.startswith(PARAM) and short_param(name.removeprefix(PARAM)) == by]
    return ends[0] if len(ends) == 1 else None


def _method(config: str | None, what: str) -> str | None:
    """The name of the method of a run, or its layers."""
    try:
        method = json.loads(config or "")["method"]
        found = method["name"] if what == METHOD else method["layers"]
    except (ValueError, KeyError, TypeError):
        return None
    return ", ".join(map(str, found)) if isinstance(found, list) else str(found)


def dataset(studies: Sequence[Path]) -> str | None:
    """The name of the data set of all trials; None where they differ or do not say."""
    return dataset_of(
        config for study in studies for config in reader.read(study, "trials", ["config"])["config"].to_pylist()
    )


def dataset_of(configs: Iterable[str | None]) -> str | None:
    """The same from configurations."""
    names = set()
    for config in set(configs):
        try:
            names.add(json.loads(config or "")["dataset"]["name"])
        except (ValueError, KeyError, TypeError):
            names.add(None)
    return str(*names) if len(names) == 1 and None not in names else None
