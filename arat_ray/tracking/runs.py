"""Runs: the trials of a study as trackers know them, from its tables.

A trial is one run, whatever became of its attempts. What it measured are points, each a step, a time and numbers by
name; of a trial they only grow, so who has the first n of them lacks the others.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from arat_ray.json_files import read_json
from arat_ray.pixels import format_pixels
from arat_ray.results import reader
from arat_ray.results.schema import PARAM, TABLES
from arat_ray.storage.names import check_experiment_name
from arat_ray.text import line

Value = bool | int | float | str
ENDED = ("complete", "pruned", "failed")
"""Statuses that stay."""
MEASURED = ("complete", "pruned")
"""Those with a result. What failed may still get another attempt, when the study is resumed."""
RECORDED = (
    *("status", "stop_reason", "error", "broken_constraints", "proposed_by"),
    *("device", "attack", "split", "checkpoint", "config_hash"),
)
"""Columns of `trials` that are told in words."""
_EPOCH_KEYS = ("trial_id", "attempt", "epoch")
_EVALUATION = (
    *("trial_id", "checkpoint", "dial", "split", "attack", "attack_version", "norm", "epsilon"),
    *("images", "accuracy"),
)


@dataclass(frozen=True)
class Point:
    """What was measured at once."""

    step: int
    """Epochs trained until then."""
    time: float
    """Unit: s since 1970."""
    values: Mapping[str, float]


@dataclass(frozen=True)
class Run:
    """A trial."""

    id: str
    """The same whenever the study is read, and of no other trial."""
    name: str
    """Its trial_id."""
    study: str
    number: int
    status: str
    knobs: Mapping[str, Value]
    """What was sampled, by the paths of `search:`; the label of a labelled choice."""
    config: Mapping[str, Value | None]
    """The whole run, resolved, by the paths of the experiment file: `train.method.name`."""
    facts: Mapping[str, str]
    """By the names of columns of `trials`."""
    started: float
    """Unit: s since 1970."""
    ended: float | None
    epochs: list[Point]
    """In the order in which they were recorded: where a worker was lost, some are measured again."""
    result: Point | None
    """Its goals, once it has a result."""
    evaluations: list[Point]

    @property
    def points(self) -> list[Point]:
        """All that was measured, in an order in which it only grows."""
        return [*self.epochs, *([self.result] if self.result else []), *self.evaluations]

    @property
    def is_over(self) -> bool:
        """Whether it has ended for good."""
        return self.status in ENDED


@dataclass(frozen=True)
class Export:
    """A study, and those of its runs that are to be written."""

    path: Path
    study: str
    """Its name."""
    id: str
    """The same whenever the study is read, and of no other study."""
    goals: tuple[str, ...]
    knobs: Mapping[str, type[Value]]
    """What is searched, and the type of its values; float where they are numbers."""
    runs: list[Run]


def read(study: Path, seen: Mapping[str, object] | None = None) -> tuple[Export, dict[str, object]]:
    """The runs of a study that are not as `seen` says, and what to say of them the next time.

    ValueError where it is no study, or one whose tables are damaged.
    """
    metadata = reader.metadata(study)
    check_experiment_name(metadata.study)
    attempts: dict[str, list[dict[str, Any]]] = {}
    for row in _in_microseconds(reader.read(study, "trials")).to_pylist():
        attempts.setdefault(row["trial_id"], []).append(row)
    for rows in attempts.values():
        rows.sort(key=lambda row: row["attempt"])
    measured = _evaluations(study)
    marks: dict[str, object] = {
        name: (json.dumps(rows[-1], default=str), len(rows), len(measured.get(name, ())))
        for name, rows in attempts.items()
    }
    wanted = {
        name: rows
        for name, rows in attempts.items()
        if rows[-1]["status"] not in ENDED or (seen or {}).get(name) != marks[name]
    }
    identity = _identity(study, metadata.study)
    curves = _curves(study, wanted)
    runs = [
        _run(study, metadata.study, identity, rows, curves.get(name, []), measured.get(name, []), metadata.goals)
        for name, rows in wanted.items()
    ]
    runs.sort(key=lambda run: run.number)
    fields = [field for field in reader.schema(study) if field.name.startswith(PARAM)]
    knobs = {line(field.name.removeprefix(PARAM)): _type(field.type) for field in fields}
    return Export(study, metadata.study, identity, metadata.goals, knobs, runs), marks


def _identity(study: Path, name: str) -> str:
    """A digest of the study's name and first start, which stay when its record is written anew."""
    path, starts = study / "study.json", list[Any]()
    if path.exists():
        said = read_json(path, fix=reader.rebuild_with(study), shape={"started_at?": list})
        starts = said.get("started_at") or []
    return _digest(f"{name} {starts[0] if starts else ''}")


def _run(
    study: Path,
    name: str,
    identity: str,
    attempts: list[dict[str, Any]],
    epochs: list[dict[str, Any]],
    evaluations: list[dict[str, Any]],
    goals: Iterable[str],
) -> Run:
    last = attempts[-1]
    trial = last["trial_id"]
    begun = {row["attempt"]: _seconds(row["started_at"]) for row in attempts}
    started = min((at for at in begun.values() if at is not None), default=0.0)
    ended = _seconds(last["ended_at"]) if last["status"] != "running" else None
    sampled = {column.removeprefix(PARAM): value for column, value in last.items() if column.startswith(PARAM)}
    step, end = last["epochs_done"] or 0, ended or started
    has_result = last["status"] in MEASURED
    return Run(
        id=_digest(f"{identity} {trial}"),
        name=line(trial),
        study=name,
        number=last["number"] or 0,
        status=last["status"] or "",
        knobs={line(path): _value(value) for path, value in sampled.items() if value is not None},
        config=dict(_flat("train", reader.config(study, last))) if last["config"] else {},
        facts={column: line(last[column]) for column in RECORDED if last[column] is not None},
        started=started,
        ended=ended,
        epochs=list(_curve(epochs, begun, started)),
        result=Point(step, end, _numbers({f"goals/{goal}": last[goal] for goal in goals})) if has_result else None,
        evaluations=[Point(step, end, {_measure(row): row["accuracy"]}) for row in evaluations if has_result],
    )


def _curve(epochs: list[dict[str, Any]], begun: Mapping[int, float | None], started: float) -> Iterable[Point]:
    """The epochs; the tables know no time of theirs, so each is that of its attempt's start and of its training."""
    passed: dict[int, float] = {}
    for row in epochs:
        attempt = row["attempt"]
        taken = (row["epoch_s"] or 0.0) + (row["diagnostics_s"] or 0.0)
        passed[attempt] = passed.get(attempt, begun.get(attempt) or started) + taken
        values = _numbers({name: value for name, value in row.items() if name not in _EPOCH_KEYS})
        yield Point(row["epoch"], passed[attempt], values)


def _curves(study: Path, wanted: Collection[str]) -> dict[str, list[dict[str, Any]]]:
    """By trial_id the rows of `epochs`, in the order in which they were recorded."""
    found: dict[str, list[dict[str, Any]]] = {}
    if reader.part_files(study / "epochs") and wanted:
        columns = TABLES["epochs"].schema.names
        for row in reader.read_rows(study, "epochs", columns, where=("trial_id", wanted)).to_pylist():
            found.setdefault(row["trial_id"], []).append(row)
    return found


def _evaluations(study: Path) -> dict[str, list[dict[str, Any]]]:
    """By trial_id the rows of `evaluations` of networks as deployed."""
    found: dict[str, list[dict[str, Any]]] = {}
    if reader.part_files(study / "evaluations"):
        for row in reader.read(study, "evaluations", _EVALUATION).to_pylist():
            if row["trial_id"] is not None and row["dial"] is None:
                found.setdefault(row["trial_id"], []).append(row)
    return found


def _measure(row: Mapping[str, Any]) -> str:
    """`evaluations/test-10000/last/autoattack-linf-8_255`: an accuracy never goes without its conditions."""
    epsilon = None if row["epsilon"] is None else format_pixels(row["epsilon"]).replace("/", "_")
    is_clean = row["attack"] == "none"
    fast = "fast" if (row["attack_version"] or "").endswith(", fast") else None
    under = "clean" if is_clean else "-".join(filter(None, [row["attack"], row["norm"], epsilon, fast]))
    return line(f"evaluations/{row['split']}-{row['images']}/{row['checkpoint']}/{under}")


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """Its numbers by name, those of a map as `name/key`; what is null is left out."""
    found: dict[str, float] = {}
    for name, value in row.items():
        if isinstance(value, int | float):
            found[line(name)] = float(value)
        elif isinstance(value, list):
            found |= {line(f"{name}/{key}"): float(each) for key, each in value if each is not None}
    return found


def _flat(path: str, value: Any) -> Iterable[tuple[str, Value | None]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(f"{path}.{key}", inner)
    elif value is None:
        yield line(path), None
    else:
        yield line(path), _value(value)


def _value(value: Any) -> Value:
    if isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return line(value if isinstance(value, str) else json.dumps(value))


def _type(kind: pa.DataType) -> type[Value]:
    return bool if pa.types.is_boolean(kind) else str if pa.types.is_string(kind) else float


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()[:16]


def _in_microseconds(table: pa.Table) -> pa.Table:
    """Times as numbers since 1970: as times, Arrow would load pandas for them."""
    for i, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type):
            table = table.set_column(i, field.name, table[field.name].cast(pa.int64()))
    return table


def _seconds(microseconds: int | None) -> float | None:
    return None if microseconds is None else microseconds / 1e6
