"""The driver of a study is killed at random moments; what stands in the tables in the end?

    python benchmarks/faults.py --kills 20 --output benchmarks/faults.md
    python benchmarks/faults.py --kills 20 --search curves

A small study on digits runs undisturbed. Then the same study runs again, and again where it ends too early, while its
driver gets SIGKILL at random moments and is started with `--resume`, until it was killed so often and is complete. The
tables of each such study must have the rows of the undisturbed one, by keys and counts, with the same knobs and
accuracies, and its journal no trial that is still running. The study is a grid, two trials at a time; or a search with
`curves` and `expected_gain`, one trial at a time, so that each proposal and each decision hangs on all before it.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from arat_ray.experiment.config import load
from arat_ray.results import reader
from arat_ray.results.reading import Reading
from arat_ray.results.schema import PARAM
from arat_ray.results.segments import folder_of
from arat_ray.results.statuses import ENDED
from arat_ray.study.record import event_of
from arat_ray.study.state import StudyState

MARK = f"ARAT_RAY_FAULTS={os.getpid()}".encode()
STUDY = """
name: faults
train:
  dataset: {name: digits}
  model: {name: tiny, width: 8}
  epochs: 6
  batch_size: 64
  optimizer: {name: sgd, learning_rate: 0.1, momentum: 0.9, weight_decay: 5.0e-4}
  seed: 0
  attack: {name: pgd, norm: linf, epsilon: 0.2, step_size: 0.1, steps: 3}
  method: {name: trades, beta: 1}
maximize: [clean_accuracy, robust_accuracy]
validate: {every: 2, images: 200, attack: {name: pgd, norm: linf, epsilon: 0.2, step_size: 0.1, steps: 5}}
"""
SEARCHES = {
    "grid": """
search:
  method.beta: {choice: [0.5, 1, 2, 4]}
  optimizer.learning_rate: {choice: [0.05, 0.1]}
sampler: {name: grid, seed: 0}
resources: {workers: 1, cpus_per_worker: 1, concurrent_trials: 2}
""",
    "curves": """
search:
  method.beta: {loguniform: [0.5, 4]}
  optimizer.learning_rate: {loguniform: [0.01, 0.3]}
sampler: {name: curves, seed: 0}
early_stopping: {name: expected_gain, min_epochs: 2, rung_factor: 2}
budget: {trials: 14}
resources: {workers: 1, cpus_per_worker: 1, concurrent_trials: 1}
""",
}

SEARCHED = ("stop_reason", "proposed_gain")
"""Columns that say why a trial was stopped, and what one that was proposed for its gain promised."""


def start(file: Path, results: Path) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-c",
        "from arat_ray.cli import main; main()",
        "tune",
        str(file),
        "--results",
        str(results),
    ]
    environment = os.environ | {"ARAT_RAY_FAULTS": str(os.getpid())}
    return subprocess.Popen(
        [*command, "--resume"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
    )


def rows(study: Path) -> dict[str, Counter[tuple[Any, ...]]]:
    """How often each trial, and each epoch of it, stands in the tables as the truth, whatever the attempt."""
    trials = reader.read(study, "trials")
    last = reader.keep(trials, reader.latest_attempt(trials))
    epochs = reader.read(study, "epochs")
    return {
        "trials": Counter(zip(last["trial_id"].to_pylist(), last["status"].to_pylist(), strict=True)),
        "epochs": Counter(zip(epochs["trial_id"].to_pylist(), epochs["epoch"].to_pylist(), strict=True)),
    }


def values(study: Path) -> dict[str, dict[str, Any]]:
    """The knobs and the accuracies of each trial, and what decided on it."""
    table = reader.read(study, "trials")
    told = ["clean_accuracy", "robust_accuracy", *SEARCHED, *(name for name in table.column_names if PARAM in name)]
    last = reader.keep(table, reader.latest_attempt(table)).to_pylist()
    return {row["trial_id"]: {name: row[name] for name in told} for row in last}


def states(study: Path) -> Counter[str]:
    """Of the trials in the record, by phase."""
    state = StudyState(load(study / "study.yaml").maximize)
    for line in Reading(folder_of(study)):
        state.apply(event_of(line))
    return Counter(trial.phase for trial in state.trials.values())


def raylets() -> set[int]:
    """Process ids of the node managers of these studies' Ray, which hold all its workers."""
    found = set()
    for proc in Path("/proc").glob("[0-9]*"):
        try:
            if b"/raylet/raylet" in (proc / "cmdline").read_bytes() and MARK in (proc / "environ").read_bytes():
                found.add(int(proc.name))
        except OSError:  # it has ended
            continue
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--folder", type=Path, default=Path("results/faults"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--search", choices=list(SEARCHES), default="grid")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    shutil.rmtree(options.folder, ignore_errors=True)
    options.folder.mkdir(parents=True)
    file = options.folder / "faults.yaml"
    file.write_text(STUDY + SEARCHES[options.search])
    began = time.monotonic()
    assert start(file, options.folder / "undisturbed").wait() == 0
    whole_s = time.monotonic() - began
    undisturbed = options.folder / "undisturbed" / "faults"
    expected, expected_values = rows(undisturbed), values(undisturbed)
    kills, studies, moments, problems = 0, 0, list[float](), list[str]()
    while kills < options.kills:
        results = options.folder / f"killed-{studies}"
        studies += 1
        while True:
            driver = start(file, results)
            wait = draw.uniform(0.05, 0.9) * whole_s
            try:
                if kills >= options.kills:
                    driver.wait()
                else:
                    driver.wait(wait)
                break
            except subprocess.TimeoutExpired:
                os.kill(driver.pid, signal.SIGKILL)
                driver.wait()
                kills += 1
                moments.append(wait)
                print(f"kill {kills} after {wait:.0f} s", flush=True)
        study = results / "faults"
        if driver.returncode != 0:
            problems.append(f"{study}: exit code {driver.returncode}")
        for name, found in rows(study).items():
            if found != expected[name]:
                problems.append(f"{study}: {name} differ: {(found - expected[name]) + (expected[name] - found)}")
        if values(study) != expected_values:
            problems.append(f"{study}: other knobs, accuracies or reasons than undisturbed")
        running = {state: count for state, count in states(study).items() if state not in ENDED}
        if running:
            problems.append(f"{study}: the journal still has {running}")
    deadline = time.monotonic() + 60
    while raylets() and time.monotonic() < deadline:
        time.sleep(1)
    if raylets():
        problems.append(f"Ray processes left over: {raylets()}")
    attempts = sum(reader.read(options.folder / f"killed-{i}" / "faults", "trials").num_rows for i in range(studies))
    trials, epochs = (sum(expected[name].values()) for name in ("trials", "epochs"))
    stopped, by_gain = (sum(each[name] is not None for each in expected_values.values()) for name in SEARCHED)
    none = "Lost rows: 0. Doubled rows: 0. Other knobs or accuracies: 0. Trials running: 0. Processes left: 0."
    lines = [
        "# A driver killed at random moments",
        "",
        f"`python benchmarks/faults.py --kills {options.kills} --search {options.search}`: a study of {trials} trials "
        f"and {epochs} epochs ({by_gain} proposed by gain, {stopped} stopped), {whole_s:.0f} s undisturbed; {kills} "
        f"SIGKILLs over {studies} such studies, {min(moments):.0f} to {max(moments):.0f} s after a start, {attempts} "
        f"attempts at {studies * trials} trials.",
        "",
        *(problems or [none]),
    ]
    if options.output:
        options.output.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
