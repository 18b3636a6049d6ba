"""Weights & Biases: a folder for each run, as its own library writes it offline and `wandb sync` takes it.

`wandb sync` of a run that was sent before replaces what is there, so a run that has changed is written anew and takes
the place of its folder.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import wandb

from arat_ray import whole_files
from arat_ray.tracking.runs import Export, Point, Run

STATE = "arat-ray.json"
"""In a folder: a digest of what was written to it."""


def write(export: Export, output: Path) -> Path:
    """The runs of project `export.study`, as `output`/wandb/offline-run-*; the folder of these. OSError if it fails."""
    folder = output.absolute() / "wandb"
    for run in export.runs:
        digest = hashlib.sha256(json.dumps(_content(run), sort_keys=True).encode()).hexdigest()
        there = sorted(folder.glob(f"offline-run-*-{run.id}"))
        whole = [path for path in there if _is_of(path, digest)]
        if not whole:
            whole = [_write(run, output)]
            whole_files.replace(whole[0] / STATE, json.dumps({"digest": digest}).encode())
        for path in there:
            if path not in whole[:1]:
                shutil.rmtree(path)
    return folder


def _write(run: Run, output: Path) -> Path:
    settings = wandb.Settings(
        console="off",
        disable_git=True,
        disable_code=True,
        save_code=False,
        silent=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )
    with_knobs = {**run.config, **run.knobs}
    with wandb.init(
        mode="offline",
        dir=output,
        project=run.study,
        id=run.id,
        name=run.name,
        tags=[run.status],
        config=with_knobs,
        settings=settings,
    ) as writing:
        folder = Path(writing.dir).parent
        writing.config.update({"trial": dict(run.facts)})
        points = _once(run)
        for place, point in enumerate(points):
            is_last_of_step = place + 1 == len(points) or points[place + 1].step != point.step
            times = {"_timestamp": point.time, "_runtime": max(point.time - run.started, 0.0), "epoch": point.step}
            writing.log({**point.values, **times}, step=point.step, commit=is_last_of_step)
        writing.summary["status"] = run.status
        writing.finish(exit_code=1 if run.status == "failed" else 0)
    return folder


def _once(run: Run) -> list[Point]:
    """The points in the order of their steps, of epochs that were measured again the later ones; a step is one row."""
    epochs = {point.step: point for point in run.epochs}
    return sorted([*epochs.values(), *run.points[len(run.epochs) :]], key=lambda point: point.step)


def _content(run: Run) -> object:
    known = [run.name, run.status, dict(run.config), dict(run.knobs), dict(run.facts), run.started, run.ended]
    return [*known, [[point.step, point.time, dict(point.values)] for point in _once(run)]]


def _is_of(folder: Path, digest: str) -> bool:
    try:
        return bool(json.loads((folder / STATE).read_bytes())["digest"] == digest)
    except (OSError, ValueError, LookupError, TypeError):
        return False
