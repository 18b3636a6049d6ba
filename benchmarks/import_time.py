"""What passes before any training: CPU seconds of imports, and of a search up to its first epoch, with the clock's.

    OMP_NUM_THREADS=1 python benchmarks/import_time.py --before CHECKOUT --output benchmarks/import_time.md

User and system time of fresh processes, medians; the checkouts take turns. Seconds on the clock mean something on an
idle machine only.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
PROGRAMS = {
    "`arat-ray --help`": "from arat_ray.cli import main; main(['--help'], standalone_mode=False)",
    "`arat-ray validate`": "from arat_ray.cli import main\n"
    "main(['validate', 'search_spaces/quickstart.yaml'], standalone_mode=False)",
    "the driver of a search": "import arat_ray.cluster.study",
    "the worker of a trial": "import arat_ray.cluster.trials.launch",
    "digits, read": "from arat_ray import Digits; Digits().read('train')",
}
STUDY = """
name: start
train:
  dataset: {name: digits}
  model: {name: tiny, width: 2}
  epochs: 1
  batch_size: 64
  seed: 0
  attack: {name: pgd, norm: linf, epsilon: 0.2, step_size: 0.1, steps: 1}
  method: {name: trades, beta: 1}
search: {method.beta: {uniform: [0, 10]}}
validate: {every: 1, images: 200, attack: {name: pgd, norm: linf, epsilon: 0.2, step_size: 0.1, steps: 1}}
sampler: {name: random, seed: 0}
budget: {trials: 2}
resources: {cpus_per_worker: 1, concurrent_trials: 2}
"""
KINDS = {  # what its command line has: what it is
    "ray::ImplicitFunc": "two workers of trials",
    "ray::IDLE": "workers that wait for tasks",
    "ray::DashboardAgent": "agent of the dashboard",
    "idle_agent.py": "agent of the dashboard",
    "ray::RuntimeEnvAgent": "agent of environments",
    "dashboard/dashboard.py": "dashboard",
    "log_monitor.py": "monitor of logs",
    "monitor.py": "monitor of the autoscaler",
    "core/src/ray": "gcs and raylet",
    " tune ": "driver",
}
CLOCK = "on the clock"
MARK = "ARAT_RAY_IMPORT_TIME"
Times = dict[str, float]


def cpu_of(program: str, checkout: Path) -> float:
    before = os.times()
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    subprocess.run([sys.executable, "-c", program], cwd=checkout, env=environment, check=True, capture_output=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def cpu_of_search(checkout: Path) -> Times:
    """CPU seconds of each kind of process until a row of the first epoch is in the record, and seconds on the clock."""
    with tempfile.TemporaryDirectory() as folder:
        file, mark = Path(folder) / "start.yaml", f"{MARK}={time.time_ns()}"
        file.write_text(STUDY)
        name, _, value = mark.partition("=")
        command = [sys.executable, "-c", "from arat_ray.cli import main; main()", "tune", str(file)]
        began = time.perf_counter()
        search = subprocess.Popen(
            [*command, "--results", folder],
            cwd=checkout,
            env=os.environ | {"PYTHONPATH": str(checkout), name: value},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        names: dict[int, str] = {}
        spent: dict[int, float] = {}
        while search.poll() is None and not has_epoch(Path(folder)):
            look(mark.encode(), names, spent)
            time.sleep(0.1)
        took = time.perf_counter() - began
        search.wait()
    found: Times = {}
    for process, seconds in spent.items():
        kind = next((kind for words, kind in KINDS.items() if words in names[process]), "others")
        found[kind] = found.get(kind, 0.0) + seconds
    return found | {"all": sum(found.values()), CLOCK: took}


def look(mark: bytes, names: dict[int, str], spent: dict[int, float]) -> None:
    """Note the processes that have the mark in their environment, also those that write their title over it."""
    for process in (int(path.name) for path in Path("/proc").glob("[0-9]*")):
        try:
            place = Path(f"/proc/{process}")
            if process not in names and mark not in (place / "environ").read_bytes().split(b"\0"):
                continue
            names[process] = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode() or names.get(process, "")
            fields = (place / "stat").read_text().rpartition(")")[2].split()
            spent[process] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        except OSError:  # it has ended
            continue


def has_epoch(folder: Path) -> bool:
    return any(re.search(rb'"epoch": ?\{', path.read_bytes()) for path in folder.glob("start/journal/record-*"))


def medians(measure: Callable[[Path], Times], checkouts: list[Path], repeats: int) -> list[Times]:
    """What is measured in each checkout, by name; the checkouts take turns."""
    found: list[list[Times]] = [[] for _ in checkouts]
    for _ in range(repeats):
        for checkout, each in zip(checkouts, found, strict=True):
            each.append(measure(checkout))
    return [
        {name: statistics.median(one.get(name, 0.0) for one in each) for name in set().union(*each)} for each in found
    ]


def table(title: str, order: list[str], found: list[Times]) -> list[str]:
    heads = ["before", "now"][-len(found) :]
    lines = [f"| {title} | {' | '.join(heads)} |", "|---" * (len(found) + 1) + "|"]
    return [*lines, *(f"| {name} | {' | '.join(f'{each.get(name, 0):.2f}' for each in found)} |" for name in order)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="another checkout, to compare with")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--searches", type=int, default=3, help="0: imports only, without Ray")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    checkouts = [path.resolve() for path in (options.before, HERE) if path]
    lines = ["# Seconds before any training", ""]
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "ray"))
    lines += [f"`python benchmarks/import_time.py`: {os.cpu_count()} cores, {versions}; medians of {options.repeats}."]
    for program in PROGRAMS.values():
        for checkout in checkouts:
            cpu_of(program, checkout)  # compiled, and in the page cache
    found = medians(
        lambda checkout: {name: cpu_of(program, checkout) for name, program in PROGRAMS.items()},
        checkouts,
        options.repeats,
    )
    lines += ["", *table("a fresh process", list(PROGRAMS), found)]
    if options.searches:
        found = medians(cpu_of_search, checkouts, options.searches)
        there = set().union(*found)
        kinds = [kind for kind in dict.fromkeys((*KINDS.values(), "others", "all", CLOCK)) if kind in there]
        lines += ["", *table(f"a search up to its first epoch, {options.searches} times", kinds, found)]
    print("\n".join(lines))
    if options.output:
        options.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
