"""What the trials of a search have measured so far, and what is expected of them and of new ones at their end.

All of it is a function of what was told, in the order in which it was told, and of the seed: no clock, no state beside
it. A search that is killed and told the same again expects the same. Hyperparameters are fitted at fixed numbers of
rows, so that a fit does not depend on when it was asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

from arat_ray.frontier.curve_model import NEW, CurveModel, Ints, Rows, fit, prior
from arat_ray.frontier.dominance import Floats
from arat_ray.frontier.expected_improvement import boxes, expected_improvement
from arat_ray.frontier.knobs import Sampled, Space

ROWS_AT_MOST = 400
"""That a model rests on: they bound the time of a proposal."""
FIRST_FIT, LATER_FITS = 8, 1.15
"""Rows at the first fit of hyperparameters, and how many times as many there are at each later one."""
CANDIDATES = 200
"""Points that a proposal is looked for among at first."""
NEIGHBOURHOODS, NEIGHBOURS = 6, 10
"""Of so many of the best trials, so many neighbours are candidates too."""
CLIMBS, CLIMBERS, AROUND = (0.08, 0.03), 4, 15
"""How far the best candidates look around, how many of them, and at how many points each."""

Place = tuple[int, int]
"""Number of a trial and epoch."""
Fits = dict[tuple[str | int, int], Floats]
"""Hyperparameters by goal (its place) or constraint (its name) and number of rows."""


def no_noise(goals: Floats) -> Floats:
    """The variances [G] of measured goals where nothing is known of them."""
    return np.zeros_like(goals)


def of_counts(images: int) -> Callable[[Floats], Floats]:
    """The variances of shares of so many images; also of none and of all of them above 0."""

    def variances(goals: Floats) -> Floats:
        share = np.clip((goals * images + 1) / (images + 2), 0.0, 1.0)
        return np.asarray(share * (1 - share) / images)

    return variances


def fitted_at(rows: int) -> int:
    """The number of rows, at most these, at which hyperparameters are fitted; 0 where there are too few."""
    size = 0
    for later in _sizes(rows):
        size = later
    return size


def _sizes(rows: int) -> Iterable[int]:
    size = FIRST_FIT
    while size <= rows:
        yield size
        size = math.ceil(size * LATER_FITS)


class Proposal(NamedTuple):
    """A new trial, and the hypervolume that it is expected to add."""

    sampled: Sampled
    gain: float


class Curves:
    """The trials of one search: what each was given, measured, and whether it still runs.

    `last` is the epoch at which a trial ends; of earlier ones those in `keep` stay in the model, of others the latest
    alone. `noise` gives the variances [G] of measured goals. A trial that violates a constraint is none of the front,
    and how likely one violates is learned from complete trials.
    """

    def __init__(
        self,
        space: Space,
        *,
        last: int = 1,
        every: int = 1,
        keep: Sequence[int] = (),
        reference: Sequence[float] | None = None,
        noise: Callable[[Floats], Floats] = no_noise,
        seed: int = 0,
        fits: Fits | None = None,
    ) -> None:
        self.space, self.last, self.every, self.seed = space, last, every, seed
        self.keep = frozenset(keep) | {last}
        self.noise, self._reference = noise, reference
        self.samples: dict[int, Sampled] = {}
        self.running: set[int] = set()
        self.complete: set[int] = set()
        self.known: set[int] = set()
        self.violations: dict[int, Mapping[str, float]] = {}
        self.values: dict[int, dict[int, Floats]] = {}
        self._arrived: list[Place] = []
        self._fits: Fits = {} if fits is None else fits
        self._outlooks: dict[int | None, Outlook] = {}

    # What is told ----------------------------------------------------------------------------------------------------

    def begin(self, number: int, sampled: Mapping[str, object]) -> None:
        """A trial runs with these knobs; a second time, after an interruption, it is the same one."""
        if number not in self.samples:
            self.samples[number], self.values[number] = dict(sampled), {}
            self.running.add(number)
            self._outlooks.clear()

    def measured(self, number: int, epoch: int, goals: Sequence[float]) -> None:
        """A trial's goals after an epoch, once; those that are no numbers say nothing."""
        values = np.asarray(goals, dtype=np.float64)
        if number not in self.samples or epoch in self.values[number] or not np.isfinite(values).all():
            return
        self.values[number][epoch] = values
        if epoch in self.keep:
            self._arrived.append((number, epoch))
        self._outlooks.clear()

    def ended(self, number: int, *, complete: bool, violations: Mapping[str, float] | None = None) -> None:
        """A trial has ended: complete, by its violations of each constraint up to 0, or stopped or failed."""
        if number not in self.running:
            return
        self.running.remove(number)
        if complete and self.last in self.values[number]:
            self.complete.add(number)
            self.violations[number] = dict(violations or {})
        self._outlooks.clear()

    def learn(
        self, sampled: Mapping[str, object], goals: Sequence[float], violations: Mapping[str, float] | None = None
    ) -> None:
        """A whole trial of an earlier search: it teaches, is none of the front, and may be proposed again."""
        number = -1 - len(self.known)
        self.known.add(number)
        self.samples[number], self.values[number] = dict(sampled), {}
        self.measured(number, self.last, goals)
        self.violations[number] = dict(violations or {})

    @property
    def begun(self) -> int:
        """How many trials have begun, earlier searches' not counted."""
        return len(self.samples) - len(self.known)

    def reaches(self, number: int) -> int:
        """The last epoch that a trial has measured; 0 where none."""
        return max(self.values[number], default=0)

    # What is asked ---------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._arrived)

    def gain(self, number: int) -> float:
        """The hypervolume that a running trial is expected to add to the front of the others."""
        outlook = self.outlook(without=number)
        return float(outlook.gains(self.space.encode([self.samples[number]]), np.array([number]))[0])

    def expected(self, number: int) -> tuple[Floats, Floats]:
        """Mean and deviation [G] of a trial's goals at its end."""
        models = self._models()
        mean, deviation = _at_end(models, self.space.encode([self.samples[number]]), np.array([number]))
        return mean[0], deviation[0]

    def propose(self, *, without: int | None = None) -> Proposal:
        """The new trial that is expected to add most, were the running ones, but for one, to end as expected.

        Looked for at random, around good trials and then around the best of these; the same sample twice only where
        all are taken.
        """
        outlook, space = self.outlook(without=without), self.space
        draw = np.random.default_rng([self.seed, self.begun, len(self._arrived)])
        good = self._best_first()[:NEIGHBOURHOODS]
        near = [space.units(self.samples[n], draw) for n in good for _ in range(NEIGHBOURS)]
        at_random = draw.random((CANDIDATES, len(space.knobs)))
        units = np.concatenate([at_random, space.moved(np.array(near).reshape(-1, len(space.knobs)), 0.15, draw)])
        seen: list[tuple[float, Sampled]] = []
        for deviation in (*CLIMBS, None):
            samples = [space.sample(point) for point in units]
            gains = outlook.gains(space.encode(samples), np.full(len(units), NEW))
            top = np.argsort(-gains, kind="stable")[:CLIMBERS]
            seen += [(float(gains[i]), samples[i]) for i in range(len(units))]
            if deviation is not None:
                units = space.moved(np.repeat(units[top], AROUND, axis=0), deviation, draw)
        seen.sort(key=lambda each: -each[0])
        taken = {_key(sampled) for number, sampled in self.samples.items() if number not in self.known}
        gain, sampled = next((each for each in seen if _key(each[1]) not in taken), seen[0])
        return Proposal(sampled, gain)

    def outlook(self, *, without: int | None = None) -> Outlook:
        """What is expected if the running trials, but for one, end as expected."""
        if without not in self._outlooks:
            self._outlooks[without] = self._look(without)
        return self._outlooks[without]

    # The models ------------------------------------------------------------------------------------------------------

    def _look(self, without: int | None) -> Outlook:
        models, limits = self._models(), self._limits()
        running = sorted(self.running - {without})
        feasible = [n for n in sorted(self.complete) if all(each <= 0 for each in self.violations[n].values())]
        members = np.array(feasible + running, dtype=np.int64)
        reference = self.reference()
        front = np.zeros((0, len(reference)))
        if len(members):
            x = self.space.encode([self.samples[n] for n in members.tolist()])
            front, _ = _at_end(models, x, members)
            likely = _feasible(limits, x, members) > 0.5
            front = front[likely | np.isin(members, feasible)]
        if running:
            x = self.space.encode([self.samples[n] for n in running])
            models, limits = ([m.believing(x, 1.0, np.array(running)) for m in each] for each in (models, limits))
        return Outlook(models, limits, boxes(front, reference))

    def reference(self) -> Floats:
        """[G]: below it nothing counts; where none was given, a tenth below the worst complete trial of each goal."""
        if self._reference is not None:
            return np.asarray(self._reference, dtype=np.float64)
        ends = np.stack([self.values[n][self.last] for n in self.complete] or [np.zeros(1)])
        low, high = ends.min(axis=0), ends.max(axis=0)
        return np.asarray(low - 0.1 * np.where(high > low, high - low, 1.0))

    def _models(self) -> list[CurveModel]:
        """One for each goal."""
        places = self._places()
        y, variance = self._measured(places)
        arrived = self._arrived[: fitted_at(len(self._arrived))]
        models = []
        for goal in range(y.shape[1]):
            key = goal, len(arrived)
            if key not in self._fits:
                before, noise = self._measured(arrived) if arrived else (y, variance)
                self._fits[key] = self._fitted(arrived, before[:, goal], noise[:, goal])
            rows = self._rows(places, y[:, goal], variance[:, goal])
            models.append(CurveModel(rows, self.space.group, self._fits[key]))
        return models

    def _limits(self) -> list[CurveModel]:
        """One for each constraint: how far complete trials were from violating it."""
        ended = [n for n, epoch in self._arrived if epoch == self.last and n in self.violations]
        models = []
        for name in dict.fromkeys(name for n in ended for name in self.violations[n]):
            numbers = [n for n in ended if name in self.violations[n]]
            y = np.array([-self.violations[n][name] for n in numbers])
            places = [(n, self.last) for n in numbers]
            size = fitted_at(len(numbers))
            key = name, size
            if key not in self._fits:
                self._fits[key] = self._fitted(places[:size], y[:size], np.zeros(size))
            rows = self._rows(places, y, np.zeros(len(y)))
            models.append(CurveModel(rows, self.space.group, self._fits[key]))
        return models

    def _fitted(self, places: Sequence[Place], y: Floats, variance: Floats) -> Floats:
        if not places:
            return prior(len(self.space.knobs))[0]
        return fit(self._rows(places, y, variance), self.space.group)

    def _rows(self, places: Sequence[Place], y: Floats, variance: Floats) -> Rows:
        x = self.space.encode([self.samples[n] for n, _ in places])
        t = np.array([self._time(epoch) for _, epoch in places])
        return Rows(x, t, np.array([n for n, _ in places], dtype=np.int64), y, variance)

    def _places(self) -> list[Place]:
        """Of each trial what it measured at the kept epochs and last; of a long search the ends of trials first, then
        where they are now, then what better ones and a fifth of the others measured before."""
        latest = {n: self.reaches(n) for n in sorted(self.samples) if self.values[n]}
        places = [(n, e) for n in latest for e in sorted(self.values[n]) if e in self.keep or e == latest[n]]
        if len(places) <= ROWS_AT_MOST:
            return places
        rank = {n: i for i, n in enumerate(self._best_first())}

        def order(place: Place) -> tuple[bool, bool, bool, int]:
            n, epoch = place
            return epoch != self.last, epoch != latest[n], rank[n] > ROWS_AT_MOST // 2 and n % 5 > 0, rank[n]

        return sorted(sorted(places, key=order)[:ROWS_AT_MOST])

    def _measured(self, places: Sequence[Place]) -> tuple[Floats, Floats]:
        """Goals [N, G] and their known variances."""
        y = np.array([self.values[n][epoch] for n, epoch in places])
        return y, np.array([self.noise(row) for row in y])

    def _time(self, epoch: int) -> float:
        return math.log(epoch / self.every + 1) / math.log(self.last / self.every + 1)

    def _best_first(self) -> list[int]:
        """Trials that have measured anything: who came far first, then whose last goals span most."""
        reference, merit = self.reference(), dict[int, float]()
        for n, values in self.values.items():
            if values:
                epoch = max(values)
                merit[n] = epoch / self.last + float(np.prod(np.maximum(values[epoch] - reference, 0.0)))
        return sorted(merit, key=lambda n: (-merit[n], n))


class Outlook(NamedTuple):
    """Models that believe in the running trials, those of constraints, and what lies above the expected front."""

    models: list[CurveModel]
    limits: list[CurveModel]
    above: tuple[Floats, Floats]

    def gains(self, x: Floats, trial: Ints) -> Floats:
        """[N]: the expected hypervolume that trials add at their end, by their knobs [N, D] and number."""
        mean, deviation = _at_end(self.models, x, trial)
        return expected_improvement(mean, deviation, self.above) * _feasible(self.limits, x, trial)


def _at_end(models: Sequence[CurveModel], x: Floats, trial: Ints) -> tuple[Floats, Floats]:
    """Mean and deviation [N, G] of the goals of trials at their last epoch."""
    both = [model.predict(x, 1.0, trial) for model in models]
    return np.stack([mean for mean, _ in both], axis=1), np.stack([deviation for _, deviation in both], axis=1)


def _feasible(limits: Sequence[CurveModel], x: Floats, trial: Ints) -> Floats:
    """[N]: the probability that trials violate no constraint."""
    likely = np.ones(len(x))
    for model in limits:
        mean, deviation = model.predict(x, 1.0, trial)
        likely *= ndtr(mean / deviation)
    return likely


def _key(sampled: Mapping[str, object]) -> tuple[tuple[str, object], ...]:
    return tuple(sorted(sampled.items()))
