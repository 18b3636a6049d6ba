from __future__ import annotations

import numpy as np
import pytest

from arat_ray.frontier.curve_model import NEW, CurveModel, Rows, distances, fit, loss, prior, standardised

GROUP = np.array([0, 1, 1, 1])
"""One number and a choice of three."""


def rows(count: int, *, seed: int = 0, noise: float = 0.0) -> Rows:
    """Curves of two epochs: better with the number, and with the second choice."""
    draw = np.random.default_rng(seed)
    number, choice = draw.random(count), draw.integers(0, 3, count)
    x = np.column_stack([number, *(0.7 * (choice == i) for i in range(3))])
    end = 0.4 + 0.3 * np.sin(3 * number) + 0.1 * (choice == 1)
    y = np.concatenate([0.6 * end, end]) + noise * draw.normal(size=2 * count)
    t = np.repeat([0.5, 1.0], count)
    return Rows(np.vstack([x, x]), t, np.tile(np.arange(count), 2), y, np.full(2 * count, noise**2))


def test_the_gradient_is_that_of_finite_differences() -> None:
    some = standardised(rows(7, noise=0.02))[0]
    apart = distances(some.x, GROUP)
    theta = prior(2)[0] + np.random.default_rng(1).normal(0, 0.5, 8)
    gradient = loss(theta, some, apart)[1]
    for i in range(len(theta)):
        step = np.eye(len(theta))[i] * 1e-5
        numeric = (loss(theta + step, some, apart)[0] - loss(theta - step, some, apart)[0]) / 2e-5
        assert gradient[i] == pytest.approx(numeric, rel=1e-4, abs=1e-6)


def test_a_fit_finds_a_higher_posterior_than_the_prior_s_mean_and_the_same_one_again() -> None:
    some = rows(12)
    theta = fit(some, GROUP)
    standard = standardised(some)[0]
    apart = distances(standard.x, GROUP)
    assert loss(theta, standard, apart)[0] < loss(prior(2)[0], standard, apart)[0]
    np.testing.assert_array_equal(theta, fit(some, GROUP))


def test_it_predicts_the_end_of_a_trial_from_its_first_epoch_better_than_of_a_new_one() -> None:
    some = rows(20)
    known = some.take(np.flatnonzero((some.t < 1) | (some.trial > 0)))  # the end of trial 0 is still to come
    model = CurveModel(known, GROUP, fit(known, GROUP))
    at = some.x[:1]
    mean, deviation = model.predict(at, 1.0, np.array([0]))
    assert mean[0] == pytest.approx(some.y[20], abs=0.02)
    assert deviation[0] < model.predict(at, 1.0, np.array([NEW]))[1][0]


def test_known_noise_smooths_and_no_noise_interpolates() -> None:
    x, t, trial = np.full((6, 1), 0.5), np.ones(6), np.arange(6)
    y = np.array([0.1, 0.2, 0.3, 0.1, 0.2, 0.9])
    group, theta = np.array([0]), prior(1)[0]
    theta[-2:] = np.log(1e-6)  # no luck, no noise but the known one
    loud = CurveModel(Rows(x, t, trial, y, np.full(6, 0.2)), group, theta)
    mean, _ = loud.predict(x[:1], 1.0, np.array([NEW]))
    assert abs(mean[0] - y.mean()) < 0.02
    unequal = CurveModel(Rows(x, t, trial, y, np.array([10.0] * 5 + [1e-6])), group, theta)
    assert unequal.predict(x[:1], 1.0, np.array([NEW]))[0][0] == pytest.approx(0.9, abs=0.02)


def test_believing_makes_surer_and_moves_nothing() -> None:
    some = rows(10)
    model = CurveModel(some, GROUP, fit(some, GROUP))
    x = np.array([[0.5, 0.0, 0.7, 0.0], [0.55, 0.0, 0.7, 0.0]])
    before, after = (
        each.predict(x, 1.0, np.array([NEW, NEW])) for each in (model, model.believing(x[:1], 1.0, np.array([99])))
    )
    np.testing.assert_allclose(before[0], after[0], atol=1e-6)
    assert (after[1] < before[1]).all()


@pytest.mark.parametrize("value", [0.0, 0.5, -3e5])
def test_a_constant_goal_is_expected_again(value: float) -> None:
    some = rows(9)
    flat = Rows(some.x, some.t, some.trial, np.full(18, value), some.variance)
    model = CurveModel(flat, GROUP, fit(flat, GROUP))
    mean, deviation = model.predict(some.x[:2], 1.0, np.array([NEW, NEW]))
    np.testing.assert_allclose(mean, value, atol=1e-6 * max(1, abs(value)))
    assert np.isfinite(deviation).all()


def test_doubles_of_one_row_can_be_fitted() -> None:
    x = np.full((30, 4), 0.5)
    same = Rows(x, np.ones(30), np.arange(30), np.full(30, 0.3) + 0.01 * (np.arange(30) % 2), np.zeros(30))
    model = CurveModel(same, GROUP, fit(same, GROUP))
    assert model.predict(x[:1], 1.0, np.array([NEW]))[0][0] == pytest.approx(0.305, abs=0.01)


def test_one_dreadful_trial_does_not_set_the_scale() -> None:
    some = rows(15)
    y = some.y.copy()
    y[17] = -1e6
    standard, _, scale = standardised(Rows(some.x, some.t, some.trial, y, some.variance))
    assert scale < 1.0
    assert standard.y.min() > -10


def test_a_thousand_points_are_fitted_to_few_of_them_and_predicted_from_all() -> None:
    some = rows(500, noise=0.01)
    model = CurveModel(some, GROUP, fit(some, GROUP))
    fresh = rows(20, seed=5)
    mean, _ = model.predict(fresh.x[:20], 1.0, np.full(20, NEW))
    assert np.abs(mean - fresh.y[20:]).max() < 0.03
