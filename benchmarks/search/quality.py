"""Quality of the search: hypervolume against compute, for every sampler, with early stopping and without.

    python benchmarks/search/quality.py --output benchmarks/search.md
    python benchmarks/search/quality.py --output benchmarks/search.md --digits results/search-digits  # see digits.yaml

The trials, the samplers and the rungs are the product's; the training is a surrogate with learning curves, noise and a
front that is known, or a table of real runs on digits. A simulated cluster of four devices runs trials in virtual time,
an epoch a tick. What counts is the hypervolume of the true goals of the trials that ran to their end, as a share of
what the true front has. Ray's own OptunaSearch, told as Tune tells it, is beside them, with Tune's ASHA on robust
accuracy, because it takes one goal only.
"""

from __future__ import annotations

import argparse
import heapq
import tempfile
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from arat_ray.experiment.config import load
from arat_ray.experiment.early_stopping import ParetoAsha
from arat_ray.experiment.spec import Budget, Experiment, Sampler
from arat_ray.frontier.dominance import hypervolume
from arat_ray.frontier.halving import Halving
from arat_ray.results import reader
from arat_ray.study.record import StudyRecord
from arat_ray.study.trials import StudyTrials

HERE = Path(__file__).parent
DEVICES = 4
Floats = npt.NDArray[np.float64]
Sampled = dict[str, Any]


class Problem(ABC):
    """Something to search: `experiment`, and the goals of a sample after each epoch."""

    experiment: Experiment
    best: float
    """Hypervolume of the true front, above (0, 0)."""

    @abstractmethod
    def truth(self, sampled: Mapping[str, Any], epoch: int) -> Floats:
        """[2]: the goals after an epoch, without noise."""

    @abstractmethod
    def measured(self, sampled: Mapping[str, Any], epoch: int, noise: np.random.Generator) -> Floats:
        """[2]: as a trial reports them."""


class Surrogate(Problem):
    """A concave trade-off along one knob; the others cost both goals as they leave their best values."""

    def __init__(self) -> None:
        self.experiment = load(HERE / "surrogate.yaml")
        along = np.linspace(0, 1, 2001)
        self.best = hypervolume(np.column_stack(self._front(along)), [0, 0])

    @staticmethod
    def _front(along: Any) -> tuple[Any, Any]:
        return 0.96 - 0.30 * along**2, 0.60 * np.sqrt(along)

    def truth(self, sampled: Mapping[str, Any], epoch: int) -> Floats:
        along = sampled["attack.epsilon"] / 0.3
        balance = (sampled["method.balance.adversarial"] - 0.1) / 0.8
        weight = np.log10(sampled["method.invariance_weight"]) / 2 + 0.5
        rate = np.log10(sampled["optimizer.learning_rate"]) / 2 + 1
        lost = 0.5 * (balance - 0.3 - 0.4 * along) ** 2 + 0.4 * (weight - 0.6) ** 2 + 0.6 * (rate - 0.55) ** 2
        lost += {"last": 0.0, "last-two": 0.03, "pooled": 0.08}[sampled["method.layers"]]
        learned = 1 - 0.6 * np.exp(-epoch / (6 + 20 * abs(rate - 0.55)))
        return np.asarray(np.maximum(np.array(self._front(along)) - lost, 0.01) * learned)

    def measured(self, sampled: Mapping[str, Any], epoch: int, noise: np.random.Generator) -> Floats:
        return np.asarray(noise.binomial(5000, np.clip(self.truth(sampled, epoch), 0, 1)) / 5000)


class Table(Problem):
    """Real runs of all combinations, from their study."""

    def __init__(self, study: Path) -> None:
        grid = load(HERE / "digits.yaml")
        stopping = ParetoAsha(name="pareto_asha", min_epochs=1, reduction_factor=3)
        self.experiment = grid.model_copy(update={"early_stopping": stopping, "budget": Budget(trials=36)})
        trials = reader.read(study, "trials").to_pylist()
        curves: dict[str, dict[int, Floats]] = {}
        for row in reader.read(study, "epochs").to_pylist():
            goals = [row["validation_clean_accuracy"], row["validation_robust_accuracy"]]
            curves.setdefault(row["trial_id"], {})[row["epoch"]] = np.array(goals)
        self.curves = {}
        for row in trials:
            self.curves[self._key({path: row[f"param_{path}"] for path in grid.search})] = curves[row["trial_id"]]
        last = self.experiment.base.epochs
        self.best = hypervolume([curve[last] for curve in self.curves.values()], [0, 0])

    def _key(self, sampled: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(round(float(value), 6) for value in sampled.values())

    def truth(self, sampled: Mapping[str, Any], epoch: int) -> Floats:
        return self.curves[self._key(sampled)][epoch]

    def measured(self, sampled: Mapping[str, Any], epoch: int, noise: np.random.Generator) -> Floats:
        return self.truth(sampled, epoch)


class Ours:
    """The product's trials and rungs."""

    def __init__(self, problem: Problem, sampler: str, seed: int, folder: Path, *, stopping: bool) -> None:
        spec = Sampler.model_validate({"name": sampler, "seed": seed})
        experiment = problem.experiment
        rule = experiment.early_stopping
        assert rule is not None
        changes = {"sampler": spec, "early_stopping": rule if stopping else None}
        here = experiment.model_copy(update=changes)
        self.study_trials = StudyTrials(here, StudyRecord(folder, here, warn=print))
        rungs = rule.rungs(experiment.base.epochs) if stopping else []
        self.halving = Halving(rungs, reduction_factor=rule.reduction_factor)

    def ask(self) -> tuple[int, Sampled]:
        return self.study_trials.ask()

    def goes_on(self, number: int, epoch: int, goals: Floats) -> bool:
        return epoch not in self.halving.rungs or self.halving.decide(number, epoch, goals.tolist()).goes_on

    def ended(self, number: int, goals: Floats, *, whole: bool) -> None:
        if whole:
            self.study_trials.complete(number, goals.tolist())
            return
        stop = self.halving.stopped(number)
        assert stop is not None
        self.study_trials.prune(number, stop.why, {})


class Naive:
    """Ray Tune's OptunaSearch for both goals and its ASHA for one of them, called as Tune calls them."""

    def __init__(self, problem: Problem, seed: int) -> None:
        from ray.tune.schedulers import ASHAScheduler
        from ray.tune.search.optuna import OptunaSearch

        self.experiment = problem.experiment
        rule = self.experiment.early_stopping
        assert rule is not None
        goals = list(self.experiment.maximize)
        self.search = OptunaSearch(self._space, metric=goals, mode=["max"] * len(goals), seed=seed)
        self.asha = ASHAScheduler(
            time_attr="training_iteration",
            metric="robust_accuracy",
            mode="max",
            max_t=self.experiment.base.epochs,
            grace_period=rule.min_epochs,
            reduction_factor=rule.reduction_factor,
        )
        self.trials: list[SimpleNamespace] = []
        self.last: dict[int, dict[str, Any]] = {}

    def _space(self, trial: Any) -> None:
        self.experiment.suggest(trial)

    def ask(self) -> tuple[int, Sampled]:
        number = len(self.trials)
        trial = SimpleNamespace(trial_id=f"trial-{number}")
        self.trials.append(trial)
        config = self.search.suggest(trial.trial_id)
        self.asha.on_trial_add(None, trial)
        return number, config

    def goes_on(self, number: int, epoch: int, goals: Floats) -> bool:
        result = {"training_iteration": epoch, **dict(zip(self.experiment.maximize, goals.tolist(), strict=True))}
        self.last[number] = result
        return bool(self.asha.on_trial_result(None, self.trials[number], result) == "CONTINUE")

    def ended(self, number: int, goals: Floats, *, whole: bool) -> None:
        self.asha.on_trial_complete(None, self.trials[number], self.last[number])
        self.search.on_trial_complete(self.trials[number].trial_id, self.last[number])


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
    "random": lambda problem, seed, folder: Ours(problem, "random", seed, folder, stopping=False),
    "NSGA-II": lambda problem, seed, folder: Ours(problem, "nsga2", seed, folder, stopping=False),
    "TPE": lambda problem, seed, folder: Ours(problem, "tpe", seed, folder, stopping=False),
    "random + pareto_asha": lambda problem, seed, folder: Ours(problem, "random", seed, folder, stopping=True),
    "TPE + pareto_asha": lambda problem, seed, folder: Ours(problem, "tpe", seed, folder, stopping=True),
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


def compare(title: str, problem: Problem, seeds: int, picture: Path | None) -> Iterator[str]:
    trials = problem.experiment.budget.trials
    assert trials is not None
    epochs = trials * problem.experiment.base.epochs
    at = np.linspace(0, epochs, 301)[1:]
    simulated = {name: runs(problem, name, seeds, epochs) for name in STRATEGIES}
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
    colours = ["#999999", "#E69F00", "#56B4E9", "#666666", "#D55E00", "#009E73"]
    styles: Sequence[str] = ["-", "-", "-", "--", "-", ":"]
    for axes, (label, (at, found)) in zip(figure.subplots(1, 2, sharey=True), panels.items(), strict=True):
        for (name, share), colour, style in zip(found.items(), colours, styles, strict=True):
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
    parser.add_argument("--digits", type=Path, help="the study of digits.yaml")
    parser.add_argument("--no-surrogate", action="store_true", help="the digits alone")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    problems: dict[str, Problem] = {} if options.no_surrogate else {"A surrogate whose front is known": Surrogate()}
    if options.digits:
        problems["Digits: a table of 108 real runs"] = Table(options.digits)
    lines = [
        "# Quality of the search",
        "",
        "`python benchmarks/search/quality.py`; see there for what is simulated.",
        "",
    ]
    for title, problem in problems.items():
        picture = options.output.with_name(f"search_{type(problem).__name__.lower()}.png") if options.output else None
        lines += [*compare(title, problem, options.seeds, picture), ""]
    if options.output:
        options.output.write_text("\n".join(lines).rstrip() + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
