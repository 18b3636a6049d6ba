"""Trials of a study: Optuna's journal as the record of which trials exist and how each one ended.

A trial has a number of its own, kept in Optuna's user attributes, because a trial that was interrupted is asked for
again as a new Optuna trial with the same number and the same parameters. Starting, resuming and extending a study are
thus one code path: open them, ask until there are enough. The journal opens in optuna-dashboard as it is.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import JournalStorage
from optuna.trial import FrozenTrial, TrialState

from arat_ray.experiment.spec import Experiment, Sampled, Sampler
from arat_ray.study.journal import Journal, move_away
from arat_ray.study.samplers import make_sampler
from arat_ray.study.warm_start import Known

JOURNAL = Path("journal") / "optuna.log"
NUMBER, POINT, REASON, CURVE, FROM = "number", "point", "reason", "curve", "from"
GENERATION = optuna.samplers.NSGAIISampler._get_generation_key()
INTERRUPTED = "interrupted"
NO_HISTORY = (LookupError, TypeError, AttributeError, AssertionError)
"""What Optuna raises of a journal whose lines are JSON and do not follow from one another."""

warnings.filterwarnings("ignore", category=ExperimentalWarning)  # TPE's `group`, `set_metric_names`: so for years


class Asked(NamedTuple):
    """A trial to run."""

    number: int
    sampled: Sampled


class StudyTrials:
    """The trials of one study. Only one process may write to it at a time.

    While its rows are not on disk (`may_write` is False), and while the disk fails, it goes on in memory and the
    journal waits, as `warn` is told.
    """

    def __init__(
        self,
        folder: Path,
        experiment: Experiment,
        *,
        warn: Callable[[str], None] = warnings.warn,
        may_write: Callable[[], bool] = lambda: True,
    ) -> None:
        self.experiment = experiment
        self.journal = Journal(folder / JOURNAL, warn=warn, may_write=may_write)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            self.study = optuna.create_study(
                study_name=experiment.name,
                storage=JournalStorage(self.journal),
                directions=["maximize"] * len(experiment.maximize),
                load_if_exists=True,
            )
        except NO_HISTORY as error:
            path = self.journal.path
            raise ValueError(f"{path} is no history of a study ({error!r}); {move_away(path)}") from error
        self.study.set_metric_names(list(experiment.maximize))
        self._running: dict[int, optuna.Trial] = {}
        self._put_back_interrupted()
        self._points = self._points_to_come()
        self._next_number = 1 + max(self._numbers(self.study.get_trials(deepcopy=False)), default=-1)
        self._sampler = self.study.sampler = make_sampler(
            experiment.sampler, after=self._next_number, few_end=experiment.early_stopping is not None
        )
        chance = Sampler(name="random", seed=experiment.sampler.seed if experiment.sampler else 0)
        self._at_random = make_sampler(chance, after=self._next_number + 1)

    def ended(self) -> set[int]:
        """Numbers of the trials that need not run again: complete, stopped early, or failed by their own fault."""
        return self._numbers(
            trial
            for trial in self.study.get_trials(deepcopy=False)
            if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
            or (trial.state == TrialState.FAIL and trial.user_attrs.get(REASON) != INTERRUPTED)
        )

    def learn(self, finished: Iterable[Known]) -> int:
        """Let the sampler know finished trials of earlier studies, each once; how many are new.

        They have no number, so they are no trials of this study. NSGA-II takes them as members of its first generation.
        """
        trials = self.study.get_trials(deepcopy=False)
        there = {trial.user_attrs[FROM] for trial in trials if FROM in trial.user_attrs}
        new = [known for known in finished if known.key not in there]
        for known in new:
            domains = {path: self.experiment.search[path].distribution() for path in known.sampled}
            self.study.add_trial(
                optuna.trial.create_trial(
                    values=known.goals,
                    params=known.sampled,
                    distributions=domains,
                    user_attrs={FROM: known.key},
                    system_attrs={GENERATION: 0},
                    constraints=known.violations,
                )
            )
        return len(new)

    def adopt(self, known: Mapping[int, Sampled]) -> int:
        """Ask again for these trials as far as the journal has not heard of them, by number; how many that are.

        The tables can know more than the journal where both come from a bucket, which has the journal last.
        """
        numbers = self._numbers(self.study.get_trials(deepcopy=False))
        missing = {number: known[number] for number in sorted(known.keys() - numbers)}
        for number, sampled in missing.items():
            attrs = {NUMBER: number}
            for index, point in self._points:
                if all(path in sampled and sampled[path] == value for path, value in point.items()):
                    attrs[POINT] = index
                    self._points.remove((index, point))
                    break
            self.study.enqueue_trial(sampled, user_attrs=attrs)
            self._next_number = max(self._next_number, number + 1)
        return len(missing)

    def ask(self) -> Asked:
        """The next trial: one that was interrupted, a given point, else what the sampler proposes."""
        if self._points and not self.study.get_trials(deepcopy=False, states=[TrialState.WAITING]):
            index, point = self._points.pop(0)
            self.study.enqueue_trial(point, user_attrs={NUMBER: self._next_number, POINT: index})
        self.study.sampler = self._at_random if self._is_random_turn(self._next_number) else self._sampler
        trial = self.study.ask()
        number = trial.user_attrs.get(NUMBER)
        if number is None:
            number = self._next_number
            trial.set_user_attr(NUMBER, number)
        self._next_number = max(self._next_number, number + 1)
        self._running[number] = trial
        return Asked(number, self.experiment.suggest(trial))

    def _is_random_turn(self, number: int) -> bool:
        """Where trials are stopped early, every third proposal of a model is random instead.

        The model learns from what it has let live, and would settle around the first good trials: on the surrogate of
        benchmarks/search a tenth of the seeds did. The share is that of BOHB's code (https://arxiv.org/abs/1807.01774).
        """
        spec = self.experiment.sampler
        is_model = spec is not None and spec.name in ("tpe", "gp")
        return is_model and self.experiment.early_stopping is not None and number % 3 == 2

    def complete(self, number: int, goals: list[float], violations: Mapping[str, float] | None = None) -> None:
        """The trial ran to its end with these goals, and violates each constraint so far (up to 0: it does not).

        Its rows must be on disk before.
        """
        trial = self._running.pop(number)
        for name, violation in (violations or {}).items():
            trial.set_constraint(name, violation)
        self.study.tell(trial, goals)

    def prune(self, number: int, reason: str, curve: dict[str, list[Any]]) -> None:
        """The trial was stopped early and will not run again; `curve` is what was measured, column by column.

        Its goals are no results, so Optuna gets none. The curve is an attribute, because of intermediate values Optuna
        knows one an epoch, and its TPE raises where a stopped trial of several goals has any.
        """
        trial = self._running.pop(number)
        trial.set_user_attr(REASON, reason)
        trial.set_user_attr(CURVE, curve)
        self.study.tell(trial, state=TrialState.PRUNED)

    def fail(self, number: int, reason: str) -> None:
        """The trial failed by its own fault and will not run again."""
        trial = self._running.pop(number)
        trial.set_user_attr(REASON, reason)
        self.study.tell(trial, state=TrialState.FAIL)

    def put_back(self, number: int) -> None:
        """The trial was interrupted: it will be asked for again, now or when the study is resumed."""
        self._put_back(self.study.trials[self._running.pop(number).number])

    def _put_back_interrupted(self) -> None:
        for trial in self.study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            self._put_back(trial)

    def _put_back(self, trial: FrozenTrial) -> None:
        """Enqueue first, tell after: a process killed in between leaves a double, which the next one skips."""
        number = trial.user_attrs.get(NUMBER)
        waiting = self.study.get_trials(deepcopy=False, states=[TrialState.WAITING])
        if number is not None and number not in self._numbers(waiting):
            attrs = {key: value for key, value in trial.user_attrs.items() if key in (NUMBER, POINT)}
            self.study.enqueue_trial(known_of(trial), user_attrs=attrs)
        self._set(trial.number, REASON, INTERRUPTED)
        self.study.tell(trial.number, state=TrialState.FAIL)

    def _points_to_come(self) -> list[tuple[int, Sampled]]:
        """The known good points, or all combinations of a grid, that no trial was given yet, whatever their order was.

        Each is enqueued when its turn has come, because Optuna takes what waits in the order in which it was enqueued:
        an interrupted trial would come after a whole grid, and early stopping decide in another order.
        """
        sampler = self.experiment.sampler
        grid = sampler is not None and sampler.name == "grid"
        points = list(self.experiment.grid()) if grid else self.experiment.first
        trials = self.study.get_trials(deepcopy=False)
        given = {trial.user_attrs[NUMBER]: known_of(trial) for trial in trials if POINT in trial.user_attrs}
        taken, coming = set[int](), []
        by_values: dict[tuple[str, ...], dict[tuple[Any, ...], list[int]]] = {}
        for index, point in enumerate(points):
            paths = tuple(point)
            if paths not in by_values:
                numbers = by_values.setdefault(paths, {})
                for number, values in given.items():
                    numbers.setdefault(tuple(values.get(path) for path in paths), []).append(number)
            alike = by_values[paths].get(tuple(point.values()), [])
            if left := [number for number in alike if number not in taken]:
                taken.add(left[0])
            else:
                coming.append((index, point))
        return coming

    def _set(self, optuna_number: int, key: str, value: Any) -> None:
        trial_id = self.study.get_trials(deepcopy=False)[optuna_number]._trial_id
        self.study._storage.set_trial_user_attr(trial_id, key, value)

    @staticmethod
    def _numbers(trials: Any) -> set[int]:
        return {trial.user_attrs[NUMBER] for trial in trials if NUMBER in trial.user_attrs}


def known_of(trial: FrozenTrial) -> Sampled:
    """What a trial was given and has sampled; one whose process was killed within `ask` has sampled some of it."""
    given: Sampled = trial.system_attrs.get("fixed_params", {})
    return given | trial.params
