"""Samplers: which trial a search proposes next, from Optuna, and what is ours of them."""

from __future__ import annotations

from collections.abc import Container
from typing import Any, cast

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from arat_ray.experiment.spec import Sampler


def make_sampler(
    spec: Sampler | None,
    *,
    after: int = 0,
    few_end: bool = False,
    curved: optuna.samplers.BaseSampler | None = None,
) -> optuna.samplers.BaseSampler:
    """Optuna's sampler for a spec, `curved` for `curves`; a grid is enqueued, so any sampler will do for it.

    A study that goes on `after` some trials draws from a stream of its own: the same one would propose them again.
    TPE begins after ten complete trials, or after five where few run to their end because others are stopped early.
    """
    seed = spec.seed if spec else 0
    if after:
        seed = int(np.random.SeedSequence([seed, after]).generate_state(1)[0])
    if spec is None or spec.name in ("random", "grid"):
        return optuna.samplers.RandomSampler(seed=seed)
    if spec.name == "curves":
        from arat_ray.study.curve_sampler import CurveSampler  # with scipy, which other searches do without

        return curved or CurveSampler(seed=spec.seed)
    if spec.name == "gp":
        return optuna.samplers.GPSampler(seed=seed, warn_independent_sampling=False)
    if spec.name == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=seed)
    start = 5 if few_end else 10
    return TpeOfResults(seed=seed, n_startup_trials=start, multivariate=True, group=True, constant_liar=True)


class TpeOfResults(optuna.samplers.TPESampler):
    """TPE that models complete trials, and running ones as a constant liar does, but none that was stopped early.

    With several goals Optuna's takes the oldest stopped trials for good ones as long as few are complete. Later, where
    most trials were stopped, they alone decide where it thinks bad ones lie, on the word of their first epochs.
    """

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return super().infer_relative_search_space(_with_results(study), trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return super().sample_relative(_with_results(study), trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return super().sample_independent(_with_results(study), trial, param_name, param_distribution)


class _WithResults:
    """A study as it is, but for the trials that were stopped early."""

    def __init__(self, study: optuna.Study) -> None:
        self._whole = study

    def __getattr__(self, name: str) -> Any:
        return getattr(self._whole, name)

    def _get_trials(self, deepcopy: bool = True, states: Container[TrialState] | None = None, **more: Any) -> Any:
        trials = self._whole._get_trials(deepcopy, states, **more)
        return [trial for trial in trials if trial.state != TrialState.PRUNED]


def _with_results(study: optuna.Study) -> optuna.Study:
    return cast(optuna.Study, _WithResults(study))
