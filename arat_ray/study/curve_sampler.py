"""CurveSampler: proposals by a model of learning curves, for any Optuna study.

    optuna.create_study(directions=["maximize", "minimize"], sampler=CurveSampler(seed=0))

It begins with the known default, if there is one, and quasi-random points (Sobol's), unless enough trials are known
already, proposes some trials at random for good, and else the trial that is expected to add most to the hypervolume of
the front when it ends, believing the running ones. Choices, integers, steps, logarithms, knobs that only some trials
have, constraints (`Trial.set_constraint`) and any number of goals are modelled; with four goals or more and a front of
dozens a proposal takes seconds. It is a function of the seed and of the trials before it.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from arat_ray.frontier.curves import Curves, Fits, How
from arat_ray.frontier.knobs import Knob, Sampled, Space
from arat_ray.study.optuna_view import PROPOSAL

STARTUP, FEWEST, TIMED = 16, 4, 8
"""Quasi-random trials at the beginning, where there are few trials in all, and where only time or money ends them."""
RANDOM_SHARE = 0.1
"""Of later trials, those that are drawn at random: a model may be wrong where it has not looked."""
DRAWS = 100
"""At most, for a sample that has not been tried."""
HOW: dict[TrialState, How] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "stopped",
    TrialState.FAIL: "failed",
}


def startup_of(trials: int | None, *, timed: bool = False) -> int:
    """How many of so many trials are quasi-random: a quarter, within bounds. None: any number; fewer where it is time
    or money that ends them, of which nobody knows for how many it is enough."""
    if trials is None:
        return TIMED if timed else STARTUP
    return min(max(trials // 4, FEWEST), STARTUP)


def knob_of(name: str, distribution: BaseDistribution) -> Knob:
    """What Optuna calls a distribution. Raises ValueError for one that is none of Optuna's."""
    if isinstance(distribution, CategoricalDistribution):
        return Knob(name=name, choices=tuple(distribution.choices))
    if isinstance(distribution, IntDistribution | FloatDistribution):
        low, high, step = float(distribution.low), float(distribution.high), distribution.step
        integer = isinstance(distribution, IntDistribution)
        return Knob(name=name, low=low, high=high, log=distribution.log, step=step, integer=integer)
    raise ValueError(f"{name} is drawn from {distribution}; CurveSampler knows floats, integers and choices")


class CurveSampler(optuna.samplers.BaseSampler):
    """Gaussian processes over the knobs, and over epochs where these are told, and expected hypervolume improvement.

    `search_space` may say the distributions beforehand; else they are those of earlier trials, and the first trial is
    random. `default` is the first proposal, and `startup` trials, itself among them, are quasi-random, before the model
    proposes; where there are under 64 in all, a quarter of them is better. With `epochs`, intermediate values of a
    study of one goal, reported as the epochs 1 to `epochs`, are learned from as well. `curves` is for a caller who
    tells of the trials himself, epoch by epoch and for several goals, which Optuna cannot.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        search_space: Mapping[str, BaseDistribution] | None = None,
        default: Mapping[str, Any] | None = None,
        startup: int = STARTUP,
        random_share: float = RANDOM_SHARE,
        epochs: int = 1,
        curves: Curves | None = None,
    ) -> None:
        self.seed, self.startup, self.random_share, self.epochs = seed, startup, random_share, epochs
        self.default, self.curves = default, curves
        self._given = None if search_space is None else dict(search_space)
        self._fits: dict[str, Fits] = {}
        self._designs: dict[int, np.ndarray] = {}

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All knobs that any trial had, as the latest had them."""
        if self._given is not None:
            return self._given
        found: dict[str, BaseDistribution] = {}
        for other in study.get_trials(deepcopy=False):
            found |= other.distributions
        return found

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The next trial; nothing where there is no knob yet, or all are given (`enqueue_trial`)."""
        is_told = self.curves is not None
        curves = self.curves if self.curves is not None else self._told(study, trial, search_space)
        index = len(curves.samples) if is_told else trial.number
        given = trial.system_attrs.get("fixed_params", {})
        if all(knob.name in given or not curves.space.applies(knob.name, given) for knob in curves.space.knobs):
            return {}
        sampled, why = self._propose(curves, index)
        study._storage.set_trial_system_attr(trial._trial_id, PROPOSAL, why)
        return sampled

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """At random: a knob that no trial has had before."""
        if self.default and trial.number == 0 and param_name in self.default:
            return self.default[param_name]
        draw = np.random.default_rng([self.seed, trial.number, zlib.crc32(param_name.encode())])
        return knob_of(param_name, param_distribution).at(draw.random())

    def _propose(self, curves: Curves, index: int) -> tuple[Sampled, dict[str, Any]]:
        """A sample, and why."""
        space, taken = curves.space, [curves.samples[n] for n in curves.samples if n not in curves.known]
        is_first = index == len(curves.known) and index < self.startup
        if self.default and is_first and self.default not in curves.samples.values():
            return dict(self.default), {"by": "default"}
        draw = np.random.default_rng([self.seed, index])
        if index < self.startup:
            first = space.sample(self._design(len(space.knobs))[index])
            return _untaken(space, first, taken, draw), {"by": "start"}
        if len(curves) == 0 or draw.random() < self.random_share:
            first = space.sample(draw.random(len(space.knobs)))
            return _untaken(space, first, taken, draw), {"by": "random"}
        sampled, gain, expected, deviation = curves.propose()
        return sampled, {"by": "gain", "expected": list(expected), "deviation": list(deviation), "gain": gain}

    def _design(self, knobs: int) -> np.ndarray:
        """[startup, K]: Sobol's points, scrambled."""
        if knobs not in self._designs:
            from scipy.stats import qmc  # half a second

            power = max(self.startup - 1, 1).bit_length()
            self._designs[knobs] = qmc.Sobol(knobs, rng=self.seed).random_base2(power)
        return self._designs[knobs]

    def _told(self, study: optuna.Study, own: FrozenTrial, search_space: Mapping[str, BaseDistribution]) -> Curves:
        """What the study's trials say, in the order in which they ended."""
        space = Space([knob_of(name, each) for name, each in search_space.items()])
        signs = [1 if each == optuna.study.StudyDirection.MAXIMIZE else -1 for each in study.directions]
        fits = self._fits.setdefault(repr(space.knobs), {})
        seed = int(np.random.SeedSequence([self.seed, own.number]).generate_state(1)[0])
        keep = [2**power for power in range(self.epochs.bit_length())]
        curves = Curves(space, last=self.epochs, keep=keep, seed=seed, fits=fits)
        trials = [trial for trial in study.get_trials(deepcopy=False) if trial.params and trial.number != own.number]
        ended = [trial for trial in trials if trial.datetime_complete is not None]
        for trial in sorted(ended, key=lambda trial: (trial.datetime_complete, trial.number)):
            curves.begin(trial.number, trial.params)
            _tell(curves, trial, signs)
        for trial in trials:
            if trial.state == TrialState.RUNNING:
                curves.begin(trial.number, trial.params)
                _tell(curves, trial, signs)
        return curves


def _untaken(space: Space, first: Sampled, taken: Sequence[Sampled], draw: np.random.Generator) -> Sampled:
    """`first`, or where that is taken one that is drawn: of few combinations hardly one is tried twice before all have
    been."""
    sampled = first
    for _ in range(DRAWS):
        if sampled not in taken:
            return sampled
        sampled = space.sample(draw.random(len(space.knobs)))
    return first


def _tell(curves: Curves, trial: FrozenTrial, signs: Sequence[int]) -> None:
    """What a trial measured, and how it ended."""
    if len(signs) == 1:
        for epoch, value in sorted(trial.intermediate_values.items()):
            if 1 <= epoch < curves.last:
                curves.measured(trial.number, epoch, [signs[0] * value])
    if trial.state == TrialState.COMPLETE:
        curves.measured(
            trial.number, curves.last, [sign * value for sign, value in zip(signs, trial.values, strict=True)]
        )
    if trial.state != TrialState.RUNNING:
        curves.ended(trial.number, HOW[trial.state], trial.constraints)
