"""What threads that spin while they wait cost an evaluation on cores that others use too, and what sleeping costs.

    arat-ray train search_spaces/quickstart.yaml --results runs
    python benchmarks/busy_cores.py runs/quickstart/checkpoints/quickstart-00000/last.pt --epsilon 0.2

PGD-20 on test images, in a process of its own each time, in turns: two OpenMP threads and more wait for each other at
each operator, spinning (GNU OpenMP's way where nothing is said) or asleep (OMP_WAIT_POLICY=passive, what `arat-ray`
sets where nothing is said); and one thread. First alone, then beside a process a core that computes. Seconds of wall
time, the first evaluation of a process not counted. A copy of the checkpoint is measured, so that nothing is kept.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

KINDS: Mapping[str, Mapping[str, str]] = {
    "spin": {},
    "sleep": {"OMP_WAIT_POLICY": "passive"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
EVALUATE = """
import sys, time
import arat_ray
for seed in range(2):
    began = time.perf_counter()
    given = {"split": "test", "epsilon": sys.argv[2], "images": int(sys.argv[3]), "device": "cpu"}
    report = arat_ray.evaluate(sys.argv[1], attack="pgd", seed=seed, **given)
print(time.perf_counter() - began, report.robust.correct)
"""
COMPUTE = "while True: sum(range(10000))"


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """So many others that compute without a pause."""
    others = [subprocess.Popen([sys.executable, "-c", COMPUTE]) for _ in range(processes)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def seconds(kind: str, checkpoint: Path, epsilon: str, images: int) -> float:
    """Of one evaluation."""
    unset = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copy(checkpoint, folder)
        command = [sys.executable, "-c", EVALUATE, copy, epsilon, str(images)]
        environment = {**unset, **KINDS[kind]}
        output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    return float(output.split()[-2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--epsilon", required=True)
    parser.add_argument("--images", type=int, default=360)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(f"| {options.images} images, {os.cpu_count()} cores | {' | '.join(KINDS)} | spin / sleep |")
    print("|---" * (len(KINDS) + 2) + "|")
    for beside in (0, os.cpu_count() or 1):
        took: dict[str, list[float]] = {kind: [] for kind in KINDS}
        with busy(beside):
            for _ in range(options.rounds):
                for kind in KINDS:
                    took[kind].append(seconds(kind, options.checkpoint, options.epsilon, options.images))
        cells = [f"{statistics.median(values):.2f} [{min(values):.2f}, {max(values):.2f}]" for values in took.values()]
        ratio = statistics.median(a / b for a, b in zip(took["spin"], took["sleep"], strict=True))
        print(f"| {f'beside {beside} others' if beside else 'alone'} | {' | '.join(cells)} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
