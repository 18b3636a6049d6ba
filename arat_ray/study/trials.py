"""Trials of a study as Optuna has them: which one is next, and what its sampler knows of the others.

Optuna works in memory, on what the record says (`study.record`). A trial has a number of its own, kept in Optuna's user
attributes, because trials that were learned from have none. Starting, resuming and extending a study are one code path:
open them, ask until there are enough.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import JournalStorage
from optuna.trial import FrozenTrial, TrialState

from arat_ray.experiment.spec import Experiment, Sampled, Sampler
from arat_ray.study import curve_record
from arat_ray.study.optuna_view import FILE, PROPOSAL, OptunaView
from arat_ray.study.record import StudyRecord
from arat_ray.study.samplers import make_sampler
from arat_ray.study.state import Phase
from arat_ray.study.state import TrialState as KnownTrial
from arat_ray.study.warm_start import Known as Finished

NUMBER, POINT, REASON, CURVE, FROM = "number", "point", "reason", "curve", "from"
GENERATION = optuna.samplers.NSGAIISampler._get_generation_key()
GIVEN = "fixed_params"
"""Optuna's attribute of a trial whose parameters were given."""
STATES: dict[Phase, TrialState] = {
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}
"""Of trials that have ended; all others are running."""

warnings.filterwarnings("ignore", category=ExperimentalWarning)  # TPE's `group`, `set_metric_names`: so for years


class Asked(NamedTuple):
    """A trial to run."""

    number: int
    sampled: Sampled


class StudyTrials:
    """The trials of one study, for its sampler: `ask` for the next, then say how each has ended."""

    def __init__(self, experiment: Experiment, record: StudyRecord) -> None:
        self.experiment, self.record = experiment, record
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        view = OptunaView(record.study / FILE)
        self.study = optuna.create_study(
            study_name=experiment.name,
            storage=JournalStorage(view),
            directions=["maximize"] * len(experiment.maximize),
        )
        self.study.set_metric_names(list(experiment.maximize))
        self._in_optuna: dict[int, int] = {}
        """The number that Optuna gave to each trial that goes on."""
        for source in record.state.learned:
            self._take_in(source["trials"])
        for trial in record.state.trials.values():
            self._add(trial)
        view.publish()
        self._waiting = [trial.number for trial in record.state.unfinished()]
        self._points = self._points_to_come()
        self._next_number = 1 + max(record.state.trials, default=-1)
        self.curves = record.curves
        self._sampler = self.study.sampler = make_sampler(
            experiment.sampler,
            after=self._next_number,
            few_end=experiment.early_stopping is not None,
            curved=curve_record.open_sampler(experiment, self.curves),
        )
        chance = Sampler(name="random", seed=experiment.sampler.seed if experiment.sampler else 0)
        self._at_random = make_sampler(chance, after=self._next_number + 1)

    def ended(self) -> set[int]:
        """Numbers of the trials that need not run again: complete, stopped early, or failed by their own fault."""
        return {trial.number for trial in self.record.state.ended()}

    @property
    def running(self) -> int:
        """How many trials have been asked for and have not ended."""
        return len(self._in_optuna)

    @property
    def has_more(self) -> bool:
        """Whether the next trial is known already: one that was interrupted, or a given point."""
        return bool(self._waiting or self._points)

    def learn(self, finished: Iterable[Finished], *, source: Mapping[str, Any]) -> int:
        """Let the sampler know finished trials of an earlier study, each once; how many are new.

        `source` is what study.json says of that one. They have no number, so they are no trials of this study. NSGA-II
        takes them as members of its first generation.
        """
        there = {trial["key"] for source in self.record.state.learned for trial in source["trials"]}
        new = [known._asdict() for known in finished if known.key not in there]
        self.record.take({"learned": {"source": source, "trials": new}})
        self._take_in(new)
        return len(new)

    def ask(self) -> Asked:
        """The next trial: one that was interrupted, a given point, else what the sampler proposes."""
        if self._waiting:
            number = self._waiting.pop(0)
            return Asked(number, self.record.state.trials[number].sampled)
        number, point = self._next_number, None
        self._next_number += 1
        if self._points:
            point, values = self._points.pop(0)
            self.study.enqueue_trial(values, user_attrs={POINT: point})
        self.study.sampler = self._at_random if self._is_random_turn(number) else self._sampler
        trial = self.study.ask()
        trial.set_user_attr(NUMBER, number)
        asked = Asked(number, self.experiment.suggest(trial))
        kept = self.study._storage.get_trial(trial._trial_id).system_attrs
        attrs = {key: value for key, value in kept.items() if key not in (GIVEN, PROPOSAL)}
        event: dict[str, Any] = {"number": number, "sampled": asked.sampled}
        event["proposal"] = self._why(number, point, kept)
        event |= {"point": point} if point is not None else {}
        self.record.take({"asked": event | ({"attrs": attrs} if attrs else {})})
        self._in_optuna[number] = trial.number
        return asked

    def complete(self, number: int, goals: list[float], violations: Mapping[str, float] | None = None) -> None:
        """The trial ran to its end with these goals, and violates each constraint so far (up to 0: it does not)."""
        trial = self._in_optuna.pop(number)
        for name, violation in (violations or {}).items():
            self._optuna_trial(trial).set_constraint(name, violation)
        self.study.tell(trial, goals)

    def prune(self, number: int, reason: str, curve: dict[str, list[Any]]) -> None:
        """The trial was stopped early and will not run again; `curve` is what was measured, column by column.

        Its goals are no results, so Optuna gets none. The curve is an attribute, because of intermediate values Optuna
        knows one an epoch, and its TPE raises where a stopped trial of several goals has any.
        """
        trial = self._in_optuna.pop(number)
        self._optuna_trial(trial).set_user_attr(REASON, reason)
        self._optuna_trial(trial).set_user_attr(CURVE, curve)
        self.study.tell(trial, state=TrialState.PRUNED)

    def fail(self, number: int, reason: str) -> None:
        """The trial failed by its own fault and will not run again."""
        trial = self._in_optuna.pop(number)
        self._optuna_trial(trial).set_user_attr(REASON, reason)
        self.study.tell(trial, state=TrialState.FAIL)

    def put_back(self, number: int) -> None:
        """The trial was interrupted: it will be asked for again, now or when the study is resumed."""
        self._waiting.append(number)

    def _is_random_turn(self, number: int) -> bool:
        """Where trials are stopped early, every third proposal of a model is random instead.

        The model learns from what it has let live, and would settle around the first good trials: on the surrogate of
        benchmarks/search a tenth of the seeds did. The share is that of BOHB's code (https://arxiv.org/abs/1807.01774).
        """
        spec = self.experiment.sampler
        is_model = spec is not None and spec.name in ("tpe", "gp")
        return is_model and self.experiment.early_stopping is not None and number % 3 == 2

    def _why(self, number: int, point: int | None, kept: Mapping[str, Any]) -> dict[str, Any]:
        """Why a trial is proposed: as its sampler says, or who it was."""
        name = self.experiment.sampler.name if self.experiment.sampler else "random"
        if point is not None:
            return {"by": "grid" if name == "grid" else "first"}
        return kept.get(PROPOSAL) or {"by": "random" if self._is_random_turn(number) else name}

    def _optuna_trial(self, optuna_number: int) -> optuna.Trial:
        return optuna.Trial(self.study, self.study.get_trials(deepcopy=False)[optuna_number]._trial_id)

    def _add(self, trial: KnownTrial) -> None:
        """A trial of the record, as Optuna would have it."""
        attrs: dict[str, Any] = {NUMBER: trial.number}
        attrs |= {POINT: trial.point} if trial.point is not None else {}
        attrs |= {REASON: trial.reason} if trial.reason is not None else {}
        attrs |= {CURVE: trial.curve} if trial.curve else {}
        began, ended = (moment.astimezone().replace(tzinfo=None) if moment else None for moment in trial.times)
        if trial.has_ended:
            began = began or ended or datetime.now()
            ended = ended or began
        else:
            self._in_optuna[trial.number] = len(self.study.get_trials(deepcopy=False))
            began = began or datetime.now()
        frozen = FrozenTrial(
            number=-1,
            trial_id=-1,
            state=STATES.get(trial.phase, TrialState.RUNNING),
            value=None,
            values=trial.goals,
            datetime_start=began,
            datetime_complete=ended,
            params=trial.sampled,
            distributions={path: self.experiment.search[path].distribution() for path in trial.sampled},
            user_attrs=attrs,
            system_attrs=trial.attrs,
            intermediate_values={},
        )
        for name, violation in trial.violations.items():
            frozen.set_constraint(name, violation)
        self.study.add_trial(frozen)

    def _take_in(self, known: Iterable[Mapping[str, Any]]) -> None:
        for trial in known:
            self.study.add_trial(
                optuna.trial.create_trial(
                    values=trial["goals"],
                    params=trial["sampled"],
                    distributions={path: self.experiment.search[path].distribution() for path in trial["sampled"]},
                    user_attrs={FROM: trial["key"]},
                    system_attrs={GENERATION: 0},
                    constraints=trial["violations"],
                )
            )

    def _points_to_come(self) -> list[tuple[int, Sampled]]:
        """The known good points, or all combinations of a grid, that no trial was given yet, in whatever order."""
        sampler = self.experiment.sampler
        grid = sampler is not None and sampler.name == "grid"
        points = list(self.experiment.grid()) if grid else self.experiment.first
        trials = self.record.state.trials.values()
        given = {trial.number: trial.sampled for trial in trials if trial.point is not None}
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
