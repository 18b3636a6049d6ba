"""Real searches through Ray: random, TPE with pareto_asha and curves with expected_gain, at equal device time.

    python benchmarks/search/real.py --results results/real --seeds 5 --output benchmarks/search_real.md
    python benchmarks/search/real.py --results results/real --seeds 5 --only curves --seed 3    # one study alone
    ARAT_DATA=FOLDER python benchmarks/search/real.py --space benchmarks/search/cifar10.yaml --results results/cifar10 \
        --seeds 1 --only curves --only tpe --images 2000 --autoattack-images 500

A study is one strategy and one seed of real.yaml: all begin with the same known point, and train until its budget, in
whole trials' worth of epochs, is spent. Device time is counted in epochs, which cost the same in all trials and do not
depend on what else a machine is doing; the seconds that epochs took and the time that passed, which do, stand beside
them. What counts is the hypervolume of the front among the trials that had ended by then: on validation images, and on
test images of the members that validation chose, under PGD-20, and of the members at the end under AutoAttack. A study
that is there is not run again, an interrupted one goes on (what passed meanwhile has passed); the report is made of
those that are there.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

import arat_ray
from arat_ray.experiment.config import load
from arat_ray.experiment.early_stopping import EarlyStopping, ExpectedGain, ParetoAsha
from arat_ray.experiment.spec import Experiment, Sampler
from arat_ray.frontier import evaluations
from arat_ray.frontier.dominance import hypervolume, non_dominated
from arat_ray.frontier.evaluations import Conditions
from arat_ray.results import reader

SPACE = Path(__file__).parent / "real.yaml"
STRATEGIES: Mapping[str, tuple[str, Literal["random", "tpe", "curves"], EarlyStopping | None]] = {
    "random": ("random", "random", None),
    "tpe": ("TPE + pareto_asha", "tpe", ParetoAsha(name="pareto_asha", min_epochs=1, reduction_factor=3)),
    "curves": ("curves + expected_gain", "curves", ExpectedGain(name="expected_gain", min_epochs=1, rung_factor=3)),
}
"""In the report, its sampler, and its early stopping."""
MOMENTS = {"after a tenth": 0.1, "after a third": 1 / 3, "at the end": 1.0}
ENDED = ("complete", "pruned", "failed")
NOT_MEASURED = (math.nan, math.nan)
Floats = npt.NDArray[np.float64]


class Run(NamedTuple):
    """One study: its trials in the order in which they were complete."""

    checkpoints: list[str]
    """[N]: in the study's folder."""
    epochs: Floats
    """[N]: trained by all trials when each was complete."""
    validation: Floats
    """[N, 2]"""
    test: Floats
    """[N, 2]: under PGD-20; NaN where it was not measured."""
    attacked: Floats
    """[N, 2]: under AutoAttack; NaN where it was not run."""
    trials: int
    """That ended within the budget, whole or stopped."""
    device_s: float
    """That these took, all workers and attempts together."""
    wall_s: float
    """From the first one's beginning to the last one's end, with the time between two starts."""


def experiment(strategy: str, seed: int, space: Path = SPACE, parquet: Path | None = None) -> Experiment:
    """A search space with a strategy's sampler and early stopping, its images from the folder `parquet` if given."""
    _, sampler, stopping = STRATEGIES[strategy]
    update = {"name": f"{strategy}-{seed}", "sampler": Sampler(name=sampler, seed=seed), "early_stopping": stopping}
    found = load(space)
    if parquet is not None:
        files = {split: str(parquet / f"{split}.parquet") for split in ("train", "test")}
        dataset = {"name": "parquet", **files, "images": found.train["dataset"].get("images")}
        update["train"] = found.train | {"dataset": dataset}
    return found.model_copy(update=update)


class Measure(NamedTuple):
    """On the test images."""

    pgd: Conditions
    autoattack: Conditions


def measure(asked: Experiment, images: int | None, attacked: int | None) -> Measure:
    """So many `images`, drawn by class, under PGD-20, and `attacked` ones under AutoAttack; None is all."""
    epsilon = asked.validation.attack.epsilon
    counts = {"pgd-20": images, "autoattack": attacked}
    found = (Conditions(attack=name, split="test", epsilon=epsilon, images=count) for name, count in counts.items())
    return Measure(*found)


def study(asked: Experiment, results: Path, how: Measure) -> Path:
    """Run a study until its budget is spent, and measure its trials on test images; where it is, as it is."""
    folder = results / asked.name
    trials, budget = asked.budget.trials or 0, budget_of(asked)
    while (left := budget - (before := _trained(folder))) > 0:
        if ended := _ended(folder):
            trials = max(trials, ended + math.ceil(left * ended / before))
        arat_ray.tune(asked, results=results, trials=trials, resume=folder.exists())
        print(f"{asked.name}: {trials} trials, {_trained(folder)} epochs", flush=True)
        if _trained(folder) == before:
            raise RuntimeError(f"{folder}: nothing more was trained, {left} epochs before its end; see what it says")
    run, epsilon = read(folder, budget, how), how.pgd.epsilon
    if np.isnan(run.test).any():
        images = how.pgd.images
        arat_ray.Study(folder).evaluate(attack="pgd", epsilon=epsilon, steps=20, split="test", images=images)
    for member in np.flatnonzero(non_dominated(run.validation)):
        if np.isnan(run.attacked[member]).any():
            images, path = how.autoattack.images, folder / run.checkpoints[member]
            arat_ray.evaluate(path, attack="autoattack", epsilon=epsilon, split="test", images=images)
    return folder


def budget_of(asked: Experiment) -> int:
    """In epochs. ValueError for an experiment without a number of trials."""
    if asked.budget.trials is None:
        raise ValueError(f"{asked.name}: budget.trials says how many whole trials' worth of epochs are trained")
    return asked.budget.trials * asked.base.epochs


def _accuracies(folder: Path, asked: Conditions) -> dict[str, tuple[float, float]]:
    """Clean and robust, by the trial's name."""
    rows = filter(asked.fits, evaluations.read(folder))
    return {row.trial_id: (row.clean_correct / row.images, row.correct / row.images) for row in rows}


def _trained(folder: Path) -> int:
    return reader.read(folder, "epochs", ["epoch"]).num_rows if reader.part_files(folder / "epochs") else 0


def _ended(folder: Path) -> int:
    if not reader.part_files(folder / "trials"):
        return 0
    status = reader.read(folder, "trials", ["status"]).to_pylist()
    return sum(row["status"] in ENDED for row in status)


def read(folder: Path, budget: int, how: Measure) -> Run:
    """What a study had reached; `budget` in epochs."""
    table = reader.read(folder, "trials")
    trials = {row["trial_id"]: row for row in reader.keep(table, reader.latest_attempt(table)).to_pylist()}
    order = reader.read(folder, "epochs", ["trial_id", "epoch"]).to_pylist()[:budget]
    last, trained = dict[str, int](), dict[str, set[int]]()
    for i, row in enumerate(order):
        last[row["trial_id"]] = i + 1
        trained.setdefault(row["trial_id"], set()).add(row["epoch"])
    ended = [name for name in last if trials[name]["status"] in ENDED]
    ended = [name for name in ended if len(trained[name]) == trials[name]["epochs_done"]]
    whole = sorted((name for name in ended if trials[name]["status"] == "complete"), key=lambda name: last[name])
    test, attacked = (_accuracies(folder, asked) for asked in how)
    began, done = ([trials[name][column] for name in ended] for column in ("started_at", "ended_at"))
    return Run(
        [trials[name]["checkpoint"] for name in whole],
        np.array([last[name] for name in whole], dtype=np.float64),
        _pairs([(trials[name]["clean_accuracy"], trials[name]["robust_accuracy"]) for name in whole]),
        _pairs([test.get(name, NOT_MEASURED) for name in whole]),
        _pairs([attacked.get(name, NOT_MEASURED) for name in whole]),
        len(ended),
        sum(row["device_s"] or 0.0 for row in table.to_pylist() if row["trial_id"] in ended),
        (max(done) - min(began)).total_seconds() if ended else 0.0,
    )


def _pairs(values: Sequence[tuple[float, float]]) -> Floats:
    return np.array(values, dtype=np.float64).reshape(-1, 2)


def is_measured(run: Run) -> bool:
    """On all test images that are asked for: whole trials, and the members at the end."""
    return bool(len(run.test)) and not np.isnan(run.test).any() and not math.isnan(under_autoattack(run))


def reached(run: Run, epochs: float) -> tuple[float, float]:
    """Hypervolume of the front after so many epochs: on validation, and on the test images of its members."""
    there = run.epochs <= epochs
    if not there.any():
        return 0.0, 0.0
    front = non_dominated(run.validation[there])
    return hypervolume(run.validation[there][front], [0, 0]), hypervolume(run.test[there][front], [0, 0])


def under_autoattack(run: Run) -> float:
    """Hypervolume of the front at the end, on test images; NaN where a member was not attacked."""
    members = run.attacked[non_dominated(run.validation)]
    return math.nan if np.isnan(members).any() else hypervolume(members, [0, 0])


def when(run: Run, goal: float, budget: int) -> float:
    """The share of the budget after which a hypervolume on validation was reached; infinite where it never was."""
    moments = (epochs for epochs in run.epochs.tolist() if reached(run, epochs)[0] >= goal)
    return next(moments, math.inf) / budget


def report(runs: Mapping[str, Sequence[Run]], asked: Experiment, how: Measure, space: str) -> Iterator[str]:
    """The tables of what `asked` describes but for its sampler; at least one study."""
    budget = budget_of(asked)
    of_pgd, of_autoattack = (f"{each.images or 'all'} test images" for each in how)
    yield "# Real searches"
    yield ""
    yield (
        f"`{space}`, {budget} epochs of training a study, {asked.resources.concurrent_trials} trials at once through "
        "Ray. Hypervolume above (0, 0): median over the seeds [lowest, highest]."
    )
    for title, which in (("On validation images", 0), (f"On {of_pgd}, PGD-20", 1)):
        yield from ("", f"## {title}", "", f"| | seeds | {' | '.join(MOMENTS)} | trials |", f"|---{'|---' * 5}|")
        for strategy, found in runs.items():
            cells = [_cell([reached(run, part * budget)[which] for run in found]) for part in MOMENTS.values()]
            trials = f"{np.median([run.trials for run in found]):.0f}"
            yield f"| {STRATEGIES[strategy][0]} | {len(found)} | {' | '.join(cells)} | {trials} |"
    yield from ("", f"## At the end: AutoAttack on {of_autoattack}, and minutes", "")
    yield from ("| | seeds | hypervolume | members | of devices | passed |", f"|---{'|---' * 5}|")
    for strategy, found in runs.items():
        volumes = _cell([under_autoattack(run) for run in found])
        members = _cell([float(non_dominated(run.validation).sum()) for run in found], 0)
        minutes = [
            _cell([seconds / 60 for seconds in each], 1) for each in zip(*(run[-2:] for run in found), strict=True)
        ]
        yield f"| {STRATEGIES[strategy][0]} | {len(found)} | {volumes} | {members} | {' | '.join(minutes)} |"
    goals = {name: float(np.median([reached(run, budget)[0] for run in found])) for name, found in runs.items()}
    goal = goals["random"] if "random" in runs else min(goals.values())
    whose = "What random search has" if "random" in runs else "The least of what they have"
    yield from ("", f"{whose} at the end, {goal:.4f} on validation, was reached after this share:", "")
    for strategy, found in runs.items():
        shares = [f"{share:.2f}" if math.isfinite(share := when(run, goal, budget)) else "never" for run in found]
        yield f"- {STRATEGIES[strategy][0]}: {', '.join(shares)}"


def _cell(values: Sequence[float], digits: int = 4) -> str:
    middle, low, high = (f"{value:.{digits}f}" for value in (np.median(values), min(values), max(values)))
    return middle if len(values) == 1 else f"{middle} [{low}, {high}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--space", type=Path, default=SPACE, help="an experiment with a search")
    parser.add_argument("--parquet", type=Path, help="a folder with train.parquet and test.parquet, for its images")
    parser.add_argument("--seeds", type=int, default=5, help="so many, from 0")
    parser.add_argument("--seed", type=int, action="append", help="these instead; repeatable")
    parser.add_argument("--only", action="append", choices=list(STRATEGIES), help="these alone; repeatable")
    parser.add_argument("--images", type=int, help="of the test images, drawn by class, under PGD-20; else all")
    parser.add_argument("--autoattack-images", type=int, help="under AutoAttack; else all")
    parser.add_argument("--no-run", action="store_true", help="report what is there")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    asked = experiment("random", 0, options.space, options.parquet)
    how = measure(asked, options.images, options.autoattack_images)
    if not options.no_run:
        for seed in options.seed or range(options.seeds):
            for strategy in options.only or STRATEGIES:
                study(experiment(strategy, seed, options.space, options.parquet), options.results, how)
    runs: dict[str, list[Run]] = {}
    for strategy in STRATEGIES:
        there = [read(folder, budget_of(asked), how) for folder in sorted(options.results.glob(f"{strategy}-*"))]
        if finished := [run for run in there if is_measured(run)]:
            runs[strategy] = finished
    if not runs:
        parser.error(f"no study in {options.results} was run and measured to its end; leave --no-run out")
    lines = list(report(runs, asked, how, options.space.name))
    if options.output:
        options.output.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
