"""Evaluations of small studies, as rows that a test writes down."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from arat_ray.results import reader
from arat_ray.results.schema import PART_ROWS, TABLES
from arat_ray.results.table import ParquetTable

CLEAN = {"attack": "none", "attack_version": "arat-ray", "norm": None, "epsilon": None}
AUTOATTACK = {"attack": "autoattack", "attack_version": "pyautoattack 0.2.0, exact", "norm": "linf", "epsilon": 8 / 255}
VERDICTS = {"x": (False, None), "c": (True, "apgd-ce"), "r": (True, None)}
"""By a letter: wrong, right without an attack only, robust."""


def add(study: Path, table: str, *rows: Mapping[str, Any]) -> None:
    kind = TABLES[table]
    into = ParquetTable(
        study / table, kind.schema, kind.key, part_rows=PART_ROWS[table], metadata=reader.metadata(study).encode()
    )
    for row in rows:
        into.upsert(row)
    into.flush()


def evaluated(study: Path, trial: str, *, clean: int, robust: int, key: str = "k", **changes: Any) -> str:
    """Add what `evaluate` writes of a checkpoint, 1,000 test images under AutoAttack unless changed; the id."""
    common: dict[str, Any] = {
        "trial_id": trial,
        "checkpoint": "last",
        "checkpoint_sha256": f"sha of {trial}",
        "split": "test",
        "images": 1000,
        "indices_sha256": "the first of the test images",
    }
    rows = []
    for attack, correct in ((CLEAN, clean), (AUTOATTACK, robust)):
        row: dict[str, Any] = {**common, **attack, **changes, "correct": correct}
        row |= CLEAN if attack is CLEAN else {}
        row |= {"evaluation_id": f"{row['checkpoint_sha256'][:12]}-{row['split']}-{row['attack']}-{key}"}
        rows.append(row | {"accuracy": correct / row["images"]})
    add(study, "evaluations", *rows)
    return str(rows[1]["evaluation_id"])


def judged(study: Path, trial: str, verdicts: str, *, first: int = 0, **changes: Any) -> str:
    """Add an evaluation with its verdicts, a letter an image: x wrong, c right without an attack, r robust; the id.

    The label of an image is its index modulo 10.
    """
    clean, robust = (sum(letter in letters for letter in verdicts) for letters in ("cr", "r"))
    images: dict[str, Any] = {"images": len(verdicts), "indices_sha256": f"{first} and {len(verdicts) - 1} more"}
    evaluation_id = evaluated(study, trial, clean=clean, robust=robust, **(images | changes))
    rows = []
    for index, letter in enumerate(verdicts, first):
        right, broken_by = VERDICTS[letter]
        row = {"evaluation_id": evaluation_id, "index": index, "label": index % 10, "margin": 0.0}
        rows.append(row | {"clean_correct": right, "broken_by": broken_by})
    add(study, "examples", *rows)
    return evaluation_id
