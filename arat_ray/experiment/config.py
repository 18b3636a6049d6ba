"""Experiment files: read from YAML and checked before anything is computed."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from arat_ray.experiment import checks
from arat_ray.experiment.errors import ExperimentError, explain, read_yaml
from arat_ray.experiment.spec import Experiment
from arat_ray.training.run import Train


def load(path: Path, *, opens_data: bool = True) -> Experiment:
    """Read and check an experiment file; without `opens_data` only by itself, and not whether each run can be built.

    Raises ExperimentError, which names the file, the key, the value and what to do, for everything that can be known
    without data and without computing.
    """
    raw = read_yaml(path)
    problems: list[str] = []
    try:
        experiment = Experiment.model_validate(raw)
    except ValidationError as error:
        problems += explain(error, raw)
    if isinstance(raw.get("train"), dict):
        try:
            Train.model_validate(raw["train"])
        except ValidationError as error:
            problems += explain(error, raw["train"], prefix="train")
    if opens_data:
        problems = problems or checks.problems(experiment)
    if problems:
        raise ExperimentError(path, problems)
    return experiment
