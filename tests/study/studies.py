"""Finished studies as their folders hold them, with nothing trained."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from arat_ray.experiment.spec import Experiment
from arat_ray.study.description import metadata, param_types
from arat_ray.study.tables import StudyTables


def study_of(
    experiment: Experiment,
    folder: Path,
    *samples: Mapping[str, Any],
    points: Sequence[tuple[float, float]] = (),
) -> Path:
    """A complete trial for each sample, with these clean and robust accuracies where given, and study.json."""
    study = folder / experiment.name
    writer = StudyTables(study, params=param_types(experiment), metadata=metadata(experiment))
    for number, sampled in enumerate(samples):
        train = experiment.resolve(sampled)
        config = json.dumps(train.model_dump(mode="json"), sort_keys=True)
        row = {"trial_id": f"{experiment.name}-{number:05d}", "attempt": 1, "number": number, "status": "complete"}
        row |= {"config": config, "config_hash": hashlib.sha256(config.encode()).hexdigest()[:16], "seed": train.seed}
        row |= {"is_full_fidelity": True, "epochs_done": train.epochs, "images": 500}
        if points:
            row |= dict(zip(("clean_accuracy", "robust_accuracy"), points[number], strict=True))
        writer.trial(row | {f"param_{path}": value for path, value in sampled.items()})
    writer.flush()
    given = {"experiment": experiment.model_dump(mode="json", by_alias=True)}
    (study / "study.json").write_text(json.dumps(given))
    return study
