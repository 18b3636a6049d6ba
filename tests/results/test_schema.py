from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Literal, TypedDict

import pyarrow as pa
import pytest

from arat_ray.results.schema import GOALS, SCHEMA_VERSION, TABLES, Metadata, _table, goal_text, trials_schema


def metadata(**changes: Any) -> Metadata:
    known: dict[str, Any] = {
        "study": "layers",
        "goals": ("clean_accuracy", "robust_accuracy"),
        "reference_point": (0.0, 0.1),
        "revision": "4f2a",
    }
    return Metadata(**(known | changes))


@pytest.mark.parametrize("name", TABLES)
def test_key_columns_come_first_and_are_the_only_ones_that_cannot_be_null(name: str) -> None:
    key, schema = TABLES[name]
    assert tuple(schema.names[: len(key)]) == key
    assert tuple(field.name for field in schema if not field.nullable) == key
    assert len(set(schema.names)) == len(schema.names)


def test_params_are_nullable_columns_after_the_seed() -> None:
    schema = trials_schema({"method.invariance_weight": pa.float64(), "method.layers": pa.string()})
    at = schema.get_field_index("seed")
    assert schema.names[at + 1 : at + 4] == [
        "param_method.invariance_weight",
        "param_method.layers",
        "clean_accuracy",
    ]
    assert schema.field("param_method.layers").nullable
    assert len(schema) == len(TABLES["trials"].schema) + 2


def test_times_are_microseconds_in_utc() -> None:
    assert TABLES["trials"].schema.field("started_at").type == pa.timestamp("us", tz="UTC")


def test_metadata_comes_back_from_a_file_as_it_went_in() -> None:
    text = metadata().encode()
    assert text == {
        "schema_version": str(SCHEMA_VERSION),
        "goals": '["clean_accuracy", "robust_accuracy"]',
        "directions": '["maximize", "maximize"]',
        "reference_point": "[0.0, 0.1]",
        "revision": "4f2a",
        "study": "layers",
    }
    stored = {key.encode(): value.encode() for key, value in text.items()}
    assert Metadata.decode(stored) == metadata()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"goals": ()}, "at least one goal"),
        ({"reference_point": (0.0,)}, "one entry for each of the goals"),
        ({"directions": ("maximize", "minimize")}, "every goal is maximised"),
    ],
)
def test_metadata_that_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metadata(**changes)


def test_files_of_a_newer_version_or_without_metadata_are_refused() -> None:
    stored = {key.encode(): value.encode() for key, value in metadata(schema_version=99).encode().items()}
    with pytest.raises(ValueError, match="schema_version 99"):
        Metadata.decode(stored)
    with pytest.raises(ValueError, match=re.escape("lacks directions, goals")):
        Metadata.decode({b"study": b"layers"})


def test_a_goal_that_is_no_accuracy_is_not_read_as_percent() -> None:
    assert {"clean_accuracy", "robust_accuracy"} <= {*GOALS}
    assert goal_text("robust_accuracy", 0.5) == "50.0 %"
    assert goal_text("robust_accuracy", 0.5, unit="") == "50.0"
    assert goal_text("negative_calibration_error", -0.0345) == "-0.0345"


class Row(TypedDict, total=False):
    name: str
    number: int | None
    share: float
    kind: Literal["a", "b"]
    at: datetime
    by_layer: dict[str, float | None]
    numbers: list[int]


def test_a_column_of_a_row_is_one_of_its_table_of_the_type_that_it_says() -> None:
    assert _table(("name",), Row).schema == pa.schema(
        [
            pa.field("name", pa.string(), nullable=False),
            ("number", pa.int64()),
            ("share", pa.float64()),
            ("kind", pa.string()),
            ("at", pa.timestamp("us", tz="UTC")),
            ("by_layer", pa.map_(pa.string(), pa.float64())),
            ("numbers", pa.list_(pa.int64())),
        ]
    )
