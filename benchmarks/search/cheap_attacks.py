"""Does training with a cheap attack tell a search more, for its cost, than an early epoch with the full attack?

    python benchmarks/search/cheap_attacks.py runs/cheap --trials 60 --output benchmarks/cheap_attacks.md
    python benchmarks/search/cheap_attacks.py runs/cheap-cifar10 --space mine.yaml --trials 24

What a search wants to know of a trial is what it measures at its end. It can stop the trial early, or train one of the
same knobs with fewer attack steps. Random trials of a search space are trained with the full attack, again with another
seed (nothing can tell more than that), and with attacks of few steps; all are measured after every epoch with the same
full attack on the same images. What counts is the rank correlation with the full trials' end, at equal training time.
A single step is that of https://arxiv.org/abs/2001.03994: a random start and 1.25 times epsilon; of k steps each goes
a k-th of that. Interrupted, the same command goes on. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import optuna
import torch
from scipy.stats import rankdata

from arat_ray.experiment.config import load
from arat_ray.experiment.spec import Experiment
from arat_ray.results.rows import EpochRow
from arat_ray.training.attacks import Pgd
from arat_ray.training.context import Context
from arat_ray.training.loop import fit
from arat_ray.training.run import Train

SPACE = Path(__file__).parent / "real.yaml"
FULL, AGAIN = "full", "full, another seed"
RESAMPLED = 1000
"""Times that trials are drawn anew for a standard error."""
COLLAPSED = 0.5
"""Of its best robust accuracy: who ends below it has overfitted catastrophically."""
Floats = npt.NDArray[np.float64]


def runs(experiment: Experiment, trials: int) -> Iterator[Train]:
    """That random search draws."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=["maximize", "maximize"], sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(trials):
        yield experiment.resolve(experiment.suggest(study.ask()))


def cheap(run: Train, steps: int) -> Train:
    """The same run under an attack of so many steps."""
    attack = _attack(run).model_copy(update={"steps": steps, "step_size": 1.25 * _attack(run).epsilon / steps})
    return run.model_copy(update={"attack": attack})


def _attack(run: Train) -> Pgd:
    assert isinstance(run.attack, Pgd)
    return run.attack


def kinds(run: Train, steps: Sequence[int]) -> dict[str, Train]:
    """By name, from the best to the cheapest."""
    return {
        FULL: run,
        AGAIN: run.model_copy(update={"seed": run.seed + 1}),
        **{f"{count} step{'s' * (count > 1)}": cheap(run, count) for count in steps},
    }


def curve(run: Train, experiment: Experiment, folder: Path) -> list[list[float]]:
    """Of each epoch: seconds of its training, clean and robust accuracy on the validation images."""
    kept = folder / "curve.json"
    if not kept.exists():
        torch.set_num_threads(1)
        rows: list[list[float]] = []

        def keep(row: EpochRow, replayed: bool) -> bool:
            rows.append([row["epoch_s"], row["validation_clean_accuracy"], row["validation_robust_accuracy"]])
            return False

        fit(run, experiment.validation, Context(folder, keep))
        kept.write_text(json.dumps(rows))
    found: list[list[float]] = json.loads(kept.read_text())
    return found


def correlation(a: Floats, b: Floats) -> float:
    """Spearman's."""
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])


def told(curves: Floats, of: Floats) -> Floats:
    """[E, 3]: by epoch, the rank correlation of curves [N, E, 2] with what trials [N, 2] reach at their end: of clean
    and robust accuracy, and of their product, the hypervolume of one trial."""
    both = [np.concatenate([each, each.prod(axis=-1, keepdims=True)], axis=-1) for each in (curves, of)]
    return np.array([[correlation(at[:, g], both[1][:, g]) for g in range(3)] for at in np.moveaxis(both[0], 1, 0)])


def at_cost(cost: Floats, correlations: Floats, wanted: float) -> Floats:
    """[3]: of the full attack where it has cost so much, between two epochs in proportion."""
    return np.array([np.interp(wanted, cost, correlations[:, goal]) for goal in range(3)])


def report(found: Mapping[str, Floats], seconds: Mapping[str, Floats], title: str) -> Iterator[str]:
    """Of curves [N, E, 2] and seconds [N, E] by kind."""
    end, whole = found[FULL][:, -1], seconds[FULL].sum(axis=1)
    cost = {kind: np.median(each.cumsum(axis=1) / whole[:, None], axis=0) for kind, each in seconds.items()}
    full = told(found[FULL], end)
    yield f"{title}; {len(end)} trials of {found[FULL].shape[1]} epochs. Rank correlation with the full trials' end."
    yield ""
    yield "| trained with | epochs | of the cost | clean | robust | product | the full attack then | collapsed |"
    yield "|---|---|---|---|---|---|---|---|"
    draw = np.random.default_rng(0)
    drawn = draw.integers(0, len(end), (RESAMPLED, len(end)))
    for kind, curves in found.items():
        robust = curves[:, :, 1]
        collapsed = int((robust[:, -1] < COLLAPSED * robust.max(axis=1)).sum())
        correlations = told(curves, end)
        for epoch in shown(curves.shape[1]):
            at = cost[kind][epoch - 1]
            cells = " | ".join(f"{value:.3f}" for value in correlations[epoch - 1])
            beside = "" if kind in (FULL, AGAIN) else _difference(found, kind, epoch, cost[FULL], at, drawn)
            yield f"| {kind} | {epoch} | {at:.2f} | {cells} | {beside} | {collapsed if epoch == len(full) else ''} |"


def _difference(
    found: Mapping[str, Floats], kind: str, epoch: int, cost: Floats, at: float, drawn: npt.NDArray[np.int64]
) -> str:
    """`0.912: -0.034 +- 0.020`: of the product, and by how much the cheap attack tells more."""

    def both(some: npt.NDArray[np.int64] | slice) -> tuple[float, float]:
        end = found[FULL][some][:, -1]
        full = at_cost(cost, told(found[FULL][some], end), at)[2]
        return full, told(found[kind][some][:, epoch - 1 : epoch], end)[0, 2] - full

    full, more = both(slice(None))
    spread = np.std([both(some)[1] for some in drawn])
    return f"{full:.3f}: {more:+.3f} +- {spread:.3f}"


def shown(epochs: int) -> list[int]:
    """1, 2, 4, 8, ... and the last."""
    return [*(2**power for power in range(epochs.bit_length()) if 2**power < epochs), epochs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--space", type=Path, default=SPACE, help="an experiment with a search")
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--steps", type=int, action="append", help="of a cheap attack; repeatable; else 2 and 1")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    experiment = load(options.space)
    jobs = [
        (number, kind, run)
        for number, drawn in enumerate(runs(experiment, options.trials))
        for kind, run in kinds(drawn, options.steps or (2, 1)).items()
    ]
    found: dict[str, list[Floats]] = {}
    with ProcessPoolExecutor(options.processes) as pool:
        waiting = [
            (number, kind, pool.submit(curve, run, experiment, options.folder / f"{number}-{kind.replace(' ', '-')}"))
            for number, kind, run in jobs
        ]
        for number, kind, future in waiting:
            found.setdefault(kind, []).append(np.array(future.result()))
            print(f"trial {number}, {kind}: {found[kind][-1][-1, 1:]}", flush=True)
    stacked = {kind: np.stack(each) for kind, each in found.items()}
    title = f"`{options.space.name}`, full attack of {_attack(experiment.base).steps} steps"
    lines = list(
        report(
            {kind: each[:, :, 1:] for kind, each in stacked.items()},
            {kind: each[:, :, 0] for kind, each in stacked.items()},
            title,
        )
    )
    if options.output:
        options.output.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
