"""Seconds that a sampler takes for its next suggestion, after 10, 100, 1,000 and 5,000 finished trials.

    OMP_NUM_THREADS=1 python benchmarks/suggestion_time.py
    OMP_NUM_THREADS=1 python benchmarks/suggestion_time.py --only curves

The search space is that of search_spaces/layers.yaml (one interval, two choices), with both of its goals; values are
synthetic. What is timed is `StudyTrials.ask`: the sampler and Optuna's journal on disk, as in a study. A sampler's row
ends where one suggestion takes more than LIMIT_S.

`curves` is told by the study's record, as in a study: of each trial what it measured every ten epochs, and that two in
three were stopped at a rung. A decision of `expected_gain` is timed beside it, and either one also when it falls on a
number of rows at which hyperparameters are fitted anew; in CPU seconds, of a process with one thread.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import random
import signal
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import optuna
import torch

from arat_ray.experiment.config import load
from arat_ray.experiment.spec import Experiment, Sampler
from arat_ray.frontier.curves import Curves
from arat_ray.frontier.expected_gain import GainJudge
from arat_ray.study.curve_sampler import CurveSampler
from arat_ray.study.record import StudyRecord
from arat_ray.study.state import trial_id
from arat_ray.study.trials import GENERATION, StudyTrials

HERE = Path(__file__).parent
SPACE = HERE.parent / "search_spaces" / "layers.yaml"
SAMPLERS = ("random", "nsga2", "tpe", "gp", "grid")
TOLD = (10, 100, 1_000, 5_000)
RUNNING = (0, 3)
"""Trials that are running while the next one is asked for."""
LIMIT_S = 20.0
REPEATS = 3
EVERY = 10
"""Epochs between two measurements of a trial."""
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


def told_curves(experiment: Experiment, count: int, running: int, folder: Path) -> StudyTrials:
    """A study whose record has heard of so many random trials that ended, two in three at a rung, and of running ones
    that have come to the first rung."""
    study_trials, draw = opened(folder, experiment.model_copy(update={"first": []})), random.Random(0)
    whole, rungs = experiment.base.epochs, rungs_of(experiment)
    for number in range(count + running):
        sampled: dict[str, Any] = {"method.invariance_weight": 300 ** draw.random()}
        sampled |= {path: draw.choice(domain.labels) for path, domain in experiment.search.items() if domain.labels}
        study_trials.record.take({"asked": {"number": number, "sampled": sampled, "proposal": {"by": "random"}}})
        until = rungs[0] if number >= count else [whole, *rungs][number % 3]
        goals = train(study_trials, number, until, draw)
        if number < count:
            end(study_trials, number, goals if until == whole else None)
    study_trials._next_number = count + running
    return study_trials


def train(study_trials: StudyTrials, number: int, until: int, draw: random.Random) -> list[float]:
    """A trial that has been asked for measures its goals every few epochs; the last ones."""
    record, experiment = study_trials.record, study_trials.experiment
    key: dict[str, Any] = {"trial_id": trial_id(experiment.name, number), "attempt": 1}
    record.take({"started": {**key, "number": number, "status": "running"}})
    weight = record.state.trials[number].sampled["method.invariance_weight"] / 300
    luck, goals = (draw.gauss(0, 0.01), draw.gauss(0, 0.01)), [0.0, 0.0]
    for epoch in range(EVERY, until + 1, EVERY):
        learned = 1 - 0.3 * math.exp(-epoch / 30)
        goals = [(0.9 - 0.1 * weight + luck[0]) * learned, (0.4 + 0.1 * weight**0.5 + luck[1]) * learned]
        values = {f"validation_{goal}": value for goal, value in zip(experiment.maximize, goals, strict=True)}
        record.take({"epoch": {**key, "epoch": epoch, "validation_images": 5000, **values}})
    return goals


def end(study_trials: StudyTrials, number: int, goals: list[float] | None) -> None:
    """It ends whole with these goals, or was stopped."""
    experiment = study_trials.experiment
    row: dict[str, Any] = {"trial_id": trial_id(experiment.name, number), "attempt": 1, "status": "pruned"}
    if goals is not None:
        row |= {"status": "complete", "is_full_fidelity": True} | dict(zip(experiment.maximize, goals, strict=True))
    study_trials.record.take({"ended": row})


def rungs_of(experiment: Experiment) -> list[int]:
    assert experiment.early_stopping is not None
    return experiment.early_stopping.rungs(experiment.base.epochs)


def curves_seconds(experiment: Experiment, count: int, running: int, folder: Path) -> list[float]:
    """CPU seconds of a suggestion without and with a fit, and of a decision without and with one: medians."""
    study_trials, draw = told_curves(experiment, count, running, folder), random.Random(1)
    curves, sampler = study_trials.curves, study_trials.study.sampler
    assert curves is not None
    assert isinstance(sampler, CurveSampler)
    sampler.random_share = 0.0
    judge = GainJudge(curves, rungs_of(experiment), slack=0.4)
    took: dict[tuple[str, bool], list[float]] = {}
    for _ in range(1 + REPEATS):
        for fits in (False, True):
            _let_go(curves, fits)
            began = time.process_time()
            number = study_trials.ask().number
            took.setdefault(("suggestion", fits), []).append(time.process_time() - began)
            goals = train(study_trials, number, EVERY, draw)
            _let_go(curves, fits)
            began = time.process_time()
            judge.decide(number, EVERY, goals)
            took.setdefault(("decision", fits), []).append(time.process_time() - began)
            study_trials._in_optuna.pop(number)
            end(study_trials, number, None)
    return [statistics.median(took[what, fits][1:]) for what in ("suggestion", "decision") for fits in (False, True)]


def _let_go(curves: Curves, fits: bool) -> None:
    """Of hyperparameters, so that they are fitted anew."""
    if fits:
        curves._fits.clear()


def grid_seconds(base: Experiment, count: int, folder: Path) -> float:
    """The median time of asking for the next of a grid's combinations after so many."""
    values = range(1, 1 + math.ceil(math.sqrt(count + 1 + REPEATS)))
    search = {"method.invariance_weight": {"choice": [float(value) for value in values]}}
    search["optimizer.learning_rate"] = {"choice": [0.001 * value for value in values]}
    text = base.model_dump(mode="json", by_alias=True) | {"search": search, "first": []}
    text |= {"sampler": {"name": "grid", "seed": 0}, "budget": {}, "early_stopping": None}
    study_trials = opened(folder, Experiment.model_validate(text))
    took = []
    for _ in range(count + REPEATS):
        began = time.perf_counter()
        asked = study_trials.ask()
        took.append(time.perf_counter() - began)
        study_trials.complete(asked.number, [0.85, 0.45])
    return statistics.median(took[-REPEATS:])


def rows(base: Experiment, names: Sequence[str]) -> Iterator[str]:
    """The table of all samplers but `curves`."""
    told = {count: finished(base, count) for count in TOLD}
    for name in names:
        experiment = base.model_copy(update={"sampler": Sampler.model_validate({"name": name, "seed": 0})})
        for running in RUNNING if name != "grid" else [0]:
            cells: list[str] = []
            for count in TOLD:
                if (cells and cells[-1].startswith((">", "-"))) or (name == "grid" and count == TOLD[-1]):
                    cells.append("-")
                    continue
                with tempfile.TemporaryDirectory() as folder:
                    try:
                        if name == "grid":
                            cells.append(f"{grid_seconds(base, count, Path(folder)):.3f}")
                        else:
                            cells.append(f"{seconds(experiment, told[count], running, Path(folder)):.3f}")
                    except TooSlowError:
                        cells.append(f"> {LIMIT_S:g}")
            yield f"| `{name}` | {running} | {' | '.join(cells)} |"


def rows_of_curves(base: Experiment) -> Iterator[str]:
    """The table of `curves` and `expected_gain`."""
    experiment = base.model_copy(update={"sampler": Sampler(name="curves", seed=0)})
    for count in TOLD:
        for running in RUNNING:
            with tempfile.TemporaryDirectory() as folder:
                cells = [f"{each:.3f}" for each in curves_seconds(experiment, count, running, Path(folder))]
            yield f"| {count:,} | {running} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=["curves", *SAMPLERS], help="these alone; repeatable")
    names = parser.parse_args().only or ["curves", *SAMPLERS]
    torch.set_num_threads(1)
    base, load_before = load(SPACE), os.getloadavg()[0]
    if others := [name for name in names if name != "curves"]:
        header = f"| sampler | running | {' | '.join(f'{count:,} told' for count in TOLD)} |"
        print(header, "|---|" + "---|" * (1 + len(TOLD)), sep="\n")
        for row in rows(base, others):
            print(row, flush=True)
    if "curves" in names:
        print("| told | running | `curves` suggests | with a fit | `expected_gain` decides | with a fit |")
        print("|---|---|---|---|---|---|")
        for row in rows_of_curves(base):
            print(row, flush=True)
    versions = ", ".join(f"{library} {version(library)}" for library in ("optuna", "torch", "scipy", "numpy"))
    load_after = os.getloadavg()[0]
    print(f"\n{datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, {versions}, one thread")
    print(f"{os.cpu_count()} CPU cores; load average {load_before:.1f} before and {load_after:.1f} after")


if __name__ == "__main__":
    main()
