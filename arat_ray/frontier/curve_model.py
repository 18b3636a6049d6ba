"""A Gaussian process over knobs and epoch for one goal: what trials are expected to reach at their end, and how surely.

    k((x, t), (x', t')) = kx(x, x') (a + b kt(t, t')) + g kt(t, t') + c [same trial] + (d + v) [same row]

kx: Matern 5/2, one length a knob; kt: squared exponential over log epochs. a: what the knobs decide for good, b: what
they decide at this epoch only, g: the course that all trials have in common, c: a trial's own luck, its seed; d: noise,
beside v, what is known of each row's (an accuracy is a count of images). All are logarithms, maximum a posteriori from
a fixed start, so that the same rows give the same model. Related: MOBSTER (https://arxiv.org/abs/2003.10865).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

from arat_ray.frontier.dominance import Floats

Ints = npt.NDArray[np.int64]
ROOT5 = np.sqrt(5.0)
JITTER = 1e-6
FIT_ROWS = 160
"""Rows that hyperparameters are fitted to at most, drawn from all: the time of a fit grows with their cube."""
ITERATIONS = 40
FIRST_FIT, LATER_FITS = 8, 1.15
"""Rows at the first fit of hyperparameters, and how many times as many there are at each later one."""
NEW = np.iinfo(np.int64).min
"""Number of a trial that has not begun."""
ENOUGH = 8
"""Rows of an epoch from which on its outliers are known."""


@dataclass(frozen=True)
class Rows:
    """Measurements: knobs [N, D], time [N] in [0, 1], number of the trial [N], goal [N], its known variance [N]."""

    x: Floats
    t: Floats
    trial: Ints
    y: Floats
    variance: Floats

    def take(self, keep: Ints) -> Rows:
        """Some of them, by index."""
        return Rows(self.x[keep], self.t[keep], self.trial[keep], self.y[keep], self.variance[keep])


def standardised(rows: Rows, *, floor: bool = True) -> tuple[Rows, float, float]:
    """The rows with mean 0 and deviation 1; that mean and that deviation.

    To a search it does not matter how bad a bad trial is, and must not set the scale: with a `floor` such values count
    as no worse than far below the others of their epoch.
    """
    y = rows.y.copy()
    for at in np.unique(rows.t) if floor else ():
        same = rows.t == at
        if same.sum() >= ENOUGH:
            low, middle, high = np.percentile(y[same], [25, 50, 75])
            y[same] = np.maximum(y[same], middle - 3.5 * ((high - low) or y[same].std()))
    mean, scale = float(y.mean()), float(y.std())
    scale = scale if scale > 1e-9 * max(1.0, abs(mean)) else 1.0
    return replace(rows, y=(y - mean) / scale, variance=rows.variance / scale**2), mean, scale


def prior(knobs: int) -> tuple[Floats, Floats]:
    """Mean and deviation [K + 6] of the logarithms: the knobs' lengths, that of time, a, b, g, c and d."""
    mean = np.append(np.full(knobs, np.log(0.35 * np.sqrt(max(knobs, 1)))), np.log([0.7, 1.0, 0.2, 0.3, 3e-3, 3e-3]))
    return mean, np.append(np.full(knobs, 0.8), [0.6, 0.8, 1.0, 1.2, 1.5, 1.5])


def loss(theta: Floats, rows: Rows, apart: Floats) -> tuple[float, Floats]:
    """Minus the log posterior of hyperparameters, up to a constant, and its gradient.

    `apart` [K, N, N]: squared distances by knob.
    """
    knobs, count = len(apart), len(rows.y)
    flat = apart.reshape(knobs, -1)
    inverse_squared = np.exp(-2 * theta[:knobs])
    length, a, b, g, c, d = np.exp(theta[knobs:])
    dt = (rows.t[:, None] - rows.t[None]) ** 2
    same = (rows.trial[:, None] == rows.trial[None]).astype(np.float64)
    r = np.sqrt((inverse_squared @ flat).reshape(count, count))
    decay = np.exp(-ROOT5 * r)
    kx, kt = (1 + ROOT5 * r + 5 / 3 * r * r) * decay, np.exp(-0.5 * dt / length**2)
    both = a + b * kt
    covariance = kx * both + g * kt + c * same
    covariance[np.diag_indices(count)] += d + rows.variance + JITTER
    try:
        factor = cholesky(covariance, lower=True, check_finite=False)
    except np.linalg.LinAlgError:
        return 1e10, np.zeros_like(theta)
    inverse = cho_solve((factor, True), np.eye(count), check_finite=False)
    alpha = inverse @ rows.y
    mean, deviation = prior(knobs)
    off = (theta - mean) / deviation
    value = 0.5 * rows.y @ alpha + np.log(np.diag(factor)).sum() + 0.5 * off @ off
    w = np.outer(alpha, alpha) - inverse
    wkx, wkt = w * kx, w * kt
    of_lengths = (flat @ (w * both * (5 / 3 * (1 + ROOT5 * r) * decay)).ravel()) * inverse_squared
    of_time = ((wkx * b + w * g) * kt * dt).sum() / length**2
    of_others = [a * wkx.sum(), b * (wkx * kt).sum(), g * wkt.sum(), c * (w * same).sum(), d * np.trace(w)]
    gradient = 0.5 * np.concatenate([of_lengths, [of_time], of_others])
    return float(value), -gradient + off / deviation


def distances(x: Floats, group: Ints) -> Floats:
    """[K, N, N]: squared distances of rows [N, D] by the knob that each column belongs to."""
    apart = np.zeros((int(group.max(initial=-1)) + 1, len(x), len(x)))
    for column, knob in enumerate(group):
        apart[knob] += (x[:, None, column] - x[None, :, column]) ** 2
    return apart


def fit(rows: Rows, group: Ints, *, floor: bool = True) -> Floats:
    """The hyperparameters of the highest posterior, by L-BFGS from the prior's mean."""
    if len(rows.y) > FIT_ROWS:
        rows = rows.take(np.sort(np.random.default_rng(0).choice(len(rows.y), FIT_ROWS, replace=False)))
    rows, _, _ = standardised(rows, floor=floor)
    apart = distances(rows.x, group)
    mean, deviation = prior(len(apart))
    bounds = list(zip(mean - 4 * deviation, mean + 4 * deviation, strict=True))
    options = {"maxiter": ITERATIONS}
    found = minimize(loss, mean, (rows, apart), jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return np.asarray(found.x)


def fitted_at(rows: int) -> int:
    """The number of rows, at most these, at which hyperparameters are fitted; 0 where there are too few."""
    size = 0
    for later in _sizes(rows):
        size = later
    return size


def _sizes(rows: int) -> Iterator[int]:
    size = FIRST_FIT
    while size <= rows:
        yield size
        size = math.ceil(size * LATER_FITS)


class CurveModel:
    """The posterior given rows and hyperparameters."""

    def __init__(self, rows: Rows, group: Ints, theta: Floats, *, floor: bool = True) -> None:
        self.group, self.theta = group, theta
        self.rows, self.mean, self.scale = standardised(rows, floor=floor)
        self._factorise()

    def predict(self, x: Floats, t: float, trial: Ints) -> tuple[Floats, Floats]:
        """Mean and standard deviation [N], without noise, of trials by their knobs [N, D] and number; `NEW` has not
        begun."""
        cross = self._kernel(x, np.full(len(x), t), trial)
        a, b, g, c = np.exp(self.theta[-5:-1])
        explained = solve_triangular(self.factor, cross.T, lower=True, check_finite=False)
        variance = a + b + g + c - (explained**2).sum(axis=0)
        return self.mean + self.scale * (cross @ self.alpha), self.scale * np.sqrt(np.maximum(variance, 1e-8))

    def drawn(self, x: Floats, t: float, count: int, draw: np.random.Generator) -> Floats:
        """[S, N]: functions drawn from the posterior at knobs [N, D] and a time, without any trial's luck and noise."""
        a, b, g = np.exp(self.theta[-5:-2])
        cross = self._kernel(x, np.full(len(x), t), np.full(len(x), NEW))
        explained = solve_triangular(self.factor, cross.T, lower=True, check_finite=False)
        covariance = self._matern(x, x) * (a + b) + g - explained.T @ explained
        covariance[np.diag_indices_from(covariance)] += JITTER * (1 + a + b + g)
        factor = cholesky(covariance, lower=True, check_finite=False)
        around = draw.standard_normal((count, len(x))) @ factor.T
        return np.asarray(self.mean + self.scale * (cross @ self.alpha + around))

    def believing(self, x: Floats, t: float, trial: Ints) -> CurveModel:
        """The model if these trials turned out as predicted: surer there, the same elsewhere."""
        other: CurveModel = object.__new__(CurveModel)
        other.__dict__.update(self.__dict__)
        y = (self.predict(x, t, trial)[0] - self.mean) / self.scale
        rows, count = self.rows, len(x)
        other.rows = Rows(
            np.concatenate([rows.x, x]),
            np.append(rows.t, np.full(count, t)),
            np.append(rows.trial, trial),
            np.append(rows.y, y),
            np.append(rows.variance, np.zeros(count)),
        )
        other._factorise()
        return other

    def _factorise(self) -> None:
        covariance = self._kernel(self.rows.x, self.rows.t, self.rows.trial)
        covariance[np.diag_indices_from(covariance)] += np.exp(self.theta[-1]) + self.rows.variance + JITTER
        self.factor = cholesky(covariance, lower=True, check_finite=False)
        self.alpha = cho_solve((self.factor, True), self.rows.y, check_finite=False)

    def _kernel(self, x: Floats, t: Floats, trial: Ints) -> Floats:
        """[N, M]: covariances with the model's rows."""
        knobs = len(self.theta) - 6
        length, a, b, g, c, _ = np.exp(self.theta[knobs:])
        kt = np.exp(-0.5 * (t[:, None] - self.rows.t[None]) ** 2 / length**2)
        same = (trial[:, None] == self.rows.trial[None]) & (trial[:, None] != NEW)
        return np.asarray(self._matern(x, self.rows.x) * (a + b * kt) + g * kt + c * same)

    def _matern(self, x: Floats, other: Floats) -> Floats:
        """[N, M]: kx of knobs [N, D] and [M, D]."""
        lengths = np.exp(self.theta[:-6])[self.group]
        x, other = x / lengths, other / lengths
        squared = (x**2).sum(axis=1)[:, None] + (other**2).sum(axis=1)[None] - 2 * x @ other.T
        squared = np.maximum(squared, 0.0)
        r = np.sqrt(squared)
        return np.asarray((1 + ROOT5 * r + 5 / 3 * squared) * np.exp(-ROOT5 * r))
