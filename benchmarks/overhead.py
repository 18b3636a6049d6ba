"""What a study costs beside its training: trials that only sleep, against the time that the sleep alone would take.

    python benchmarks/overhead.py --output benchmarks/overhead.md

Everything is the product's (searcher, trials, tables, Ray Tune, actors; Ray Train where a trial has several workers)
but for the training loop, which sleeps a second and reports one row. Two trials run at a time. Beside it the same
with a new process for each trial, as Tune does by default, in the same run. Starting Ray
and the first workers is counted in the whole; the columns after it begin when the first trial has ended.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")

import torch
from ray import cloudpickle, tune
from rich.console import Console

from arat_ray.cluster import study as tuning
from arat_ray.cluster.trials import launch
from arat_ray.experiment.config import load
from arat_ray.results import reader

AT_ONCE = 2
TuneConfig = tune.TuneConfig
STUDY = """
name: overhead
train:
  dataset: {{name: digits}}
  model: {{name: tiny}}
  epochs: 1
  batch_size: 64
  optimizer: {{name: sgd, learning_rate: 0.1, momentum: 0.9, weight_decay: 5.0e-4}}
  seed: 0
  attack: {{name: pgd, norm: linf, epsilon: 0.2, step_size: 0.1, steps: 3}}
  method: {{name: trades, beta: 1}}
search:
  method.beta: {{uniform: [0, 10]}}
maximize: [clean_accuracy, robust_accuracy]
validate: {{every: 1, images: 200, attack: {{name: pgd, norm: linf, epsilon: 0.2, step_size: 0.1, steps: 5}}}}
sampler: {{name: tpe, seed: 0}}
budget: {{trials: {trials}}}
resources: {{workers: {workers}, cpus_per_worker: {cpus}, concurrent_trials: 2}}
"""


def sleep(train: Any, validate: Any, context: Any) -> None:
    """In the place of the training loop."""
    import time

    began = time.perf_counter()
    time.sleep(1)
    goals = {"validation_clean_accuracy": 0.5, "validation_robust_accuracy": train.method.beta / 20}
    context.report({"epoch": 1, "validation_images": 200, "epoch_s": time.perf_counter() - began, **goals}, False)


def new_processes(**given: Any) -> tune.TuneConfig:
    """In the place of Tune's configuration: an actor for each trial."""
    return TuneConfig(**given | {"reuse_actors": False})


def study(trials: int, workers: int, *, reuse: bool = True) -> tuple[float, float]:
    """Seconds in all, and from the end of the first trial to that of the study."""
    tune.TuneConfig = TuneConfig if reuse else new_processes
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "overhead.yaml"
        file.write_text(STUDY.format(trials=trials, workers=workers, cpus=1 / workers))
        began, quiet = time.time(), Console(quiet=True)
        results = Path(folder) / "overhead"
        tuning.run(load(file), file, results, resume=False, address="local", verbose=False, console=quiet)
        ended = time.time()
        rows = reader.read(results, "trials").to_pylist()
        assert [row["status"] for row in rows] == ["complete"] * trials
        first = min(datetime.timestamp(row["ended_at"]) for row in rows)
        return ended - began, ended - first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--trials-anew", type=int, default=8, help="where each trial starts processes of its own")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    launch.fit = sleep  # type: ignore[attr-defined]
    cloudpickle.register_pickle_by_value(launch)  # so that the actors get the loop that sleeps
    lines = [
        "# What a study costs beside its training",
        "",
        f"`python benchmarks/overhead.py`: trials that sleep one second, {AT_ONCE} at a time; {os.cpu_count()} cores, "
        f"torch {torch.__version__}.",
        "",
        "| | trials | ideal s | s in all | of the ideal | s after the first trial | s a trial then, beyond its sleep |",
        "|---|---|---|---|---|---|---|",
    ]
    kinds = [
        ("a worker a trial", options.trials, 1, True),
        ("the same, a new process for each", options.trials_anew, 1, False),
        ("two workers a trial, Ray Train", options.trials, 2, True),
    ]
    for name, trials, workers, reuse in kinds:
        whole, after = study(trials, workers, reuse=reuse)
        ideal = trials / AT_ONCE
        beside = after / (trials - 1) * AT_ONCE - 1
        cells = [
            name,
            trials,
            f"{ideal:.0f}",
            f"{whole:.1f}",
            f"**{whole / ideal:.2f}**",
            f"{after:.1f}",
            f"{beside:.2f}",
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
        print(lines[-1], flush=True)
    if options.output:
        options.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
