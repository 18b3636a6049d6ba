"""ARAT beside PGD-AT on 5,000 CIFAR-10 photographs: trains the files of this folder and writes the table.

    ARAT_CIFAR10=<folder of train.parquet and test.parquet> python benchmarks/first_light/run.py \
        --results results --output benchmarks/first_light.md

Runs that are complete in the results folder are not trained again. Test accuracies come from `arat-ray evaluate`.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from arat_ray.results import reader

HERE = Path(__file__).parent
RUNS = {"pgd_at": "PGD-AT", "arat": "ARAT", "arat_noisy_center": "ARAT, noisy centre"}


def arat_ray(*words: str) -> str:
    command = [sys.executable, "-c", "from arat_ray.cli import main; main()", *words]
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout


def measure(name: str, results: Path) -> dict[str, Any]:
    """Train where it is not done yet, then measure on the test split; the run's row and both test accuracies."""
    study = results / f"first-light-{name.replace('_', '-')}"
    arat_ray("train", str(HERE / f"{name}.yaml"), "--results", str(results), "--resume")
    (row,) = reader.read(study, "trials").to_pylist()
    attack = ("--attack", "pgd", "--epsilon", "8/255", "--steps", "20")
    images = ("--split", "test", "--images", "2000", "--subset", "first")
    clean, robust = json.loads(arat_ray("evaluate", str(study / row["checkpoint"]), *attack, *images, "--json"))
    epochs = reader.read(study, "epochs").to_pylist()
    measured: dict[str, Any] = row | {"clean": clean, "robust": robust, "last": epochs[-1]}
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--runs", nargs="+", choices=list(RUNS), default=list(RUNS))
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    lines = [
        "# First light: 5,000 CIFAR-10 photographs, ResNet-18 of width 16, 10 epochs",
        "",
        "PGD-10 in training, radius 8/255, step 2/255; PGD-20 on the first 2,000 test images; 95 % Wilson intervals; "
        f"one seed; one CPU thread a run, torch {torch.__version__}, {platform.machine()}. "
        "`python benchmarks/first_light/run.py`",
        "",
        "| method | clean, % | PGD-20, % | validation clean / PGD-20, % | PGD-20 on training batches, last epoch, % |",
        "|---|---|---|---|---|",
    ]
    for name in options.runs:
        run = measure(name, options.results)
        cells = [
            f"{100 * each['accuracy']:.2f} [{100 * each['ci_low']:.2f}, {100 * each['ci_high']:.2f}]"
            for each in (run["clean"], run["robust"])
        ]
        held_out = f"{100 * run['clean_accuracy']:.1f} / {100 * run['robust_accuracy']:.1f}"
        lines.append(
            f"| {RUNS[name]} | {' | '.join(cells)} | {held_out} | {100 * run['last']['train_robust_accuracy']:.1f} |"
        )
        print(lines[-1], flush=True)
    if options.output:
        options.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
