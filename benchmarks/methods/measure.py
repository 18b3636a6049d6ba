"""All methods on one budget, and ARAT's mechanisms one by one: trains what is missing and writes the tables.

    ARAT_CIFAR10=<folder of train.parquet and test.parquet> python benchmarks/methods/measure.py \
        --results results --output benchmarks/methods.md

Both studies go on where they were interrupted. APGD is APGD-CE, then targeted APGD-DLR on what it left, with
AutoAttack's parameters but three targets in the place of nine, by `pip install pyautoattack==0.2.0`: the two attacks
that decide nearly all of AutoAttack's verdicts. Seconds per epoch are measured at the end, the methods' steps in turn.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from arat_ray.experiment.config import load
from arat_ray.frontier.dominance import wilson
from arat_ray.results import reader
from arat_ray.training import checkpoint
from arat_ray.training.accuracy_counts import to_unit
from arat_ray.training.data import splits
from arat_ray.training.randomness import Noise, generator
from arat_ray.training.run import Train

HERE = Path(__file__).parent
EPSILON = 8 / 255
TABLES = ["methods", "timing", "ablation"]
Row = dict[str, Any]


def arat_ray(*words: str) -> str:
    command = [sys.executable, "-c", "from arat_ray.cli import main; main()", *words]
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout


def complete(results: Path, name: str, *, train: bool) -> list[Row]:
    """The complete trials of a study, trained first where they are missing."""
    file = HERE / f"{name}.yaml"
    study = results / load(file).name
    if train:
        arat_ray("tune", str(file), "--results", str(results), *(["--resume"] if study.exists() else []))
    rows = [row for row in reader.read(study, "trials").to_pylist() if row["status"] == "complete"]
    return [row | {"study_folder": study} for row in rows]


def test_images(train: Train, count: int) -> tuple[Tensor, Tensor]:
    images, labels, _ = splits.read(train.dataset, "test")
    return to_unit(images[:count]), labels[:count]


def apgd(path: Path, images: int) -> int:
    """How many of the first test images survive APGD-CE and targeted APGD-DLR."""
    from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted

    state = checkpoint.load(path)
    model = checkpoint.network(state).requires_grad_(False).to(memory_format=torch.channels_last)
    x, y = _right(model, *test_images(state.train_spec, images))
    fields = {"n_iter": 100, "norm": "Linf", "n_restarts": 1, "eps": EPSILON, "seed": 0, "rho": 0.75, "device": "cpu"}
    for attack in (APGDAttack(model, loss="ce", **fields), APGDAttack_targeted(model, n_target_classes=3, **fields)):
        survived = [
            _right(model, attack.perturb(batch, labels), labels, keep=batch)
            for batch, labels in zip(x.split(250), y.split(250), strict=True)
        ]
        x, y = torch.cat([batch for batch, _ in survived]), torch.cat([labels for _, labels in survived])
        if not len(y):
            break
    return len(y)


@torch.no_grad()
def _right(model: torch.nn.Module, x: Tensor, y: Tensor, *, keep: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Those of `keep` (x itself where not given), with their labels, that the model gets right on x."""
    right = torch.cat([model(batch).argmax(1) for batch in x.split(250)]) == y
    return (x if keep is None else keep)[right], y[right]


def seconds_per_epoch(trains: dict[str, Train], *, rounds: int = 5) -> dict[str, float]:
    """Median step of each method, in turn, times the steps of an epoch of 5,000 images; one thread."""
    methods = {}
    for name, train in trains.items():
        method = train.build().to(memory_format=torch.channels_last)
        method.train().start_epoch(train.epochs, lambda model, images, fresh: 0.3)
        methods[name] = method
    draws = generator("cpu", 0)
    train = next(iter(trains.values()))
    x, y = test_images(train, train.batch_size)
    x = x.contiguous(memory_format=torch.channels_last)
    seconds: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds + 1):
        for name, method in methods.items():
            began = time.perf_counter()
            attack = trains[name].attack
            assert attack is not None
            clean, adversarial = method.perturb(x, y, attack, Noise(draws, len(y)))
            method(clean, adversarial, y).total.backward()
            method.zero_grad()
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(times[1:]) * (5000 // train.batch_size) for name, times in seconds.items()}


def methods_table(rows: list[Row], images: int, apgd_images: int) -> Iterator[str]:
    yield f"| method | clean, % | PGD-20, % | APGD-CE + T, first {apgd_images}, % | validation clean / PGD-20, % |"
    yield "|---|---|---|---|---|"
    for row in rows:
        path = row["study_folder"] / row["checkpoint"]
        words = ("--attack", "pgd", "--epsilon", "8/255", "--split", "test", "--images", str(images))
        clean, pgd = json.loads(arat_ray("evaluate", str(path), *words, "--subset", "first", "--json"))
        cells = [_interval(each["correct"], images) for each in (clean, pgd)]
        cells.append(_interval(apgd(path, apgd_images), apgd_images))
        held_out = f"{100 * row['clean_accuracy']:.1f} / {100 * row['robust_accuracy']:.1f}"
        yield f"| {row['param_method']} | {' | '.join(cells)} | {held_out} |"
        print(row["param_method"], *cells, held_out, flush=True)


def timing_table(rows: list[Row]) -> Iterator[str]:
    trains = {row["param_method"]: Train.model_validate(json.loads(row["config"])) for row in rows}
    seconds = seconds_per_epoch(trains)
    yield "| method | s per epoch of 5,000 images | over PGD-AT's |"
    yield "|---|---|---|"
    for name, each in seconds.items():
        yield f"| {name} | {each:.1f} | {each / seconds['pgd_at']:.2f} |"


def _interval(correct: int, images: int) -> str:
    low, high = wilson(correct, images)
    return f"{100 * correct / images:.1f} [{100 * float(low):.1f}, {100 * float(high):.1f}]"


MEASURED = {
    "gradient_cosine": "gradient cosine",
    "conflict_fraction": "in conflict, %",
    "bn_divergence": "divergence",
    "bn_mismatch": "mismatch",
    "representation_distance": "distance",
    "representation_drift": "drift",
    "predicted_drift": "predicted drift",
}
IN_PERCENT = {"conflict_fraction"}


def ablation_table(rows: list[Row]) -> Iterator[str]:
    """One line a combination: means over seeds, and after +- half the range of the seeds; epochs 2 to the last."""
    groups: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        key = row["param_method.stop_gradient"], row["param_method.split_norm"], row["param_method.predictor"]
        groups[tuple(map(str, key))].append(row | _diagnosed(row))
    yield f"| stop-gradient | split norm | predictor | seeds | clean, % | PGD-20, % | {' | '.join(MEASURED.values())} |"
    yield "|" + "---|" * (6 + len(MEASURED))
    for (stop, split, predictor), runs in sorted(groups.items(), reverse=True):
        switches = [stop == "clean", split in ("True", "true"), predictor == "mlp"]
        percent: dict[str, int] = {"digits": 1, "scale": 100}
        accuracies = [_spread([run[goal] for run in runs], **percent) for goal in ("clean_accuracy", "robust_accuracy")]
        measured = [
            _spread([run[column] for run in runs], **(percent if column in IN_PERCENT else {"digits": 3}))
            for column in MEASURED
        ]
        cells = [*("yes" if switch else "no" for switch in switches), str(len(runs)), *accuracies, *measured]
        yield f"| {' | '.join(cells)} |"


def effects(rows: list[Row]) -> Iterator[str]:
    """Each switch's effect on what it is said to lower: on minus off, over all pairs alike in everything else."""
    questions = (
        ("method.stop_gradient", "clean", ("gradient_cosine", "conflict_fraction")),
        ("method.split_norm", "true", ("bn_divergence", "bn_mismatch")),
        ("method.predictor", "mlp", ("representation_drift", "representation_distance")),
    )
    switches = [f"param_{path}" for path, _, _ in questions] + ["param_seed"]
    measured = {tuple(str(row[name]).lower() for name in switches): row | _diagnosed(row) for row in rows}
    yield "| switched on | measured | change, mean | smallest | largest | pairs with a fall |"
    yield "|---|---|---|---|---|---|"
    for place, (path, on, columns) in enumerate(questions):
        for column in (*columns, "clean_accuracy", "robust_accuracy"):
            changes = []
            for key, row in measured.items():
                partners = [k for k in measured if k != key and _without(k, place) == _without(key, place)]
                for partner in partners if key[place] == on else ():
                    changes.append(row[column] - measured[partner][column])
            if changes:
                falls = sum(change < 0 for change in changes)
                yield (
                    f"| {path} | {column} | {statistics.mean(changes):+.4f} | {min(changes):+.4f} | "
                    f"{max(changes):+.4f} | {falls} of {len(changes)} |"
                )


def _without(key: tuple[str, ...], place: int) -> tuple[str, ...]:
    return key[:place] + key[place + 1 :]


def _diagnosed(row: Row) -> Row:
    """Means of the measured columns over all epochs but the first, of this trial."""
    epochs = reader.read(row["study_folder"], "epochs").to_pylist()
    mine = [each for each in epochs if each["trial_id"] == row["trial_id"] and each["epoch"] > 1]
    return {
        column: statistics.mean(values) if (values := [e[column] for e in mine if e[column] is not None]) else None
        for column in MEASURED
    }


def _spread(values: list[float | None], digits: int, scale: float = 1) -> str:
    numbers = [scale * value for value in values if value is not None]
    if not numbers:
        return "-"
    half = (max(numbers) - min(numbers)) / 2
    return f"{statistics.mean(numbers):.{digits}f} +- {half:.{digits}f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--images", type=int, default=1000, help="test images to measure on")
    parser.add_argument("--apgd-images", type=int, default=500, help="test images for APGD")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES)
    parser.add_argument("--no-train", action="store_true", help="only measure what is there")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = [
        f"torch {torch.__version__}, {platform.machine()}, one CPU thread a run; `python benchmarks/methods/measure.py`"
    ]
    if {"methods", "timing"} & set(options.tables):
        rows = complete(options.results, "methods", train=not options.no_train)
        if "methods" in options.tables:
            lines += ["", *methods_table(rows, options.images, options.apgd_images)]
        if "timing" in options.tables:
            lines += ["", *timing_table(rows)]
    if "ablation" in options.tables:
        rows = complete(options.results, "ablation", train=not options.no_train)
        lines += ["", *ablation_table(rows), "", *effects(rows)]
    print("\n".join(lines))
    if options.output:
        options.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
