"""The tables of a study, their columns and their keys: the contract with all who read the Parquet files.

Accuracies are fractions in [0, 1]; suffixes carry units (`_s`, `_gib`, `_usd`); times are microseconds, UTC.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import pyarrow as pa

from arat_ray.json_files import parse_json

SCHEMA_VERSION = 1
ACCURACIES = ("clean_accuracy", "robust_accuracy")
STATUSES = ("running", "complete", "stopped", "failed", "pruned")
PARAM = "param_"
"""How the columns of `trials` begin that say what was sampled."""

PART_ROWS = {"trials": 1_000, "epochs": 20_000, "decisions": 1_000, "evaluations": 50_000, "examples": 50_000}
"""Of each table, how many rows a part holds when the next one begins.

A flush writes the growing part again, so large parts make writing dear, and small ones, of which there are many,
reading. A row of `trials` holds its whole configuration and is written again and again.
"""

_TIME = pa.timestamp("us", tz="UTC")


class TableType(NamedTuple):
    """What a table is: the columns that name one row, and the type of every column."""

    key: tuple[str, ...]
    schema: pa.Schema


def _table(key: tuple[str, ...], columns: Mapping[str, pa.DataType]) -> TableType:
    return TableType(key, pa.schema([pa.field(name, columns[name], name not in key) for name in columns]))


def _measured(column: str) -> dict[str, pa.DataType]:
    return {column: pa.float64(), f"{column}_by_layer": pa.map_(pa.string(), pa.float64())}


TABLES: dict[str, TableType] = {
    "trials": _table(
        ("trial_id", "attempt"),
        {
            "trial_id": pa.string(),
            "attempt": pa.int64(),
            "study": pa.string(),
            "number": pa.int64(),
            "status": pa.string(),  # one of STATUSES
            "stop_reason": pa.string(),
            "error": pa.string(),
            "config": pa.string(),  # resolved, JSON
            "config_hash": pa.string(),
            "seed": pa.int64(),
            # param_*: see trials_schema
            "clean_accuracy": pa.float64(),
            "robust_accuracy": pa.float64(),
            "images": pa.int64(),  # validation images behind the two accuracies
            "attack": pa.string(),
            "norm": pa.string(),
            "epsilon": pa.float64(),
            "split": pa.string(),
            "epochs_done": pa.int64(),
            "is_full_fidelity": pa.bool_(),
            "on_front": pa.bool_(),
            "feasible": pa.bool_(),  # of a complete trial, where there are constraints
            "broken_constraints": pa.string(),
            "workers": pa.int64(),
            "device": pa.string(),
            "train_s": pa.float64(),
            "device_s": pa.float64(),
            "cost_usd": pa.float64(),
            "peak_memory_gib": pa.float64(),
            "checkpoint": pa.string(),
            "started_at": _TIME,
            "ended_at": _TIME,
        },
    ),
    "epochs": _table(
        ("trial_id", "attempt", "epoch"),
        {
            "trial_id": pa.string(),
            "attempt": pa.int64(),
            "epoch": pa.int64(),
            "loss_adversarial": pa.float64(),
            "loss_clean": pa.float64(),
            "loss_invariance": pa.float64(),
            "balance": pa.float64(),
            "learning_rate": pa.float64(),
            "train_clean_accuracy": pa.float64(),
            "train_robust_accuracy": pa.float64(),
            "train_images": pa.int64(),
            "validation_clean_accuracy": pa.float64(),
            "validation_robust_accuracy": pa.float64(),
            "validation_images": pa.int64(),
            # what `diagnostics:` measures: a mean, and each layer or layer group behind it
            "gradient_norm": pa.float64(),
            **_measured("gradient_norm_classification"),
            **_measured("gradient_norm_invariance"),
            **_measured("gradient_cosine"),
            **_measured("conflict_fraction"),
            **_measured("bn_divergence"),
            **_measured("bn_mismatch"),
            **_measured("representation_distance"),
            **_measured("representation_drift"),
            **_measured("predicted_distance"),
            **_measured("predicted_drift"),
            "diagnostics_s": pa.float64(),
            "epoch_s": pa.float64(),
            "attack_s": pa.float64(),
            "images_per_s": pa.float64(),
        },
    ),
    "decisions": _table(  # of early stopping; peers of a decision are those of its rung up to its order
        ("trial_id", "rung"),
        {
            "trial_id": pa.string(),
            "rung": pa.int64(),  # the epoch
            "order": pa.int64(),  # in which the study's decisions were made, from 0
            "number": pa.int64(),
            "goals": pa.map_(pa.string(), pa.float64()),
            "goes_on": pa.bool_(),
            "rank": pa.int64(),  # from 1, of as many as `of`; null where a goal was missing
            "of": pa.int64(),
            "keep": pa.int64(),
            "front": pa.int64(),  # from 1
            "beaten_by": pa.list_(pa.int64()),  # trials that dominate it there
            "behind": pa.list_(pa.int64()),  # trials on the same front that come first by spread
            "why": pa.string(),
            "decided_at": _TIME,
        },
    ),
    "evaluations": _table(
        ("evaluation_id",),
        {
            "evaluation_id": pa.string(),
            "trial_id": pa.string(),
            "checkpoint": pa.string(),  # last, best, swa, ema
            "checkpoint_sha256": pa.string(),
            "split": pa.string(),
            "attack": pa.string(),
            "attack_version": pa.string(),
            "norm": pa.string(),
            "epsilon": pa.float64(),
            "images": pa.int64(),
            "correct": pa.int64(),
            "accuracy": pa.float64(),
            "ci_low": pa.float64(),  # Wilson, 95 %
            "ci_high": pa.float64(),
            "batch_size": pa.int64(),
            "seed": pa.int64(),
            "indices_sha256": pa.string(),
            "wall_s": pa.float64(),
            "warnings": pa.string(),  # why the accuracy may be too high
        },
    ),
    "examples": _table(
        ("evaluation_id", "index"),
        {
            "evaluation_id": pa.string(),  # of a row of evaluations that has an attack
            "index": pa.int64(),  # in the data set's file: train's for the splits train and validation
            "label": pa.int64(),
            "clean_correct": pa.bool_(),
            "broken_by": pa.string(),  # the first attack that succeeded
            "margin": pa.float64(),  # true logit less the highest other, where the verdict was made
        },
    ),
}

GOALS = tuple(
    field.name
    for field in TABLES["trials"].schema
    if field.type == pa.float64() and f"validation_{field.name}" in TABLES["epochs"].schema.names
)
"""What can be maximised: numbers of a trial that its epochs measure, there as `validation_<goal>`."""


def goal_text(goal: str, value: float, *, unit: str = " %") -> str:
    """A value of a goal for people: accuracies in percent."""
    return f"{100 * value:.1f}{unit}" if goal in ACCURACIES else f"{value:.4g}"


def goals_of(epoch: Mapping[str, Any]) -> dict[str, Any]:
    """What a row of `epochs` that was measured says of its trial."""
    return {**{goal: epoch.get(f"validation_{goal}") for goal in GOALS}, "images": epoch["validation_images"]}


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
