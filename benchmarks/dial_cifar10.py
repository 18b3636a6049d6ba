"""One trial's dial beside the front of a small search, on real CIFAR-10 images; and a dial fitted to PGD-AT.

    python benchmarks/dial_cifar10.py runs/dial-cifar10 --data FOLDER

FOLDER has train.parquet and test.parquet (columns `img`, `label`). A narrow ResNet-18, trained for as long as a CPU
allows: ARAT, two more trials that random search draws (radius and weight), and PGD-AT with a clean branch fitted
afterwards. Settings are chosen on validation images under PGD-20 and counted on test images, under PGD-20 and, of
fewer, AutoAttack; 95 % intervals by a bootstrap over test images, paired. Interrupted, the same command goes on. Prints
Markdown; see dial.md.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch

from arat_ray.evaluation import accuracy
from arat_ray.evaluation.accuracy import SplitName
from arat_ray.evaluation.ensembles import Ensemble
from arat_ray.experiment.config import load
from arat_ray.experiment.spec import Experiment
from arat_ray.frontier.dominance import Floats, hypervolume, non_dominated
from arat_ray.training.attacks import Pgd
from arat_ray.training.clean_branch import fitted
from arat_ray.training.context import Context
from arat_ray.training.loop import fit
from arat_ray.training.run import Train

PGD_20 = Pgd(norm="linf", epsilon=8 / 255, step_size=2 / 255, steps=20)
AUTOATTACK = Ensemble(name="autoattack", norm="linf", epsilon=8 / 255)
SETTINGS = (-0.5, -0.25, 0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
DEPLOYED = SETTINGS.index(0.0)
TRIALS, FIT_EPOCHS, RESAMPLES = 3, 1, 4000
EXPERIMENT = """
name: dial-cifar10
train:
  preset: {method}/resnet18
  dataset: {{name: parquet, train: {data}/train.parquet, test: {data}/test.parquet, images: {images}}}
  model: {{name: resnet18, width: {width}}}
  attack: {{name: pgd, norm: linf, epsilon: 8/255, step_size: 2/255, steps: 10}}
  epochs: {epochs}
  seed: 0
search:
  attack.epsilon: {{uniform: [2/255, 12/255]}}
validate:
  every: {epochs}
  images: 500
  attack: {{name: pgd, norm: linf, epsilon: 8/255, step_size: 2/255, steps: 20}}
sampler: {{name: random, seed: 0}}
budget: {{trials: {trials}}}
"""
WEIGHT = "  method.invariance_weight: {loguniform: [1, 100]}\n"
Point = tuple[str, int]
"""A network, and a setting of its dial by number."""
Facts = dict[str, dict[str, Any]]
"""Of each network: seconds, verdicts on images [settings][clean, robust][n] by split, and those of AutoAttack."""


def runs(folder: Path, given: argparse.Namespace) -> Iterator[tuple[str, Train, Experiment]]:
    """ARAT, what random search draws beside it, and PGD-AT."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for method in ("arat", "pgd_at"):
        text = EXPERIMENT.format(method=method, trials=TRIALS, **vars(given))
        file = folder / f"{method}.yaml"
        file.write_text(text.replace("validate:", f"{WEIGHT}validate:") if method == "arat" else text)
        experiment = load(file)
        yield method, experiment.base, experiment
        study = optuna.create_study(directions=["maximize"] * 2, sampler=optuna.samplers.RandomSampler(seed=0))
        for number in range(1, TRIALS if method == "arat" else 1):
            yield f"{method} {number}", experiment.resolve(experiment.suggest(study.ask())), experiment


def network(name: str, run: Train, experiment: Experiment, folder: Path, images: int) -> dict[str, Any]:
    """Train it, give it a clean branch where it has none, and measure each setting; what was done is kept."""
    place = folder / name.replace(" ", "-")
    kept = place / "facts.json"
    if kept.exists():
        found: dict[str, Any] = json.loads(kept.read_text())
        return found
    began = time.process_time()
    fit(run, experiment.validation, Context(place, lambda row, replayed: False))
    facts: dict[str, Any] = {"train_s": time.process_time() - began, "path": str(place / "last.pt"), "measure_s": []}
    if name == "pgd_at":
        began = time.process_time()
        path = fitted(place / "last.pt", epochs=FIT_EPOCHS, device=torch.device("cpu"), say=print)
        facts |= {"fit_s": time.process_time() - began, "path": str(path)}
    counts: dict[SplitName, int | None] = {"validation": None, "test": images}
    for split, count in counts.items():
        facts[split] = []
        for setting in SETTINGS:
            began = time.process_time()
            facts[split].append(verdicts(facts["path"], setting, split, PGD_20, count))
            if split == "validation":
                facts["measure_s"].append(time.process_time() - began)
    kept.write_text(json.dumps(facts))
    return facts


def verdicts(
    path: str, setting: float, split: SplitName, attack: Pgd | Ensemble, images: int | None
) -> list[list[int]]:
    """Whether each image is classified rightly, clean and attacked, at a setting; none where it is not defined."""
    try:
        report = accuracy.evaluate(
            Path(path),
            split=split,
            attack=attack,
            images=images,
            subset="first",
            seed=0,
            batch_size=128,
            device=torch.device("cpu"),
            dial=setting,
        )
    except ValueError as error:
        print(f"{path} at {setting}: {error}")
        return []
    found = report.examples
    robust = [right and by is None for right, by in zip(found.clean_correct.tolist(), found.broken_by, strict=True)]
    return [[int(each) for each in found.clean_correct.tolist()], [int(each) for each in robust]]


def chosen(facts: Facts, points: Sequence[Point]) -> list[Point]:
    """Those that no other beats on the validation images."""
    there = [(name, setting) for name, setting in points if facts[name]["validation"][setting]]
    means = np.array([np.mean(facts[name]["validation"][setting], axis=1) for name, setting in there])
    return [point for point, is_kept in zip(there, non_dominated(means), strict=True) if is_kept]


def dial(*names: str) -> list[Point]:
    return [(name, setting) for name in names for setting in range(len(SETTINGS))]


ARAT = ["arat", *(f"arat {number}" for number in range(1, TRIALS))]
WAYS = {"ARAT, as deployed": [("arat", DEPLOYED)], "ARAT, its dial": dial("arat")}
WAYS |= {f"search of {count} trials": [(name, DEPLOYED) for name in ARAT[:count]] for count in range(2, TRIALS + 1)}
WAYS |= {f"search of {TRIALS} trials, with their dials": dial(*ARAT)}
WAYS |= {"PGD-AT, as deployed": [("pgd_at", DEPLOYED)], "PGD-AT, its fitted dial": dial("pgd_at")}
COMPARED = {"PGD-AT, its fitted dial": "PGD-AT, as deployed"}
"""With what a way is compared, if not with ARAT's dial."""


def attack_chosen(facts: Facts, folder: Path, images: int) -> None:
    """AutoAttack on what any of the ways has chosen; what was measured is kept."""
    for name, setting in sorted({point for way in WAYS.values() for point in chosen(facts, way)}):
        found = facts[name].setdefault("autoattack", {})
        if str(setting) not in found:
            found[str(setting)] = verdicts(facts[name]["path"], SETTINGS[setting], "test", AUTOATTACK, images)
            (folder / name.replace(" ", "-") / "facts.json").write_text(json.dumps(facts[name]))


def table(facts: Facts, key: str) -> list[str]:
    """Hypervolume above (0, 0) in % of the unit square, and differences with 95 % intervals over test images."""
    found = {way: [facts[name][key] for name, _ in chosen(facts, points)] for way, points in WAYS.items()}
    at = {way: [setting for _, setting in chosen(facts, points)] for way, points in WAYS.items()}
    shown = {
        way: np.array(
            [each[setting] if key == "test" else each[str(setting)] for each, setting in zip(of, at[way], strict=True)]
        )
        for way, of in found.items()
    }  # [points, 2, n]
    count = next(iter(shown.values())).shape[2]
    draws = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), RESAMPLES) / count  # [R, n]

    def areas(way: str) -> Floats:
        return np.array([100 * hypervolume(each, (0.0, 0.0)) for each in np.einsum("rn,pgn->rpg", draws, shown[way])])

    resampled = {way: areas(way) for way in WAYS}
    lines = [
        f"| {count} test images | points | hypervolume, % | more than another [95 %] | CPU s |",
        "|---|---|---|---|---|",
    ]
    for way, points in WAYS.items():
        names = {name for name, _ in points}
        seconds = sum(facts[name]["train_s"] + facts[name].get("fit_s", 0) * (len(points) > 1) for name in names)
        seconds += sum(facts[name]["measure_s"][setting] for name, setting in points)
        other = COMPARED.get(way, "ARAT, its dial")
        more = resampled[way] - resampled[other]
        whole = {each: 100 * hypervolume(shown[each].mean(axis=2), (0.0, 0.0)) for each in (way, other)}
        low, high = np.quantile(more, [0.025, 0.975])
        than = "" if other == way else f"{whole[way] - whole[other]:+.2f} [{low:+.2f}, {high:+.2f}] than {other}"
        lines.append(f"| {way} | {len(shown[way])} | {whole[way]:.2f} | {than} | {seconds:.0f} |")
    return lines


def curves(facts: Facts) -> list[str]:
    """Both accuracies at each setting, with 95 % intervals half as wide as 1.96 standard errors."""
    lines = [f"| clean / PGD-20, % | {' | '.join(f'{t:g}' for t in SETTINGS)} |", "|---" * (len(SETTINGS) + 1) + "|"]
    for name, of in facts.items():
        cells = [
            "-" if not found else " / ".join(f"{100 * np.mean(each):.1f}" for each in found) for found in of["test"]
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="with train.parquet and test.parquet")
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--images", type=int, default=4000, help="to train on, 500 of them held out")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--test-images", type=int, default=1000, help="under PGD-20")
    parser.add_argument("--autoattack-images", type=int, default=200)
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.folder.mkdir(parents=True, exist_ok=True)
    facts: Facts = {}
    for name, run, experiment in runs(given.folder, given):
        facts[name] = network(name, run, experiment, given.folder, given.test_images)
        print(*curves({name: facts[name]})[2:], flush=True)
    print("\n".join([*curves(facts), "", "PGD-20", "", *table(facts, "test")]), flush=True)
    attack_chosen(facts, given.folder, given.autoattack_images)
    print("\n".join(["", "AutoAttack", "", *table(facts, "autoattack")]))


if __name__ == "__main__":
    main()
