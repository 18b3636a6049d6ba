"""What a row costs as a study grows to 10,000 trials and 1,000,000 epochs: written, resumed, read.

    python benchmarks/table_scale.py --output benchmarks/table_scale.md

Events stream through StudyRecord as the recorder sends them: 50 trials run side by side, begun one after another, and
each reports an epoch in its turn; a trial's row is written when it starts, after each measured epoch (every tenth) and
when it ends; the tables are flushed whenever a trial ends, and every 100 rows besides. Measured are the first 20,000 of
each 100,000 epochs, all of them with --all; the others are flushed every 5,000. After each 100,000 the study is closed
and opened as `--resume` does, with its unfinished trials. CPU seconds do not count the waiting for the disk, wall
seconds do.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa

from arat_ray.experiment.config import load
from arat_ray.experiment.spec import Experiment
from arat_ray.results import reader
from arat_ray.results.schema import PARAM
from arat_ray.study import description, mending
from arat_ray.study.budget import Watch
from arat_ray.study.record import StudyRecord

AT_ONCE, EVERY, ROWS_A_FLUSH, ROWS_A_FILLING_FLUSH = 50, 10, 100, 5000
FILE = Path(__file__).parent.parent / "search_spaces" / "quickstart.yaml"
SHOWN = "| epochs | CPU us a row | wall us a row | resume, s | resume, us a row | files | MiB | memory, MiB |"


class Block(NamedTuple):
    """One block of rows, and how the study is opened after it."""

    epochs: int
    cpu_us: float
    wall_us: float
    resume_s: float
    files: int
    mib: float
    memory_mib: float


def trial_row(experiment: Experiment, number: int, draw: random.Random) -> dict[str, Any]:
    sampled: dict[str, Any] = {
        "attack.epsilon": draw.uniform(0.02, 0.3),
        "method.balance.adversarial": draw.uniform(0.1, 0.9),
        "method.invariance_weight": draw.uniform(0.1, 10),
        "method.layers": draw.choice(["last", "last-two", "pooled"]),
    }
    config = CONFIG.replace('"invariance_weight": 0.5', f'"invariance_weight": {sampled["method.invariance_weight"]}')
    row = {"trial_id": f"scale-{number:05d}", "attempt": 1, "study": "scale", "number": number, "status": "running"}
    row |= {"config": config, "config_hash": f"{number:016x}", "seed": 0, "workers": 1, "epochs_done": 0}
    row |= {f"param_{path}": value for path, value in sampled.items()}
    attack = experiment.validation.attack
    row |= {"attack": attack.label, "norm": attack.norm, "epsilon": attack.epsilon, "split": "validation"}
    return row | {"is_full_fidelity": False}


def epoch_row(row: dict[str, Any], epoch: int, draw: random.Random) -> dict[str, Any]:
    noise = [draw.random() for _ in range(10)]
    names = ["loss_adversarial", "loss_clean", "loss_invariance", "balance", "learning_rate"]
    names += ["train_clean_accuracy", "train_robust_accuracy", "epoch_s", "attack_s", "images_per_s"]
    found = {"trial_id": row["trial_id"], "attempt": 1, "epoch": epoch, "train_images": 50_000}
    found |= dict(zip(names, noise, strict=True))
    if epoch % EVERY == 0:
        quality = 1 - 0.5 / epoch - 0.3 * noise[0]
        measured = {"validation_clean_accuracy": quality, "validation_robust_accuracy": 1 - quality * noise[1]}
        layers = {f"layer{i}": noise[i] for i in range(8)}
        found |= measured | {"validation_images": 5000, "gradient_cosine": noise[2], "gradient_cosine_by_layer": layers}
    return found


def sampled_in(row: dict[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(PARAM): value for name, value in row.items() if name.startswith(PARAM)}


def changes_of(row: dict[str, Any]) -> dict[str, Any]:
    """What changes in a row of `trials` while it runs, and which row it is."""
    fixed = {"study", "number", "status", "config", "config_hash", "seed", "workers", "attack", "norm", "epsilon"}
    return {name: value for name, value in row.items() if name not in fixed and not name.startswith(PARAM)}


class Stream:
    """The rows of a study in the order in which they come."""

    def __init__(self, experiment: Experiment, epochs: int) -> None:
        self.experiment, self.epochs, self.draw = experiment, epochs, random.Random(0)
        self.next_number, self.round, self.running = 0, 0, dict[int, dict[str, Any]]()

    def write(self, writer: StudyRecord, rows: int, *, fills: bool = False) -> None:
        written = 0
        while rows:
            self.round += 1
            if len(self.running) < AT_ONCE and self.round % (self.epochs // AT_ONCE) == 0:
                row = trial_row(self.experiment, self.next_number, self.draw)
                self.running[self.next_number] = row
                self.next_number += 1
                writer.take({"asked": {"number": row["number"], "sampled": sampled_in(row)}})
                writer.take({"started": dict(row)})
            for number in list(self.running):
                self._report(writer, number, fills=fills)
                written += 1
                if written % (ROWS_A_FILLING_FLUSH if fills else ROWS_A_FLUSH) == 0:
                    writer.flush()
                if written == rows:
                    return

    def _report(self, writer: StudyRecord, number: int, *, fills: bool) -> None:
        row = self.running[number]
        epoch = row["epochs_done"] + 1
        report = epoch_row(row, epoch, self.draw)
        row |= {"epochs_done": epoch, "device": "cuda", "peak_memory_gib": 10.0}
        row |= {"train_s": float(epoch), "device_s": float(epoch), "cost_usd": epoch / 1000}
        event: dict[str, Any] = {"epoch": report}
        if epoch % EVERY == 0:
            row |= {goal: report[f"validation_{goal}"] for goal in self.experiment.maximize}
            row |= {"images": 5000, "is_full_fidelity": epoch == self.epochs}
            event["trial"] = changes_of(row)
        writer.take(event)
        if epoch == self.epochs:
            writer.take({"ended": changes_of(row) | {"status": "complete"}})
            if not fills:
                writer.flush()
            del self.running[number]


def opened(study: Path, experiment: Experiment) -> StudyRecord:
    study.mkdir(parents=True, exist_ok=True)
    record = mending.opened(study, experiment, warn=print)
    if record.is_empty:
        record.begin(description.of_start(experiment, FILE.read_text(), kind="tune", content=None))
    return record


def resumed(study: Path, experiment: Experiment, unfinished: int) -> StudyRecord:
    """What `--resume` reads of the record and the tables."""
    record = opened(study, experiment)
    Watch(experiment, record.state)
    assert len(record.state.unfinished()) == unfinished
    return record


def seconds(call: Callable[[], Any], times: int = 3) -> float:
    """The fastest of a few calls."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return min(taken)


def process_s(*words: str | Path) -> tuple[float, float]:
    """CPU and wall seconds of a command in a process of its own, the fastest of three."""
    command = [sys.executable, "-c", "from arat_ray.cli import main; main()", *map(str, words)]
    taken = []
    for _ in range(3):
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        taken.append((cpu, time.perf_counter() - began))
    return min(taken)


def memory_mib() -> float:
    gc.collect()
    pa.default_memory_pool().release_unused()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=100, help="of a trial")
    parser.add_argument("--block", type=int, default=100_000)
    parser.add_argument("--all", action="store_true", help="measure every row")
    parser.add_argument("--folder", type=Path, help="where the study goes; kept then")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    temporary = Path(tempfile.mkdtemp())
    study = (options.folder or temporary) / "scale"
    shutil.rmtree(study, ignore_errors=True)
    experiment = load(FILE)
    load_before = os.getloadavg()[0]
    lines = measure(experiment, study, options)
    text = "\n".join(lines) + f"\n\n{conditions(load_before)}\n"
    print(text)
    if options.output:
        options.output.write_text(text)
    shutil.rmtree(temporary)


def conditions(load_before: float) -> str:
    versions = f"Python {sys.version.split()[0]}, pyarrow {pa.__version__}, pandas {pd.__version__}, polars "
    versions += f"{pl.__version__}, DuckDB {duckdb.__version__}, numpy {np.__version__}"
    return (
        f"{time.strftime('%Y-%m-%d')}, {versions}; {os.cpu_count()} CPU cores **shared with other programs** (load "
        f"average {load_before:.1f} before, {os.getloadavg()[0]:.1f} after): compare within a table, and CPU rather "
        "than wall."
    )


def measure(experiment: Experiment, study: Path, options: argparse.Namespace) -> list[str]:
    writer, stream = opened(study, experiment), Stream(experiment, options.epochs)
    base, sample = memory_mib(), options.block if options.all else options.block // 5
    blocks: list[Block] = []
    lines = [SHOWN, "|" + 8 * "---|"]
    while (done := sum(block.epochs for block in blocks[-1:])) < options.trials * options.epochs:
        cpu, wall = time.process_time(), time.perf_counter()
        stream.write(writer, sample)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        stream.write(writer, options.block - sample, fills=True)
        assert writer.flush(final=True)
        memory = memory_mib() - base
        del writer
        gc.collect()
        began = time.process_time()
        writer = resumed(study, experiment, len(stream.running))
        resume_s = time.process_time() - began
        files = [path for path in study.rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files) / 2**20
        epochs = done + options.block
        row_us = 1e6 / sample
        blocks.append(Block(epochs, cpu * row_us, wall * row_us, resume_s, len(files), size, memory))
        cells = [f"{epochs:,}", f"{cpu * row_us:.0f}", f"{wall * row_us:.0f}", f"{resume_s:.2f}"]
        cells += [f"{1e6 * resume_s / epochs:.1f}", str(len(files)), f"{size:.0f}", f"{memory:.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    first, last = blocks[0], blocks[-1]
    lines += [
        "",
        f"Last block over first: {last.cpu_us / first.cpu_us:.2f} in CPU and {last.wall_us / first.wall_us:.2f} in "
        f"wall seconds; a resume, for each row that it takes up, "
        f"{last.resume_s / last.epochs / (first.resume_s / first.epochs):.2f}.",
        "",
        *reading(study),
    ]
    return lines


def reading(study: Path) -> list[str]:
    """How long the finished tables take to read."""
    rows = reader.read(study, "epochs", ["epoch"]).num_rows
    glob = f"{study}/epochs/*.parquet"
    reads: dict[str, Callable[[], Any]] = {
        "pyarrow (`arat_ray.results.reader`)": lambda: reader.read(study, "epochs"),
        "pandas": lambda: pd.read_parquet(study / "epochs"),
        "polars": lambda: pl.read_parquet(glob),
        "DuckDB, a mean over all": lambda: str(duckdb.sql(f"select avg(loss_clean) from '{glob}'")),
        "pyarrow, three columns": lambda: reader.read(study, "epochs", ["trial_id", "epoch", "loss_clean"]),
    }
    lines = [f"| reading {rows:,} epochs | s | us a row |", "|---|---|---|"]
    for name, call in reads.items():
        taken = seconds(call)
        lines.append(f"| {name} | {taken:.2f} | {1e6 * taken / rows:.2f} |")
    lines += ["", "| command | CPU s | wall s |", "|---|---|---|"]
    for words in (["pareto"], ["results", "show"], ["results", "trials"]):
        cpu, wall = process_s(*words, study, *(["--limit", "10"] if words[-1] == "trials" else []))
        lines.append(f"| `arat-ray {' '.join(words)}` | {cpu:.2f} | {wall:.2f} |")
    return lines


CONFIG = json.dumps(load(FILE).base.model_dump(mode="json"), sort_keys=True)

if __name__ == "__main__":
    main()
