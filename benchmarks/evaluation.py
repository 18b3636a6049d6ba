"""What measuring a network costs: PGD and PGD that ends with the first broken iterate, on one checkpoint, on the
CPU.

    arat-ray train search_spaces/quickstart.yaml --results runs
    python benchmarks/evaluation.py runs/quickstart/checkpoints/quickstart-00000/last.pt --output evaluation.md

The attacks take the radius of the checkpoint's own validation, and turns round by round in one process on one
thread; ratios of CPU time are taken within a round. AutoAttack has a benchmark of its own,
`benchmarks/autoattack/wall_time.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from arat_ray.training import checkpoint
from arat_ray.training.accuracy_counts import Counts, count
from arat_ray.training.attacks import SPECS, Attack
from arat_ray.training.data.splits import ImageSet, read
from arat_ray.training.data.subset import choose
from arat_ray.training.memory import keep_freed_memory

Turn = tuple[float, Counts]
"""CPU seconds, and what was counted."""


def attacks(epsilon: float, norm: str, steps: Sequence[int]) -> list[Attack]:
    """PGD and PGD-any at a radius, step size a quarter of it."""
    ball = {"norm": norm, "epsilon": epsilon}
    return [SPECS[name].asked(name, {**ball, "steps": k}) for k in steps for name in ("pgd", "pgd-any")]


def race(
    model: torch.nn.Module, data: ImageSet, contenders: Sequence[Attack], *, rounds: int, batch: int
) -> list[list[Turn]]:
    """Turns by contender; each round begins with another one, and the first round is not counted."""
    turns: list[list[Turn]] = [[] for _ in contenders]
    for number in range(rounds + 1):
        for k in range(len(contenders)):
            at = (number + k) % len(contenders)
            began = time.process_time()
            counts = count(model, data, attack=contenders[at], seed=0, batch_size=batch)
            if number:
                turns[at].append((time.process_time() - began, counts))
    return turns


def shown(values: Iterable[float], digits: int) -> str:
    """`median (first quartile to third)`."""
    first, median, third = statistics.quantiles(values, n=4, method="inclusive")
    return f"{median:.{digits}f} ({first:.{digits}f} to {third:.{digits}f})"


def table(contenders: Sequence[Attack], turns: Sequence[Sequence[Turn]]) -> list[str]:
    """Markdown; each attack beside PGD with as many steps, which stands before it."""
    lines = [
        "| attack | robust accuracy | CPU s | images a CPU second | CPU time of PGD over it |",
        "|---|---|---|---|---|",
    ]
    for at, attack in enumerate(contenders):
        seconds, counted = [turn[0] for turn in turns[at]], turns[at][0][1]
        beside = [turn[0] for turn in turns[at - at % 2]]
        cells = [
            attack.label,
            f"{100 * counted.robust_accuracy:.2f} % of {counted.images}, clean {100 * counted.clean_accuracy:.2f} %",
            shown(seconds, 2),
            f"{counted.images / statistics.median(seconds):.0f}",
            shown((a / b for a, b in zip(beside, seconds, strict=True)), 2),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--images", type=int, default=360, help="of the test split, of each class by its share")
    parser.add_argument("--steps", type=int, nargs="+", default=[10, 20, 50])
    parser.add_argument("--rounds", type=int, default=9, help="rounds that count; 2 or more")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--output", type=Path, help="Markdown file to write, and .json beside it")
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error(f"--rounds {options.rounds}: quartiles need 2 or more")
    try:
        state = checkpoint.load(options.checkpoint)
    except ValueError as error:
        parser.error(str(error))
    torch.set_num_threads(1)
    keep_freed_memory()
    validated = state.validate_spec.attack
    data = read(state.train_spec.dataset.located(), "test")
    chosen = choose(data.labels, min(options.images, len(data.labels)), subset="stratified")
    data = data._replace(images=data.images[chosen], labels=data.labels[chosen])
    contenders = attacks(validated.epsilon, validated.norm, options.steps)
    model = checkpoint.network(state).to(memory_format=torch.channels_last)
    turns = race(model, data, contenders, rounds=options.rounds, batch=options.batch_size)
    conditions: Mapping[str, Any] = {
        "model": state.train["model"],
        "method": state.train["method"]["name"],
        "norm": validated.norm,
        "epsilon": validated.epsilon,
        "images": len(chosen),
        "batch_size": options.batch_size,
        "rounds": options.rounds,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, one thread",
        "load_average": round(os.getloadavg()[0], 1),
    }
    told = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in conditions.items())
    lines = ["# Measuring a network", "", f"`python benchmarks/evaluation.py {' '.join(sys.argv[1:])}`", "", f"{told}."]
    lines += ["", "Medians (first to third quartile) over the rounds.", "", *table(contenders, turns)]
    print(*lines, sep="\n")
    if options.output:
        options.output.write_text("\n".join(lines) + "\n")
        rows = {
            attack.label: [{"cpu_s": seconds, **counts.row()} for seconds, counts in taken]
            for attack, taken in zip(contenders, turns, strict=True)
        }
        options.output.with_suffix(".json").write_text(json.dumps({"conditions": conditions, "turns": rows}, indent=1))


if __name__ == "__main__":
    main()
