from __future__ import annotations

import numpy as np
import pytest

from arat_ray.frontier.links import IDENTITY, LOGIT

SHARES = np.array([0.0, 0.1, 0.5, 0.93, 1.0])


@pytest.mark.parametrize("link", [IDENTITY, LOGIT], ids=["identity", "logit"])
def test_a_sure_goal_comes_back_as_it_went(link: object) -> None:
    assert isinstance(link, type(LOGIT))
    mean, deviation = link.back(link.there(SHARES), np.full(5, 1e-3))
    np.testing.assert_allclose(mean, SHARES, atol=1e-7)
    np.testing.assert_allclose(deviation * link.slope(SHARES), 1e-3, rtol=1e-3)


def test_the_slope_is_that_of_finite_differences() -> None:
    step = 1e-6
    numeric = (LOGIT.there(SHARES + step) - LOGIT.there(SHARES - step)) / (2 * step)
    np.testing.assert_allclose(LOGIT.slope(SHARES), numeric, rtol=1e-6)


def test_mean_and_deviation_are_those_of_samples() -> None:
    sampled = np.random.default_rng(0).normal(1.2, 0.7, 400_000)
    shares = 1.04 / (1 + np.exp(-sampled)) - 0.02
    mean, deviation = LOGIT.back(np.array([1.2]), np.array([0.7]))
    assert mean[0] == pytest.approx(shares.mean(), abs=1e-3)
    assert deviation[0] == pytest.approx(shares.std(), abs=1e-3)
