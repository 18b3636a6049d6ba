"""Seconds of a training step: ARAT here beside the authors' code, and all methods here beside PGD-AT; ResNet-18, CPU.

    git clone https://github.com/futakw/AR-AT
    python benchmarks/step.py --reference AR-AT --width 16 --batch-size 128 --output benchmarks/step.md

Every contender is a process on one thread, with the weights and images of all; they take their turns one after the
other, round by round, so that what else the machine does meets all of them. Ratios are taken within a round. Beside the
Markdown file the same is written as JSON, with every turn. Without `--reference` the authors' code takes no part.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from reference import checkout
from reference.contenders import AUTHORS, PARTS, Turn, race, serve

from arat_ray.training.methods import METHODS

Turns = Mapping[str, Sequence[Turn]]


def quartiles(values: Iterable[float]) -> tuple[float, float, float]:
    """First quartile, median, third."""
    first, median, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, median, third


def shown(values: Iterable[float], digits: int) -> str:
    """`median (first quartile to third)`."""
    first, median, third = quartiles(values)
    return f"{median:.{digits}f} ({first:.{digits}f} to {third:.{digits}f})"


def ratio(turns: Turns, a: str, b: str) -> list[float]:
    """CPU seconds of `a` over those of `b`, round by round."""
    return [mine["cpu"] / other["cpu"] for mine, other in zip(turns[a], turns[b], strict=True)]


def report(turns: Turns, batch_size: int) -> list[str]:
    """Markdown: the times with their ratios, then where they go."""
    lines = [
        "| | CPU ms a step | wall ms a step | images a CPU second | CPU time over PGD-AT's |",
        "|---|---|---|---|---|",
    ]
    for name, taken in turns.items():
        cpu, wall = [turn["cpu"] for turn in taken], [turn["wall"] for turn in taken]
        cells = [
            name,
            shown((1000 * seconds for seconds in cpu), 1),
            shown((1000 * seconds for seconds in wall), 1),
            f"{batch_size / statistics.median(cpu):.0f}",
            shown(ratio(turns, name, "pgd_at"), 2),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    if {AUTHORS, "arat"} <= set(turns):
        over_ours = shown(ratio(turns, AUTHORS, "arat"), 3)
        lines += ["", f"The authors' code takes {over_ours} times the CPU time of `arat`."]
    lines += ["", f"| % of the step's CPU time | {' | '.join(PARTS)} |", "|---|" + "---|" * len(PARTS)]
    for name, taken in turns.items():
        parts = [part for part in PARTS if part in taken[0]]
        shares = {part: statistics.median(100 * turn[part] / turn["cpu"] for turn in taken) for part in parts}
        cells = [f"{shares[part]:.1f}" if part in shares else "-" for part in PARTS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, help="a checkout of github.com/futakw/AR-AT")
    parser.add_argument("--width", type=int, default=16, help="of ResNet-18; 64 is the published one")
    parser.add_argument("--batch-size", type=int, default=128, help="images a step")
    parser.add_argument("--steps", type=int, default=2, help="steps a turn")
    parser.add_argument("--rounds", type=int, default=15, help="rounds that count; 2 or more")
    parser.add_argument("--output", type=Path, help="Markdown file to write, and .json beside it")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS), help="beside pgd_at")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.contender:
        serve(
            given.contender,
            reference=given.reference,
            width=given.width,
            batch_size=given.batch_size,
            steps=given.steps,
        )
        return
    if given.rounds < 2:
        parser.error(f"--rounds {given.rounds}: quartiles need 2 or more")
    names = [name for name in METHODS if name in (*given.methods, "pgd_at")]
    if given.reference:
        names.insert(0, AUTHORS)
    options = [f"--width={given.width}", f"--batch-size={given.batch_size}", f"--steps={given.steps}"]
    if given.reference:
        checkout.load(given.reference)
        options.append(f"--reference={given.reference}")
    before = os.getloadavg()[0]
    turns = race(names, options, rounds=given.rounds)
    conditions = {
        "width": given.width,
        "batch_size": given.batch_size,
        "rounds": given.rounds,
        "steps_a_turn": given.steps,
        "reference": checkout.commit(given.reference) if given.reference else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load_average": [round(before, 1), round(os.getloadavg()[0], 1)],
    }
    told = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in conditions.items())
    lines = ["# A training step", "", f"`python benchmarks/step.py {' '.join(sys.argv[1:])}`", "", f"{told}.", ""]
    lines += [
        "Medians (first to third quartile) over the rounds, one thread, float32, PGD-10 with the settings of each "
        "method's preset. The step is everything but the data, which stands beside it: crop and flip of the "
        "batch here; the authors' loader is left out.",
        "",
        *report(turns, given.batch_size),
    ]
    print(*lines, sep="\n")
    if given.output:
        given.output.write_text("\n".join(lines) + "\n")
        given.output.with_suffix(".json").write_text(json.dumps({"conditions": conditions, "turns": turns}, indent=1))


if __name__ == "__main__":
    main()
