"""Experiments from a file, and as a file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from arat_ray.api.data import experiment_of
from arat_ray.api.inputs import AnyPath, as_path, in_python
from arat_ray.experiment.spec import Experiment
from arat_ray.yaml_core import dump


@in_python()
def load_experiment(path: AnyPath, *, data: AnyPath | None = None) -> Experiment:
    """Read and check an experiment file: layer patterns, every value of the search and every data path.

    Nothing is computed and no Ray is started. `data` says where the data lies, if it is not where the file names it.
    Raises ValueError, a line for each problem, that names the file, the key, the value and what to do.

    Example:
        >>> experiment = arat_ray.load_experiment("search_spaces/quickstart.yaml")
        >>> experiment.base.epochs, list(experiment.search)[:1]
        (10, ['attack.epsilon'])
    """
    with experiment_of(as_path(path), None if data is None else str(data)) as experiment:
        return experiment


@contextmanager
def file_of(experiment: Experiment | AnyPath) -> Iterator[Path]:
    """The experiment file of an experiment, within the block: its own, or one that says the same."""
    if not isinstance(experiment, Experiment):
        yield as_path(experiment)
        return
    with tempfile.TemporaryDirectory(prefix="arat-ray-") as folder:
        file = Path(folder, f"{experiment.name}.yaml")
        file.write_text(text_of(experiment), encoding="utf-8")
        try:
            yield file
        except ValueError as error:  # which speaks of a file that the user has not seen
            error.args = tuple(str(part).replace(f"{file}", f"experiment {experiment.name!r}") for part in error.args)
            raise


def text_of(experiment: Experiment) -> str:
    """An experiment as the YAML file that says the same, without what stands for nothing."""
    written: dict[str, Any] = experiment.model_dump(mode="json", by_alias=True)
    for path, domain in experiment.search.items():
        if isinstance(domain.choice, dict):  # JSON has no labels that are integers
            values = written["search"][path]["choice"].values()
            written["search"][path]["choice"] = dict(zip(domain.choice, values, strict=True))
    for section in ("search", "constraints"):
        written[section] = {
            path: {key: value for key, value in given.items() if value is not None and value != {}}
            for path, given in written[section].items()
        }
    return dump({key: value for key, value in written.items() if value is not None and value not in ({}, [])})
