from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from arat_ray.frontier.dominance import hypervolume
from arat_ray.study.curve_sampler import CurveSampler, knob_of, startup_of
from arat_ray.study.optuna_view import PROPOSAL

Direction = Literal["minimize", "maximize"]
SPACE = {
    "x": FloatDistribution(0.0, 1.0),
    "rate": FloatDistribution(1e-4, 1.0, log=True),
    "depth": IntDistribution(1, 8),
    "kind": CategoricalDistribution(["plain", "rich"]),
}


def two_goals(trial: optuna.Trial) -> tuple[float, float]:
    """Clean falls and robust rises along x; the rest has one best value."""
    x, rate = trial.suggest_float("x", 0.0, 1.0), trial.suggest_float("rate", 1e-4, 1.0, log=True)
    depth, kind = trial.suggest_int("depth", 1, 8), trial.suggest_categorical("kind", ["plain", "rich"])
    lost = 0.05 * (math.log10(rate) + 2) ** 2 + 0.01 * (depth - 6) ** 2 + (0.1 if kind == "plain" else 0.0)
    return 0.9 - 0.4 * x**2 - lost, 0.2 + 0.4 * math.sqrt(x) - lost


def study_of(sampler: optuna.samplers.BaseSampler, directions: list[Direction]) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(directions=directions, sampler=sampler)


def volume(study: optuna.Study) -> float:
    return hypervolume(np.array([trial.values for trial in study.get_trials(deepcopy=False)]), [0, 0])


def test_its_front_is_better_than_random_search_s_with_twice_the_trials() -> None:
    ours, random = [], []
    for seed in range(2):
        study = study_of(CurveSampler(seed=seed, startup=8), ["maximize", "maximize"])
        study.optimize(two_goals, n_trials=25)
        ours.append(volume(study))
        study = study_of(optuna.samplers.RandomSampler(seed=seed), ["maximize", "maximize"])
        study.optimize(two_goals, n_trials=50)
        random.append(volume(study))
    assert min(ours) > max(random)


def test_what_is_minimised_is_minimised() -> None:
    def objective(trial: optuna.Trial) -> float:
        return (trial.suggest_float("x", -5, 5) - 2) ** 2 + 7

    study = study_of(CurveSampler(startup=5), ["minimize"])
    study.optimize(objective, n_trials=16)
    assert study.best_params["x"] == pytest.approx(2, abs=0.15)


def test_three_goals_with_mixed_directions_are_searched() -> None:
    def objective(trial: optuna.Trial) -> tuple[float, float, float]:
        x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
        return x, (1 - x) ** 2, (y - 0.3) ** 2

    study = study_of(CurveSampler(startup=8), ["maximize", "maximize", "minimize"])
    study.optimize(objective, n_trials=20)
    assert np.median([abs(trial.params["y"] - 0.3) for trial in study.trials[10:]]) < 0.15


@pytest.mark.parametrize("goal", [lambda x: 1.0, lambda x: 1e9 * x, lambda x: math.inf if x > 0.9 else x])
def test_constant_huge_and_infinite_goals_are_no_accident(goal: Callable[[float], float]) -> None:
    study = study_of(CurveSampler(startup=4), ["maximize"])
    study.optimize(lambda trial: goal(trial.suggest_float("x", 0, 1)), n_trials=14)
    assert len(study.trials) == 14


def test_the_default_comes_first_and_sobol_s_points_after_it_fill_the_space() -> None:
    default = {"x": 0.5, "rate": 0.01, "depth": 4, "kind": "rich"}
    study = study_of(CurveSampler(search_space=SPACE, default=default), ["maximize", "maximize"])
    study.optimize(two_goals, n_trials=16)
    assert study.trials[0].params == default
    quarters = {int(4 * trial.params["x"]) for trial in study.trials[1:]}
    assert quarters == {0, 1, 2, 3}
    assert {trial.params["kind"] for trial in study.trials} == {"plain", "rich"}


@pytest.mark.parametrize(
    ("trials", "start", "timed"),
    [(1, 4, 4), (6, 4, 4), (20, 5, 5), (63, 15, 15), (64, 16, 16), (9999, 16, 16), (None, 16, 8)],
)
def test_a_quarter_of_the_trials_is_quasi_random_within_bounds(trials: int | None, start: int, timed: int) -> None:
    assert startup_of(trials) == start
    assert startup_of(trials, timed=True) == timed


def test_of_trials_that_begin_together_in_several_processes_one_is_the_default() -> None:
    default = {"x": 0.5, "rate": 0.01, "depth": 4, "kind": "rich"}
    sampler = CurveSampler(search_space=SPACE, default=default)
    study = study_of(sampler, ["maximize", "maximize"])
    for _ in range(3):
        study.ask()
    proposed = [sampler.sample_relative(study, trial, SPACE) for trial in study.get_trials()]
    assert [each == default for each in proposed] == [True, False, False]


def test_of_few_combinations_each_is_tried_before_one_is_again() -> None:
    space = {"kind": CategoricalDistribution(["a", "b", "c"]), "depth": IntDistribution(1, 4)}

    def objective(trial: optuna.Trial) -> float:
        return trial.suggest_int("depth", 1, 4) * len(trial.suggest_categorical("kind", ["a", "b", "c"]))

    study = study_of(CurveSampler(search_space=space, startup=6, random_share=0.5), ["maximize"])
    study.optimize(objective, n_trials=14)
    assert len({tuple(sorted(trial.params.items())) for trial in study.trials[:12]}) == 12


@pytest.mark.filterwarnings("ignore:Choices for a categorical distribution")
def test_choices_that_are_lists_are_searched() -> None:
    def objective(trial: optuna.Trial) -> float:
        widths: Any = trial.suggest_categorical("widths", [[64], [64, 64], [32, 32, 32]])  # type: ignore[list-item]
        return len(widths) - (trial.suggest_float("x", 0, 1) - 0.5) ** 2

    study = study_of(CurveSampler(startup=4), ["maximize"])
    study.optimize(objective, n_trials=12)
    assert study.best_params["widths"] == [32, 32, 32]


def test_without_a_space_the_default_comes_first_too() -> None:
    study = study_of(CurveSampler(default={"x": 0.25, "rate": 0.1}), ["maximize", "maximize"])
    study.optimize(two_goals, n_trials=1)
    assert study.trials[0].params["x"] == 0.25
    assert study.trials[0].params["rate"] == 0.1


def proposals(sampler: Callable[[], CurveSampler], restart_after: int | None = None) -> list[dict[str, Any]]:
    study = study_of(sampler(), ["maximize", "maximize"])
    for number in range(16):
        if number == restart_after:
            study.sampler = sampler()
        study.optimize(two_goals, n_trials=1)
    return [trial.params for trial in study.trials]


def test_a_study_that_is_resumed_proposes_as_one_that_was_not() -> None:
    make = lambda: CurveSampler(seed=3, startup=6)  # noqa: E731
    assert proposals(make) == proposals(make, restart_after=11)
    assert proposals(make) != proposals(lambda: CurveSampler(seed=4, startup=6))


def test_trials_that_run_at_once_differ() -> None:
    study = study_of(CurveSampler(startup=6), ["maximize", "maximize"])
    study.optimize(two_goals, n_trials=10)
    asked = [study.ask() for _ in range(3)]
    for trial in asked:
        two_goals(trial)
    places = {round(trial.params["x"], 6) for trial in asked}
    assert len(places) == 3


def test_a_knob_that_only_some_trials_have_is_learned_from_them() -> None:
    def objective(trial: optuna.Trial) -> float:
        if trial.suggest_categorical("kind", ["plain", "rich"]) == "plain":
            return 0.3
        return 1 - (trial.suggest_float("depth", 0, 1) - 0.7) ** 2

    study = study_of(CurveSampler(startup=6), ["maximize"])
    study.optimize(objective, n_trials=20)
    assert study.best_params["depth"] == pytest.approx(0.7, abs=0.1)
    assert sum(trial.params["kind"] == "rich" for trial in study.trials[8:]) >= 9


def test_trials_that_violate_a_constraint_are_avoided() -> None:
    study = study_of(CurveSampler(startup=8, random_share=0.0), ["maximize"])
    for _ in range(20):
        trial = study.ask()
        x = trial.suggest_float("x", 0, 1)
        trial.set_constraint("memory", x - 0.6)
        study.tell(trial, x)
    later = [trial.params["x"] for trial in study.trials[10:]]
    assert np.mean([x < 0.63 for x in later]) >= 0.8
    assert max(x for x in later if x <= 0.6) > 0.5


def test_trials_that_were_added_or_failed_or_were_enqueued_are_taken_as_they_are() -> None:
    study = study_of(CurveSampler(startup=4), ["maximize", "maximize"])
    for seed in range(6):
        x = np.random.default_rng(seed).random()
        params = {"x": x, "rate": 0.01, "depth": 5, "kind": "rich"}
        values = [0.9 - 0.4 * x**2, 0.2 + 0.4 * math.sqrt(x)]
        study.add_trial(create_trial(values=values, params=params, distributions=SPACE))
    study.tell(study.ask(), state=TrialState.FAIL)
    study.enqueue_trial({"x": 0.125, "rate": 0.5, "depth": 1, "kind": "plain"})
    study.optimize(two_goals, n_trials=2)
    assert study.trials[7].params == {"x": 0.125, "rate": 0.5, "depth": 1, "kind": "plain"}


def test_intermediate_values_of_one_goal_are_learned_from() -> None:
    def objective(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", 0, 1)
        for epoch in range(1, 8):
            trial.report((1 - abs(x - 0.4)) * (1 - 0.5 / epoch), epoch)
        if x > 0.8:
            raise optuna.TrialPruned
        return 1 - abs(x - 0.4)

    study = study_of(CurveSampler(startup=4, epochs=8), ["maximize"])
    study.optimize(objective, n_trials=15)
    assert study.best_params["x"] == pytest.approx(0.4, abs=0.05)


def in_parallel(sampler: Callable[[], CurveSampler], *, restart: bool) -> tuple[dict[str, Any], Any]:
    """A proposal and its reasons after two trials ran at once, the later one stopped first, and hyperparameters were
    fitted in between: to the rows of the earlier one and the first of the later one, and then the other way round."""
    study = study_of(sampler(), ["maximize"])

    def begin() -> tuple[optuna.Trial, float]:
        trial = study.ask()
        x, y = (trial.suggest_float(name, 0, 1) for name in "xy")
        return trial, (1 - abs(x - 0.4)) * (0.2 + 0.8 * y**3)

    def report(trial: optuna.Trial, goal: float, epochs: tuple[int, ...]) -> None:
        for epoch in epochs:
            trial.report(goal * (1 - 0.5 / epoch), epoch)

    for _ in range(3):
        trial, goal = begin()
        report(trial, goal, (1, 2))
        study.tell(trial, goal)
    (earlier, low), (later, high) = begin(), begin()
    report(earlier, low, (1, 2))
    report(later, high, (1, 2))
    begin()  # 13 rows, hyperparameters fitted to 12 of them
    for trial in (later, earlier):
        study.tell(trial, state=TrialState.PRUNED)
    if restart:
        study.sampler = sampler()
    trial, _ = begin()
    return trial.params, study._storage.get_trial(trial._trial_id).system_attrs[PROPOSAL]


def test_a_restart_between_trials_that_run_at_once_changes_nothing() -> None:
    make = lambda: CurveSampler(seed=1, startup=3, random_share=0.0, epochs=4)  # noqa: E731
    assert in_parallel(make, restart=False) == in_parallel(make, restart=True)


def test_a_distribution_of_another_kind_is_named() -> None:
    class Strange(optuna.distributions.BaseDistribution):
        single = _contains = to_internal_repr = lambda *_: False  # type: ignore[assignment]

        def __repr__(self) -> str:
            return "Strange()"

    with pytest.raises(ValueError, match=r"depth is drawn from Strange\(\); CurveSampler knows"):
        knob_of("depth", Strange())
