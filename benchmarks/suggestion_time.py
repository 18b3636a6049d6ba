"""Seconds that a sampler takes for its next suggestion, after 10, 100, 1,000 and 5,000 finished trials.

    OMP_NUM_THREADS=1 python benchmarks/suggestion_time.py

The search space is that of search_spaces/layers.yaml (one interval, two choices), with both of its goals; values are
synthetic. What is timed is `StudyTrials.ask`: the sampler and Optuna's journal on disk, as in a study. A sampler's row
ends where one suggestion takes more than LIMIT_S.
"""

from __future__ import annotations

import os
import platform
import random
import signal
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import optuna
import torch

from arat_ray.experiment.config import load
from arat_ray.experiment.spec import Experiment, Sampler
from arat_ray.study.record import StudyRecord
from arat_ray.study.trials import GENERATION, StudyTrials

HERE = Path(__file__).parent
SPACE = HERE.parent / "search_spaces" / "layers.yaml"
SAMPLERS = ("random", "nsga2", "tpe", "curves", "gp")
TOLD = (10, 100, 1_000, 5_000)
RUNNING = (0, 3)
"""Trials that are running while the next one is asked for."""
LIMIT_S = 20.0
REPEATS = 3
POPULATION = 50


class TooSlowError(Exception):
    """One suggestion took more than LIMIT_S."""


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise TooSlowError in the block when it takes longer."""

    def stop(number: int, frame: object) -> None:
        raise TooSlowError

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def finished(experiment: Experiment, count: int) -> list[optuna.trial.FrozenTrial]:
    """Random points of the space; heavier is more robust and less clean, with noise that leaves a front of several."""
    draw = random.Random(0)
    domains = {path: domain.distribution() for path, domain in experiment.search.items()}
    trials = []
    for number in range(count):
        weight = 300 ** draw.random()
        sampled = {"method.invariance_weight": weight}
        for path, domain in experiment.search.items():
            if domain.labels is not None:
                sampled[path] = draw.choice(domain.labels)
        share = weight / 300
        values = [0.9 - 0.1 * share + draw.gauss(0, 0.01), 0.4 + 0.1 * share**0.5 + draw.gauss(0, 0.01)]
        trials.append(
            optuna.trial.create_trial(
                values=values,
                params=sampled,
                distributions=domains,
                system_attrs={GENERATION: number // POPULATION},
            )
        )
    return trials


def opened(folder: Path, experiment: Experiment) -> StudyTrials:
    return StudyTrials(experiment, StudyRecord(folder, experiment, warn=print))


def seconds(experiment: Experiment, trials: list[optuna.trial.FrozenTrial], running: int, folder: Path) -> float:
    """The median time of a suggestion after these trials, a first one not counted."""
    study_trials = opened(folder, experiment.model_copy(update={"first": []}))
    study_trials.study.add_trials(trials)
    took = []
    for repeat in range(1 + REPEATS):
        while len(study_trials._in_optuna) < (running if repeat else 0):
            with at_most(LIMIT_S):
                study_trials.ask()
        began = time.perf_counter()
        with at_most(LIMIT_S):
            asked = study_trials.ask()
        took.append(time.perf_counter() - began)
        study_trials.complete(asked.number, [0.85, 0.45])
    return statistics.median(took[1:])


def grid_seconds(base: Experiment, count: int, folder: Path) -> float:
    """The median time of asking for the next of a grid's combinations after so many."""
    weights = {"choice": [float(1 + number) for number in range(count + 1 + REPEATS)]}
    text = base.model_dump(mode="json", by_alias=True) | {"search": {"method.invariance_weight": weights}, "first": []}
    text |= {"sampler": {"name": "grid", "seed": 0}, "budget": {}, "early_stopping": None}
    study_trials = opened(folder, Experiment.model_validate(text))
    took = []
    for _ in range(count + REPEATS):
        began = time.perf_counter()
        asked = study_trials.ask()
        took.append(time.perf_counter() - began)
        study_trials.complete(asked.number, [0.85, 0.45])
    return statistics.median(took[-REPEATS:])


def main() -> None:
    torch.set_num_threads(1)
    base = load(SPACE)
    told = {count: finished(base, count) for count in TOLD}
    load_before = os.getloadavg()[0]
    lines = []
    for name in SAMPLERS:
        experiment = base.model_copy(update={"sampler": Sampler.model_validate({"name": name, "seed": 0})})
        for running in RUNNING:
            cells: list[str] = []
            for count in TOLD:
                if cells and cells[-1].startswith((">", "-")):
                    cells.append("-")
                    continue
                with tempfile.TemporaryDirectory() as folder:
                    try:
                        cells.append(f"{seconds(experiment, told[count], running, Path(folder)):.3f}")
                    except TooSlowError:
                        cells.append(f"> {LIMIT_S:g}")
            lines.append(f"| `{name}` | {running} | {' | '.join(cells)} |")
            print(lines[-1], flush=True)
    cells = []
    for count in TOLD[:-1]:
        with tempfile.TemporaryDirectory() as folder:
            cells.append(f"{grid_seconds(base, count, Path(folder)):.3f}")
    lines.append(f"| `grid` | 0 | {' | '.join([*cells, '-'])} |")
    print(lines[-1], flush=True)
    versions = ", ".join(f"{library} {version(library)}" for library in ("optuna", "torch", "scipy", "numpy"))
    header = f"| sampler | running | {' | '.join(f'{count:,} told' for count in TOLD)} |"
    print("", header, "|---|" + "---|" * (1 + len(TOLD)), *lines, sep="\n")
    load_after = os.getloadavg()[0]
    print(f"\n{datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, {versions}, one thread")
    print(f"{os.cpu_count()} CPU cores; load average {load_before:.1f} before and {load_after:.1f} after")


if __name__ == "__main__":
    main()
