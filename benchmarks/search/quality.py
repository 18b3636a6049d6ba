"""Quality of the search: hypervolume against compute, for every sampler, with early stopping and without.

    python benchmarks/search/quality.py --output benchmarks/search.md
    python benchmarks/search/quality.py --output benchmarks/search.md --digits results/search-digits  # see digits.yaml

The trials, the samplers and the rules of early stopping are the product's; the training is one of two surrogates with
learning curves, noise and a front that is known (problems.py), or a table of real runs on digits. A simulated cluster
of four devices runs trials in virtual time, an epoch a tick. What counts is the hypervolume of the true goals of the
trials that ran to their end, as a share of what the true front has. Ray's own OptunaSearch, told as Tune tells it, is
beside them, with Tune's ASHA on robust accuracy, because it takes one goal only.
"""

from __future__ import annotations

import argparse
import heapq
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from problems import Crossing, Floats, Problem, Sampled, Surrogate, Table
from strategies import Naive, Ours

from arat_ray.frontier.dominance import hypervolume

DEVICES = 4


class Run(NamedTuple):
    """A simulated study, each time that a trial ended."""

    epochs: list[int]
    """Trained so far by all trials."""
    trials: list[int]
    """Ended so far, whole or stopped."""
    share: list[float]


def simulate(problem: Problem, strategy: Ours | Naive, seed: int, epochs: int) -> Run:
    """Epochs trained so far and the share of the true hypervolume reached, after each trial that ran to its end."""
    last, every = problem.experiment.base.epochs, problem.experiment.validation.every
    spent, time, queue, points = 0, 0, list[tuple[int, int, int, int]](), list[Floats]()
    samples: dict[int, Sampled] = {}
    noises: dict[int, np.random.Generator] = {}
    run = Run([0], [0], [0.0])

    def start() -> None:
        number, sampled = strategy.ask()
        samples[number], noises[number] = dict(sampled), np.random.default_rng([seed, number])
        heapq.heappush(queue, (time + every, len(samples), number, every))

    for _ in range(DEVICES):
        start()
    while spent < epochs:
        time, order, number, epoch = heapq.heappop(queue)
        spent += every
        goals = problem.measured(samples[number], epoch, noises[number])
        goes_on = strategy.goes_on(number, epoch, goals)
        if epoch < last and goes_on:
            heapq.heappush(queue, (time + every, order, number, epoch + every))
            continue
        strategy.ended(number, goals, whole=epoch == last)
        if epoch == last:
            points.append(problem.truth(samples[number], last))
        run.epochs.append(spent)
        run.trials.append(run.trials[-1] + 1)
        run.share.append(hypervolume(np.array(points), [0, 0]) / problem.best if epoch == last else run.share[-1])
        start()
    return run


STRATEGIES: dict[str, Callable[[Problem, int, Path], Ours | Naive]] = {
    "random": lambda problem, seed, folder: Ours(problem, "random", seed, folder, None),
    "NSGA-II": lambda problem, seed, folder: Ours(problem, "nsga2", seed, folder, None),
    "TPE": lambda problem, seed, folder: Ours(problem, "tpe", seed, folder, None),
    "curves": lambda problem, seed, folder: Ours(problem, "curves", seed, folder, None),
    "random + pareto_asha": lambda problem, seed, folder: Ours(problem, "random", seed, folder, problem.asha),
    "TPE + pareto_asha": lambda problem, seed, folder: Ours(problem, "tpe", seed, folder, problem.asha),
    "curves + expected_gain": lambda problem, seed, folder: Ours(problem, "curves", seed, folder, problem.gain),
    "Ray's OptunaSearch + ASHA": lambda problem, seed, folder: Naive(problem, seed),
}


def runs(problem: Problem, name: str, seeds: int, epochs: int) -> list[Run]:
    found = []
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            found.append(simulate(problem, STRATEGIES[name](problem, seed, Path(folder)), seed, epochs))
        print(f"{name}, seed {seed}: {found[-1].share[-1]:.4f}", flush=True)
    return found


def by_epochs(found: Sequence[Run], at: Floats) -> Floats:
    """[S, T]: the share at each of the T moments, for each seed."""
    return np.stack([np.array(run.share)[np.searchsorted(run.epochs, at, side="right") - 1] for run in found])


def by_trials(found: Sequence[Run], at: Floats) -> Floats:
    """[S, T]: as `by_epochs`, NaN where the compute was spent before so many trials had ended."""
    rows = [np.array(run.share)[np.searchsorted(run.trials, at, side="right") - 1] for run in found]
    return np.stack([np.where(at <= run.trials[-1], row, np.nan) for run, row in zip(found, rows, strict=True)])


def compare(title: str, problem: Problem, seeds: int, picture: Path | None, names: Sequence[str]) -> Iterator[str]:
    trials = problem.experiment.budget.trials
    assert trials is not None
    epochs = trials * problem.experiment.base.epochs
    at = np.linspace(0, epochs, 301)[1:]
    simulated = {name: runs(problem, name, seeds, epochs) for name in names}
    found = {name: by_epochs(of_name, at) for name, of_name in simulated.items()}
    goal = float(np.median(found["random"][:, -1]))
    yield f"## {title}"
    yield ""
    yield (
        f"Budget: {epochs:,} epochs, {trials} whole trials; {seeds} seeds. The share of the true front's hypervolume, "
        "median and the range of the middle 80 %. The last column: the share of the budget at which the median reaches "
        "what random search has at its end."
    )
    yield ""
    yield "| | after a tenth | after a third | at the end | random's end reached at |"
    yield "|---|---|---|---|---|"
    for name, share in found.items():
        cells = [_cell(share[:, int(part * len(at)) - 1]) for part in (0.1, 1 / 3, 1)]
        reached = np.flatnonzero(np.median(share, axis=0) >= goal)
        when = f"{at[reached[0]] / epochs:.2f}" if len(reached) else "never"
        yield f"| {name} | {' | '.join(cells)} | {when} |"
    yield ""
    yield "The same after so many trials have ended, whole or stopped, of which one costs a fraction of the other."
    yield ""
    counts = np.array([1 / 4, 1 / 2, 1, 2]) * trials
    yield f"| | {' | '.join(f'after {count:.0f}' for count in counts)} | trials at the end |"
    yield "|---" * (len(counts) + 2) + "|"
    many = np.arange(1.0, 3 * trials + 1)
    after = {name: by_trials(of_name, many) for name, of_name in simulated.items()}
    for name, share in after.items():
        cells = [_cell(share[:, int(count) - 1]) for count in counts]
        yield f"| {name} | {' | '.join(cells)} | {np.median([run.trials[-1] for run in simulated[name]]):.0f} |"
    if picture:
        draw({"epochs trained": (at, found), "trials ended": (many, after)}, title, picture)
        yield ""
        yield f"![{title}]({picture.name})"


def _cell(values: Floats) -> str:
    if np.isnan(values).any():
        return "-"
    low, middle, high = np.percentile(values, [10, 50, 90])
    return f"{middle:.3f} [{low:.3f}, {high:.3f}]"


def draw(panels: Mapping[str, tuple[Any, Mapping[str, Floats]]], title: str, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.4), dpi=160, layout="constrained")
    figure.suptitle(title)
    colours = ["#999999", "#E69F00", "#56B4E9", "#882255", "#666666", "#D55E00", "#000000", "#009E73"]
    styles: Sequence[str] = ["-", "-", "-", "-", "--", "-", "-", ":"]
    for axes, (label, (at, found)) in zip(figure.subplots(1, 2, sharey=True), panels.items(), strict=True):
        for (name, share), colour, style in zip(found.items(), colours, styles, strict=False):
            low, middle, high = np.percentile(share, [10, 50, 90], axis=0)
            axes.plot(at, middle, style, color=colour, label=name, linewidth=1.6)
            axes.fill_between(at, low, high, color=colour, alpha=0.12, linewidth=0)
        axes.set(xlabel=label, ylim=(0.5, 1.0))
    figure.axes[0].set(ylabel="share of the true hypervolume")
    figure.axes[0].legend(loc="lower right", fontsize=8)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--trials", type=int, help="the budget in whole trials, in the place of each problem's own")
    parser.add_argument("--digits", type=Path, help="the study of digits.yaml")
    parser.add_argument("--problem", choices=["surrogate", "crossing", "digits"], help="this alone")
    parser.add_argument("--only", action="append", choices=list(STRATEGIES), help="these beside random; repeatable")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    names = list(dict.fromkeys(["random", *(options.only or STRATEGIES)]))
    warnings.simplefilter("ignore")
    wanted = (
        [options.problem] if options.problem else ["surrogate", "crossing", *(["digits"] if options.digits else [])]
    )
    problems: dict[str, Problem] = {}
    if "surrogate" in wanted:
        problems["A surrogate whose front is known"] = Surrogate()
    if "crossing" in wanted:
        problems["Crossing curves and knobs of one method alone"] = Crossing()
    if "digits" in wanted:
        problems["Digits: a table of 108 real runs"] = Table(options.digits)
    lines = [
        "# Quality of the search",
        "",
        "`python benchmarks/search/quality.py`; see there for what is simulated.",
        "",
    ]
    for title, problem in problems.items():
        if options.trials:
            problem.experiment = problem.experiment.with_budget(trials=options.trials)
        picture = options.output.with_name(f"search_{type(problem).__name__.lower()}.png") if options.output else None
        lines += [*compare(title, problem, options.seeds, picture, names), ""]
    if options.output:
        options.output.write_text("\n".join(lines).rstrip() + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
