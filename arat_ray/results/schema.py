"""The tables of a study, their columns and their keys: the contract with all who read the Parquet files.

A column is defined in `rows`. Accuracies are fractions in [0, 1]; suffixes carry units (`_s`, `_gib`, `_usd`); times
are microseconds, UTC.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, Self, Union, cast, get_args, get_origin, get_type_hints

import pyarrow as pa

from arat_ray.json_files import parse_json
from arat_ray.results.rows import ROWS, EpochRow, TrialRow

SCHEMA_VERSION = 1
ACCURACIES = ("clean_accuracy", "robust_accuracy")
SHARES = (*ACCURACIES, "dial_hypervolume")
"""Goals in [0, 1] that come from counts of validation images."""
FITTED = "fitted-"
"""How weights are named that `dial --fit` gave a clean branch: fitted-last. At t = 0 they are what they were."""
PARAM = "param_"
"""How the columns of `trials` begin that say what was sampled."""

PART_ROWS = {"trials": 1_000, "epochs": 20_000, "decisions": 1_000, "evaluations": 50_000, "examples": 50_000}
"""Of each table, how many rows a part holds when the next one begins.

A flush writes the growing part again, so large parts make writing dear, and small ones, of which there are many,
reading. A row of `trials` holds its whole configuration and is written again and again.
"""

_KEYS = {
    "trials": ("trial_id", "attempt"),
    "epochs": ("trial_id", "attempt", "epoch"),
    "decisions": ("trial_id", "rung"),
    "evaluations": ("evaluation_id",),
    "examples": ("evaluation_id", "index"),
}
_TYPES = {
    str: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
    datetime: pa.timestamp("us", tz="UTC"),
}


class TableType(NamedTuple):
    """What a table is: the columns that name one row, and the type of every column."""

    key: tuple[str, ...]
    schema: pa.Schema


def _table(key: tuple[str, ...], row: type) -> TableType:
    return TableType(
        key, pa.schema([pa.field(name, _type(kind), name not in key) for name, kind in get_type_hints(row).items()])
    )


def _type(kind: Any) -> pa.DataType:
    """The column of values of such a kind."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        (kind,) = (part for part in parts if part is not NoneType)
        return _type(kind)
    if origin is Literal:
        return pa.string()
    if origin is dict:
        return pa.map_(*map(_type, parts))
    if origin is list:
        return pa.list_(_type(parts[0]))
    return _TYPES[kind]


TABLES = {name: _table(_KEYS[name], row) for name, row in ROWS.items()}

GOALS = tuple(
    field.name
    for field in TABLES["trials"].schema
    if field.type == pa.float64() and f"validation_{field.name}" in TABLES["epochs"].schema.names
)
"""What can be maximised: numbers of a trial that its epochs measure, there as `validation_<goal>`."""


def goal_text(goal: str, value: float, *, unit: str = " %") -> str:
    """A value of a goal for people: accuracies in percent."""
    return f"{100 * value:.1f}{unit}" if goal in ACCURACIES else f"{value:.4g}"


def goals_of(epoch: EpochRow) -> TrialRow:
    """What a row of `epochs` that was measured says of its trial."""
    measured: Mapping[str, Any] = epoch
    found = {**{goal: measured.get(f"validation_{goal}") for goal in GOALS}, "images": epoch["validation_images"]}
    return cast(TrialRow, found)


def short_param(path: str) -> str:
    """The end of a parameter's path, as tables and lines show it: `balance.adversarial`, `layers`."""
    parts = path.split(".")
    return ".".join(parts[-2:]) if len(parts) > 2 else parts[-1]


def trials_schema(params: Mapping[str, pa.DataType]) -> pa.Schema:
    """The `trials` table of one search space: after `seed`, a nullable `param_<name>` for each knob."""
    fields = list(TABLES["trials"].schema)
    after_seed = TABLES["trials"].schema.get_field_index("seed") + 1
    fields[after_seed:after_seed] = [pa.field(f"{PARAM}{name}", params[name]) for name in params]
    return pa.schema(fields)


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What every file of a study says about itself, in its Parquet key-value metadata.

    `reference_point` has one value for each goal; a trial below it adds nothing to the hypervolume.
    ValueError when the goals, their directions and the reference point do not fit each other.
    """

    study: str
    goals: tuple[str, ...]
    reference_point: tuple[float, ...]
    revision: str
    directions: tuple[str, ...] = ()
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if not self.directions:
            object.__setattr__(self, "directions", ("maximize",) * len(self.goals))
        if not self.goals:
            raise ValueError("goals is empty: a study maximises at least one goal")
        if not len(self.goals) == len(self.directions) == len(self.reference_point):
            raise ValueError(
                f"directions {self.directions} and reference_point {self.reference_point} must have "
                f"one entry for each of the goals {self.goals}"
            )
        if set(self.directions) != {"maximize"}:
            raise ValueError(f"directions {self.directions}: every goal is maximised")

    def encode(self) -> dict[str, str]:
        """As strings, for a file."""
        return {
            "schema_version": str(self.schema_version),
            "goals": json.dumps(self.goals),
            "directions": json.dumps(self.directions),
            "reference_point": json.dumps(self.reference_point),
            "revision": self.revision,
            "study": self.study,
        }

    @classmethod
    def decode(cls, file_metadata: Mapping[bytes, bytes]) -> Self:
        """From a file; ValueError where a key is missing or the file comes from a newer version."""
        text = {key.decode(): value.decode() for key, value in file_metadata.items()}
        missing = {"schema_version", "goals", "directions", "reference_point", "revision", "study"} - set(text)
        if missing:
            raise ValueError(f"the file metadata lacks {', '.join(sorted(missing))}")
        if int(text["schema_version"]) > SCHEMA_VERSION:
            raise ValueError(
                f"the files have schema_version {text['schema_version']}, this arat-ray reads up to "
                f"{SCHEMA_VERSION}: install a newer one"
            )
        lists = {
            name: tuple(parse_json(text[name], f"{name} in the file metadata", fix="it is damaged", shape=list))
            for name in ("goals", "directions", "reference_point")
        }
        return cls(
            study=text["study"],
            **lists,
            revision=text["revision"],
            schema_version=int(text["schema_version"]),
        )
