"""MLflow: an experiment for a study in a SQLite database, which every MLflow reads.

(MLflow's other store without a server, a folder of files, is refused by its versions from 3.13 on:
https://github.com/mlflow/mlflow/issues/18534.) How much of a run is there stands in a tag, which is written after the
metrics; those that a kill left without it are written once more, which the database takes as the same.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from arat_ray.text import line
from arat_ray.tracking.runs import Export, Run

DATABASE = "mlflow.db"
ID, POINTS = "arat_ray.id", "arat_ray.points"
STATUSES = {
    "running": "RUNNING",
    "stopped": "SCHEDULED",
    "complete": "FINISHED",
    "pruned": "KILLED",
    "failed": "FAILED",
}
"""What MLflow calls a trial that is stopped and may go on, and one that early stopping has ended."""
METRICS_AT_ONCE, PARAMS_AT_ONCE = 1000, 100
TEXT_AT_MOST, PARAM_AT_MOST = 5000, 6000
_NOT_IN_NAMES = re.compile(r"[^\w\-. /:]")


def write(export: Export, output: Path) -> Path:
    """The runs, in the experiment `export.study` of the database below `output`; the database.

    ValueError where that experiment is another study's, and where the database cannot be written.
    """
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    database = (output / DATABASE).absolute()
    try:
        client = MlflowClient(f"sqlite:///{database}")
        experiment = _experiment(client, export, output)
        there = {run.data.tags.get(ID): run for run in _runs(client, experiment)}
        for run in export.runs:
            _write(client, experiment, run, there.get(run.id))
    except (MlflowException, SQLAlchemyError) as error:
        raise ValueError(
            f"{database} cannot be written: {line(error)}; move it away, or choose another --output"
        ) from error
    return database


def _experiment(client: Any, export: Export, output: Path) -> str:
    found = client.get_experiment_by_name(export.study)
    if found is None:
        artifacts = (output / "artifacts" / export.study).absolute().as_uri()
        return str(client.create_experiment(export.study, artifact_location=artifacts, tags={ID: export.id}))
    if found.tags.get(ID) != export.id:
        raise ValueError(
            f"{output / DATABASE} has an experiment {export.study} that is another; choose another --output"
        )
    return str(found.experiment_id)


def _runs(client: Any, experiment: str) -> Iterator[Any]:
    token = None
    while True:
        page = client.search_runs([experiment], max_results=1000, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _write(client: Any, experiment: str, run: Run, there: Any) -> None:
    if there is None:
        tags = {ID: run.id}
        there = client.create_run(experiment, start_time=round(1000 * run.started), tags=tags, run_name=run.name)
    key, tags = there.info.run_id, there.data.tags
    points = run.points
    metrics = (
        Metric(_named(name), value, round(1000 * point.time), point.step)
        for point in points[int(tags.get(POINTS, 0)) :]
        for name, value in point.values.items()
    )
    while some := list(islice(metrics, METRICS_AT_ONCE)):
        client.log_batch(key, metrics=some)
    known = {**run.knobs, **run.config}
    params = [
        Param(_named(name), _param(value)) for name, value in known.items() if _named(name) not in there.data.params
    ]
    for start in range(0, len(params), PARAMS_AT_ONCE):
        client.log_batch(key, params=params[start : start + PARAMS_AT_ONCE])
    wanted = {**{f"arat_ray.{name}": text[:TEXT_AT_MOST] for name, text in run.facts.items()}, POINTS: f"{len(points)}"}
    if changed := [RunTag(name, text) for name, text in wanted.items() if tags.get(name) != text]:
        client.log_batch(key, tags=changed)
    status, end = STATUSES.get(run.status, "RUNNING"), None if run.ended is None else round(1000 * run.ended)
    if (there.info.status, there.info.end_time) != (status, end):
        client.set_terminated(key, status, end) if run.is_over else client.update_run(key, status)


def _named(name: str) -> str:
    """A name with letters that MLflow takes."""
    return _NOT_IN_NAMES.sub("_", name)


def _param(value: Any) -> str:
    return ("null" if value is None else str(value))[:PARAM_AT_MOST]
