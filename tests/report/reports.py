"""A study with a trial of each kind, and what a report of it holds, for tests."""

from __future__ import annotations

import base64
import json
import re
import shutil
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from arat_ray.frontier import decisions
from arat_ray.frontier.halving import Halving
from arat_ray.results.schema import Metadata
from arat_ray.study.tables import StudyTables

GOALS = ("clean_accuracy", "robust_accuracy")
MEASURED = {"attack": "pgd-20", "norm": "linf", "epsilon": 8 / 255, "split": "validation", "images": 1000}
COMPLETE = {"status": "complete", "is_full_fidelity": True}
HOSTILE = "</script><img src=x onerror=alert(1)>"
TRIALS: tuple[dict[str, Any], ...] = (
    {**COMPLETE, "clean_accuracy": 0.9, "robust_accuracy": 0.4},
    {**COMPLETE, "clean_accuracy": 0.8, "robust_accuracy": 0.5},
    {**COMPLETE, "clean_accuracy": 0.85, "robust_accuracy": 0.35},
    {"status": "pruned", "stop_reason": "pareto_asha: beaten", "clean_accuracy": 0.7, "robust_accuracy": 0.3},
    {"status": "failed", "error": f"the loss became nan {HOSTILE}"},
    {**COMPLETE, "clean_accuracy": 0.95, "robust_accuracy": 0.45, "feasible": False, "broken_constraints": "too slow"},
    {"status": "running", "clean_accuracy": 0.6, "robust_accuracy": 0.2},
)
KINDS = ["front", "front", "dominated", "early-stopped", "failed", "infeasible", "unfinished"]


def write(
    folder: Path,
    *rows: dict[str, Any],
    name: str = "small",
    epochs: int = 3,
    curve: dict[int, float] | None = None,
    dials: dict[int, dict[str, tuple[float, float]]] | None = None,
    **described: Any,
) -> Path:
    """A study of such rows of `trials`, each with curves, one as given; the label of the odd ones is hostile.

    `dials` says by epoch what the second trial had at settings of its dial.
    """
    study = folder / name
    metadata = Metadata(study=name, goals=GOALS, reference_point=(0.0,) * len(GOALS), revision="4f2a")
    params = {"method.layers": pa.string(), "method.weight": pa.float64()}
    writer = StudyTables(study, params=params, metadata=metadata, decisions=True)
    halving = Halving([1], reduction_factor=2)
    for number, row in enumerate(rows):
        name_of = f"{name}-{number:05d}"
        sampled = {"param_method.layers": HOSTILE if number % 2 else "last", "param_method.weight": 10.0**number}
        fixed = {
            "trial_id": name_of,
            "attempt": 1,
            "number": number,
            "seed": 0,
            "device_s": 60.0,
            "epochs_done": epochs,
        }
        fixed |= {
            "config": json.dumps(
                {"epochs": epochs, "label": HOSTILE, "method": {"layers": ["last", *[HOSTILE] * (number % 2)]}}
            ),
            "checkpoint": f"checkpoints/{name_of}/last.pt",
        }
        ended = datetime(2026, 11, 28, 10, number, tzinfo=UTC)
        ran = {"started_at": ended - timedelta(minutes=1), "ended_at": ended, "train_s": 60.0}
        writer.trial({**fixed, **MEASURED, **sampled, **ran, **row})
        if row["status"] == "pruned":
            made = halving.decide(number, 1, (0.7, 0.3))
            writer.decision(decisions.as_row(made, trial_id=name_of, goals=GOALS, order=0))
        for epoch in range(1, epochs + 1):
            writer.epoch(
                {
                    "trial_id": name_of,
                    "attempt": 1,
                    "epoch": epoch,
                    "loss_clean": 2.0 / epoch + 0.123456789 * number,
                    "validation_clean_accuracy": 0.25 * epoch,
                    "validation_robust_accuracy": (curve or {}).get(epoch, 0.125 * epoch),
                    **(_dialled((dials or {}).get(epoch, {})) if number == 1 else {}),
                }
            )
    writer.flush()
    experiment = {"first": [{"method.layers": "last", "method.weight": 1.0}], "sampler": {"name": "tpe", "seed": 0}}
    (study / "study.json").write_text(json.dumps({"name": name, "experiment": experiment, **described}))
    return study


def _dialled(found: dict[str, tuple[float, float]]) -> dict[str, Any]:
    names = ("validation_dial_clean_accuracy", "validation_dial_robust_accuracy")
    return {name: {t: each[i] for t, each in found.items()} for i, name in enumerate(names)} if found else {}


def grow(study: Path, *rows: dict[str, Any]) -> None:
    """What a study looks like when it has these rows: parts are replaced as wholes."""
    other = write(study.parent / "other", *rows, name=study.name)
    for path in sorted(other.rglob("*")):
        if path.is_file():
            (study / path.relative_to(other)).parent.mkdir(exist_ok=True)
            path.replace(study / path.relative_to(other))
    shutil.rmtree(other)


def view_in(report: bytes) -> Any:
    """What the page draws."""
    found = re.search(rb'<script type="text/plain" id="view">(.*?)</script>', report)
    assert found
    return json.loads(zlib.decompress(base64.b64decode(found[1])))
