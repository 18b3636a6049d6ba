"""What a study holds, but for times and what follows from them, and in what two studies differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from arat_ray.results import reader
from arat_ray.results.schema import TABLES
from arat_ray.study import mending
from arat_ray.study.trials import NUMBER, StudyTrials

from .small_study import experiment_of

NOT_COMPARED = {"cost_usd", "peak_memory_gib", "attempt"}
"""What follows from times, and how often a trial was started. Moments and seconds are left out besides."""
BY = {"trials": ("trial_id",), "epochs": ("trial_id", "epoch")}
"""By what rows are compared, where it is not the key of the table: those of the last attempt."""

Contents = dict[str, dict[Any, Any]]


def read(source: Path, study: Path) -> Contents:
    """By table and key, the rows; and of Optuna's trials how each one ended. AssertionError where a key is doubled."""
    found: Contents = {}
    for name, kind in TABLES.items():
        if not reader.part_files(study / name):
            continue
        table = reader.read(study, name)
        keys = list(zip(*(table[column].to_pylist() for column in kind.key), strict=True))
        assert len(set(keys)) == len(keys), f"{name}: rows are doubled"
        by = BY.get(name, kind.key)
        if by != kind.key:
            table = table.sort_by("attempt")  # what was measured again stands under both attempts, and the last counts
        rows = table.select([field.name for field in table.schema if _is_compared(field)]).to_pylist()
        found[name] = {tuple(row[column] for column in by): row for row in rows}
    if experiment_of(source).search:
        found["Optuna's trials"] = dict(_of_optuna(source, study))
    return found


def _is_compared(column: pa.Field) -> bool:
    is_time = pa.types.is_timestamp(column.type) or column.name.endswith("_s")
    return not is_time and column.name not in NOT_COMPARED


def _of_optuna(source: Path, study: Path) -> Iterator[tuple[int, Any]]:
    experiment = experiment_of(source)
    trials = StudyTrials(experiment, mending.opened(study, experiment, warn=lambda text: None))
    for trial in trials.study.get_trials(deepcopy=False):
        if trial.user_attrs.get(NUMBER) in trials.ended():
            yield trial.user_attrs[NUMBER], (trial.state.name, trial.values, trial.params, dict(trial.constraints))


def check(source: Path, study: Path, expected: Contents) -> None:
    """AssertionError, with the first rows that differ, where the study does not hold what is expected."""
    differing = list(differences(read(source, study), expected))
    assert not differing, "; ".join(differing[:3])


def differences(there: Contents, expected: Contents) -> Iterator[str]:
    """A line for each row that was lost, added or changed."""
    for name in expected.keys() | there.keys():
        rows, wanted = there.get(name, {}), expected.get(name, {})
        for key in sorted(rows.keys() | wanted.keys(), key=str):
            if key not in rows:
                yield f"{name}: {key} is lost"
            elif key not in wanted:
                yield f"{name}: {key} came out of nowhere"
            elif rows[key] != wanted[key]:
                yield f"{name}: {key} changed: {_changes(rows[key], wanted[key])}"


def _changes(row: Any, wanted: Any) -> str:
    if not isinstance(row, Mapping):
        return f"{wanted} to {row}"
    names = [name for name in wanted.keys() | row.keys() if row.get(name) != wanted.get(name)]
    return ", ".join(f"{name} from {wanted.get(name)!r} to {row.get(name)!r}" for name in names)
