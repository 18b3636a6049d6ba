"""How quality.py searches: the product's samplers and rules of early stopping, and Ray's pieces as Tune calls them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from problems import Floats, Problem, Sampled

from arat_ray.experiment.early_stopping import EarlyStopping
from arat_ray.experiment.spec import Sampler
from arat_ray.study.judges import open_judge
from arat_ray.study.record import StudyRecord
from arat_ray.study.trials import StudyTrials


class Ours:
    """The product's trials, and its rungs where trials are stopped."""

    def __init__(self, problem: Problem, sampler: str, seed: int, folder: Path, stopping: EarlyStopping | None) -> None:
        spec = Sampler.model_validate({"name": sampler, "seed": seed})
        experiment = problem.experiment.model_copy(update={"sampler": spec, "early_stopping": stopping})
        self.study_trials = StudyTrials(experiment, StudyRecord(folder, experiment, warn=print))
        self.judge = open_judge(experiment, [], self.study_trials.curves)

    def ask(self) -> tuple[int, Sampled]:
        return self.study_trials.ask()

    def goes_on(self, number: int, epoch: int, goals: Floats) -> bool:
        if self.study_trials.curves is not None:
            self.study_trials.curves.measured(number, epoch, goals.tolist())
        if self.judge is None or epoch not in self.judge.rungs:
            return True
        return self.judge.decide(number, epoch, goals.tolist()).goes_on

    def ended(self, number: int, goals: Floats, *, whole: bool) -> None:
        if self.study_trials.curves is not None:  # as the record of a study would tell them
            self.study_trials.curves.ended(number, "complete" if whole else "stopped")
        if whole:
            self.study_trials.complete(number, goals.tolist())
            return
        stop = self.judge.stopped(number) if self.judge else None
        assert stop is not None
        self.study_trials.prune(number, stop.why, {})


class Naive:
    """Ray Tune's OptunaSearch for both goals and its ASHA for one of them, called as Tune calls them."""

    def __init__(self, problem: Problem, seed: int) -> None:
        from ray.tune.schedulers import ASHAScheduler
        from ray.tune.search.optuna import OptunaSearch

        self.experiment = problem.experiment
        rule = problem.asha
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
