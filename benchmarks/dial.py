"""One trial's dial beside the front of a small search, at equal computing time: digits, seed by seed.

    python benchmarks/dial.py runs/dial --seeds 10

For each seed the quick start's trial and five more that are drawn at random from its search space. Each is trained, and
measured under PGD-20 at 11 settings of its dial, on the validation images and on the test images. What is reported is
chosen on validation images and counted on test images, under PGD-20 and, but for `--no-autoattack`, AutoAttack.
Interrupted, the same command goes on. Prints Markdown; see dial.md.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
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
from arat_ray.training.context import Context
from arat_ray.training.loop import fit
from arat_ray.training.run import Train

SPACE = Path(__file__).parents[1] / "search_spaces" / "quickstart.yaml"
SETTINGS = (-0.5, -0.25, 0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)
DEPLOYED = SETTINGS.index(0.0)
TRIALS = 6
PGD_20 = Pgd(norm="linf", epsilon=0.2, step_size=0.05, steps=20)
AUTOATTACK = Ensemble(name="autoattack", norm="linf", epsilon=0.2)
SPLITS: tuple[SplitName, ...] = ("validation", "test")
Facts = dict[str, Any]
Chosen = list[tuple[int, int]]
"""Points by trial and setting."""


def runs(experiment: Experiment, seed: int) -> Iterator[Train]:
    """The quick start's trial, then others that random search draws."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        directions=["maximize", "maximize"], sampler=optuna.samplers.RandomSampler(seed=1000 + seed)
    )
    yield experiment.base.model_copy(update={"seed": seed})
    for _ in range(TRIALS - 1):
        run = experiment.resolve(experiment.suggest(study.ask()))
        yield run.model_copy(update={"seed": seed})


def trial(run: Train, experiment: Experiment, folder: Path) -> Facts:
    """Train, and measure each setting; CPU seconds of both, and counts of images by split [T, 2], clean and robust."""
    kept = folder / "facts.json"
    if kept.exists():
        found: Facts = json.loads(kept.read_text())
        return found
    began = time.process_time()
    fit(run, experiment.validation, Context(folder, lambda row, replayed: False))
    facts: Facts = {"train_s": time.process_time() - began, "measure_s": []}
    for split in SPLITS:
        facts[split] = []
        for setting in SETTINGS:
            began = time.process_time()
            facts[split].append(measured(folder, setting, split, PGD_20))
            if split == "validation":
                facts["measure_s"].append(time.process_time() - began)
    kept.write_text(json.dumps(facts))
    return facts


def measured(folder: Path, setting: float, split: SplitName, attack: Pgd | Ensemble) -> list[float]:
    """Clean and robust accuracy of a trial's network at a setting."""
    report = accuracy.evaluate(
        folder / "last.pt",
        split=split,
        attack=attack,
        images=None,
        seed=0,
        batch_size=512,
        device=torch.device("cpu"),
        dial=setting,
    )
    return [report.clean.accuracy, report.robust.accuracy]


def attack_chosen(facts: Sequence[Facts], folders: Sequence[Path]) -> None:
    """Measure with AutoAttack, on the test images, what any of the ways has chosen; what was measured is kept."""
    for number, setting in sorted({point for way in WAYS.values() for point in front(facts, way)}):
        found = facts[number].setdefault("autoattack", {})
        if str(setting) not in found:
            found[str(setting)] = measured(folders[number], SETTINGS[setting], "test", AUTOATTACK)
            (folders[number] / "facts.json").write_text(json.dumps(facts[number]))


def front(facts: Sequence[Facts], candidates: Chosen) -> Chosen:
    """Those of the candidates that no other beats on the validation images."""
    points = np.array([facts[number]["validation"][setting] for number, setting in candidates])
    return [which for which, is_kept in zip(candidates, non_dominated(points), strict=True) if is_kept]


def volume(points: Floats | Sequence[Sequence[float]]) -> float:
    """In percent of the unit square."""
    return 100 * hypervolume(np.asarray(points), (0.0, 0.0))


def dials(trials: int) -> Chosen:
    return [(number, setting) for number in range(trials) for setting in range(len(SETTINGS))]


def deployed(trials: int) -> Chosen:
    return [(number, DEPLOYED) for number in range(trials)]


WAYS = {"1 trial, as deployed": deployed(1), "1 trial, its dial": dials(1)}
WAYS |= {f"search of {trials} trials": deployed(trials) for trials in range(2, TRIALS + 1)}
WAYS |= {f"search of {trials} trials, with their dials": dials(trials) for trials in (2, 3, TRIALS)}


def cost(facts: Sequence[Facts], candidates: Chosen) -> float:
    """CPU seconds to train the candidates' trials, and to measure them on the validation images."""
    training = sum(facts[number]["train_s"] for number in {number for number, _ in candidates})
    return float(training + sum(facts[number]["measure_s"][setting] for number, setting in candidates))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--no-autoattack", action="store_true", help="PGD-20 alone: a quarter of the time")
    options = parser.parse_args()
    torch.set_num_threads(1)
    experiment = load(SPACE)
    every: list[list[Facts]] = []
    for seed in range(options.seeds):
        folders = [options.folder / f"{seed}" / f"{number}" for number in range(TRIALS)]
        every.append([trial(run, experiment, at) for run, at in zip(runs(experiment, seed), folders, strict=True)])
        if not options.no_autoattack:
            attack_chosen(every[-1], folders)
        print(f"seed {seed}: {volumes(every[-1:], by_pgd)[0].round(2).tolist()}", flush=True)
    seconds = np.array([[cost(facts, way) for way in WAYS.values()] for facts in every])
    print(f"PGD-20\n\n{table(volumes(every, by_pgd), seconds)}")
    if not options.no_autoattack:
        print(f"AutoAttack\n\n{table(volumes(every, by_autoattack), seconds)}")


def by_pgd(facts: Facts, setting: int) -> list[float]:
    found: list[float] = facts["test"][setting]
    return found


def by_autoattack(facts: Facts, setting: int) -> list[float]:
    found: list[float] = facts["autoattack"][str(setting)]
    return found


def volumes(every: Sequence[Sequence[Facts]], by: Callable[[Facts, int], list[float]]) -> Floats:
    """Of the points chosen on validation images under PGD-20, on test images: float [S, W]."""
    return np.array(
        [
            [volume([by(facts[number], setting) for number, setting in front(facts, way)]) for way in WAYS.values()]
            for facts in every
        ]
    )


def table(found: Floats, seconds: Floats) -> str:
    """Mean and standard error over the seeds, and what each way has more than one trial's dial, seed by seed."""
    lines = [f"| {len(found)} seeds | hypervolume, % | more than one trial's dial | in so many seeds | CPU s |"]
    lines.append("|---|---|---|---|---|")
    dial = list(WAYS).index("1 trial, its dial")
    for column, name in enumerate(WAYS):
        more = found[:, column] - found[:, dial]
        cells = [f"{found[:, column].mean():.2f} +- {_error(found[:, column]):.2f}"]
        cells += ["", ""] if column == dial else [f"{more.mean():+.2f} +- {_error(more):.2f}", f"{(more > 0).sum()}"]
        cells += [f"{seconds[:, column].mean():.0f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _error(values: Floats) -> float:
    return float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else float("nan")


if __name__ == "__main__":
    main()
