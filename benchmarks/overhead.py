"""What a study costs beside its training: trials that only sleep, against the time that the sleep alone would take.

    python benchmarks/overhead.py --output benchmarks/overhead.md

Everything is the product's (searcher, trials, tables, Ray Tune, actors; Ray Train where a trial has several workers)
but for the training loop, which sleeps a second and reports one row. Two trials run at a time. Beside it the same
with a new process for each trial, as Tune does by default, as `arat_ray.tune` in Python starts workers, and as Ray
does, all in one run. Each study is run by a process of its own, as a command is: importing torch and Ray, starting
Ray and the first workers is counted in the whole; the columns after it begin when the first trial has ended.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

AT_ONCE = 2
SERVERS = {"forked": "", "spawned": ", from Python", "none": ", without a fork server"}
"""How workers start: forks of a fork server that a command has forked, or a new Python is, or in Ray's own way."""
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


def study(trials: int, workers: int, *, reuse: bool, server: str) -> tuple[float, float]:
    """Seconds in all, and from the end of the first trial to that of the study; in this process."""
    from arat_ray.cluster import fork_server

    began = time.time()
    if server == "none":
        fork_server.spawned = lambda **_: nullcontext()  # type: ignore[assignment]
    several = workers > 1
    forked = fork_server.started("local", several_workers=several) if server == "forked" else nullcontext()
    with forked, tempfile.TemporaryDirectory() as folder:
        from ray import cloudpickle, tune
        from rich.console import Console

        from arat_ray.cluster import study as tuning
        from arat_ray.cluster.trials import launch
        from arat_ray.experiment.config import load
        from arat_ray.results import reader

        launch.fit = sleep  # type: ignore[attr-defined]
        cloudpickle.register_pickle_by_value(launch)  # so that the actors get the loop that sleeps
        if not reuse:
            configure = tune.TuneConfig
            tune.TuneConfig = lambda **given: configure(**given | {"reuse_actors": False})
        file = Path(folder) / "overhead.yaml"
        file.write_text(STUDY.format(trials=trials, workers=workers, cpus=1 / workers))
        results = Path(folder) / "overhead"
        quiet = Console(quiet=True)
        tuning.run(load(file), file, results, resume=False, address="local", verbose=False, console=quiet)
        ended = time.time()
        rows = reader.read(results, "trials").to_pylist()
    assert [row["status"] for row in rows] == ["complete"] * trials
    first = min(datetime.timestamp(row["ended_at"]) for row in rows)
    return ended - began, ended - first


def in_a_process(trials: int, workers: int, *, reuse: bool, server: str) -> tuple[float, float]:
    """The same, in a process of its own."""
    command = [sys.executable, __file__, "--one", json.dumps([trials, workers, reuse, server])]
    whole, after = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.splitlines()[-1])
    return whole, after


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--trials-anew", type=int, default=8, help="where each trial starts processes of its own")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        trials, workers, reuse, server = options.one
        print(json.dumps(study(trials, workers, reuse=reuse, server=server)))
        return
    lines = [
        "# What a study costs beside its training",
        "",
        f"`python benchmarks/overhead.py`: trials that sleep one second, {AT_ONCE} at a time; {os.cpu_count()} cores, "
        f"torch {version('torch')}, Ray {version('ray')}.",
        "",
        "| | trials | ideal s | s in all | of the ideal | s after the first trial | s a trial then, beyond its sleep |",
        "|---|---|---|---|---|---|---|",
    ]
    kinds = [
        ("a worker a trial", options.trials, 1, True),
        ("the same, a new process for each", options.trials_anew, 1, False),
        ("two workers a trial, Ray Train", options.trials, 2, True),
    ]
    ways = [(*kind, server) for kind in kinds for server in SERVERS]
    for name, trials, workers, reuse, server in ways:
        whole, after = in_a_process(trials, workers, reuse=reuse, server=server)
        ideal = trials / AT_ONCE
        beside = after / (trials - 1) * AT_ONCE - 1
        cells = [
            f"{name}{SERVERS[server]}",
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
