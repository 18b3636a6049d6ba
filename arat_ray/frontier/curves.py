"""What the trials of a search have measured so far, and what is expected of them and of new ones at their end.

All of it is a function of what was told, in the order in which it was told, and of the seed: no clock, no state beside
it. A search that is killed and told the same again expects the same. Hyperparameters are fitted at fixed numbers of
rows, so that a fit does not depend on when it was asked for.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np

from arat_ray.frontier.curve_model import NEW, CurveModel, Rows, fit, fitted_at, prior
from arat_ray.frontier.dominance import Floats, hypervolume, non_dominated
from arat_ray.frontier.expected_improvement import boxes
from arat_ray.frontier.knobs import Sampled, Space
from arat_ray.frontier.links import IDENTITY, Link, no_noise
from arat_ray.frontier.outlook import Outlook, at_end, feasible
from arat_ray.frontier.proposals import NewTrial, best_of

ROWS_AT_MOST = 400
"""That a model rests on: they bound the time of a proposal."""
NEIGHBOURHOODS = 6
"""Of so many of the best trials, neighbours are looked at."""
Place = tuple[int, int]
"""Number of a trial and epoch."""
How = Literal["complete", "stopped", "failed"]
FAILS = "fails"
"""The constraint that a trial does not fail, as by a lack of memory or without a number at its end."""
Fits = dict[tuple[str | int, tuple[Place, ...]], Floats]
"""Hyperparameters by goal (its place) or constraint (its name), and the rows that they were fitted to."""


class Curves:
    """The trials of one search: what each was given, measured, and whether it still runs.

    `last` is the epoch at which a trial ends; of earlier ones those in `keep` stay in the model, of others the latest
    alone. `noise` gives the variances [G] of measured goals, `link` the scale on which they are modelled; without a
    `floor` it counts how bad bad trials are, which a search has no use for. A trial that violates a constraint is none
    of the front; how likely one does, or fails, is learned from those that have ended.
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
        link: Link = IDENTITY,
        floor: bool = True,
        seed: int = 0,
        fits: Fits | None = None,
    ) -> None:
        self.space, self.last, self.every, self.seed = space, last, every, seed
        self.keep = frozenset(keep) | {last}
        self.noise, self.link, self.floor, self._reference = noise, link, floor, reference
        self.samples: dict[int, Sampled] = {}
        self.running: set[int] = set()
        self.complete: set[int] = set()
        self.known: set[int] = set()
        self.violations: dict[int, Mapping[str, float]] = {}
        self.values: dict[int, dict[int, Floats]] = {}
        self._outcomes: list[int] = []
        self._arrived: list[Place] = []
        self._fits: Fits = {} if fits is None else fits
        self._outlooks: dict[int | None, Outlook] = {}
        self._proposals: dict[int | None, NewTrial] = {}

    # What is told ----------------------------------------------------------------------------------------------------

    def begin(self, number: int, sampled: Mapping[str, object]) -> None:
        """A trial runs with these knobs; a second time, after an interruption, it is the same one."""
        if number not in self.samples:
            self.samples[number], self.values[number] = dict(sampled), {}
            self.running.add(number)
            self._forget()

    def measured(self, number: int, epoch: int, goals: Sequence[float | None]) -> None:
        """A trial's goals after an epoch, once; where one is missing or no number, they say nothing."""
        values = np.array([math.nan if goal is None else goal for goal in goals], dtype=np.float64)
        if number not in self.samples or epoch in self.values[number] or not np.isfinite(values).all():
            return
        self.values[number][epoch] = values
        if epoch in self.keep:
            self._arrived.append((number, epoch))
        self._forget()

    def ended(self, number: int, how: How, violations: Mapping[str, float] | None = None) -> None:
        """A trial has ended; a complete one violates each constraint by so much, up to 0: it does not."""
        if number not in self.running:
            return
        self.running.remove(number)
        if how == "complete" and self.last in self.values[number]:
            self.complete.add(number)
            self._judged(number, {**(violations or {}), FAILS: -1.0})
        elif how == "failed":
            self._judged(number, {FAILS: 1.0})
        self._forget()

    def learn(
        self, sampled: Mapping[str, object], goals: Sequence[float], violations: Mapping[str, float] | None = None
    ) -> None:
        """A whole trial of an earlier search: it teaches, is none of the front, and may be proposed again."""
        number = -1 - len(self.known)
        self.known.add(number)
        self.samples[number], self.values[number] = dict(sampled), {}
        self.measured(number, self.last, goals)
        self._judged(number, {**(violations or {}), FAILS: -1.0})

    def _forget(self) -> None:
        self._outlooks.clear()
        self._proposals.clear()

    def _judged(self, number: int, violations: Mapping[str, float]) -> None:
        self.violations[number] = violations
        self._outcomes.append(number)

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
        x = self.space.encode([self.samples[number]])
        mean, deviation = at_end(self._models(), self.link, x, np.array([number]))
        return mean[0], deviation[0]

    def propose(self, *, without: int | None = None) -> NewTrial:
        """The new trial that is expected to add most, were the running ones, but for one, to end as expected.

        The same sample twice only where all are taken.
        """
        if without not in self._proposals:
            self._proposals[without] = self._best_new(self.outlook(without=without))
        return self._proposals[without]

    def promises(self, count: int) -> list[float]:
        """What so many new trials are expected to add, one after the other, each believed to end as expected."""
        ahead = copy.copy(self)
        ahead.samples, ahead.values, ahead.running = dict(self.samples), dict(self.values), set(self.running)
        ahead._outlooks, ahead._proposals = dict(self._outlooks), dict(self._proposals)
        gains = []
        for _ in range(count):
            proposal = ahead.propose()
            gains.append(proposal.gain)
            ahead.begin(1 + max(ahead.samples), proposal.sampled)
        return gains

    def _best_new(self, outlook: Outlook) -> NewTrial:
        sampled, gain = best_of(
            self.space,
            lambda samples: outlook.gains(self.space.encode(samples), np.full(len(samples), NEW)),
            near=[self.samples[n] for n in self._best_first()[:NEIGHBOURHOODS]],
            taken=[sampled for number, sampled in self.samples.items() if number not in self.known],
            draw=np.random.default_rng([self.seed, len(self.samples), len(self._arrived)]),
        )
        mean, deviation = at_end(outlook.models, self.link, self.space.encode([sampled]), np.array([NEW]))
        return NewTrial(sampled, gain, tuple(mean[0].tolist()), tuple(deviation[0].tolist()))

    def drawn_at_end(self, samples: Sequence[Mapping[str, object]], count: int, draw: np.random.Generator) -> Floats:
        """[S, N, G]: goals at the last epoch by functions drawn from the posterior, without luck and noise."""
        x = self.space.encode(samples)
        each = [model.drawn(x, 1.0, count, draw) for model in self._models()]
        return np.stack([self.link.back(goal, np.zeros_like(goal))[0] for goal in each], axis=2)

    def outlook(self, *, without: int | None = None) -> Outlook:
        """What is expected if the running trials, but for one, end as expected."""
        if without not in self._outlooks:
            self._outlooks[without] = self._look(without)
        return self._outlooks[without]

    # The models ------------------------------------------------------------------------------------------------------

    def _look(self, without: int | None) -> Outlook:
        models, limits = self._models(), self._limits()
        running = sorted(self.running - {without})
        kept = [n for n in sorted(self.complete) if self._is_feasible(n)]
        members = np.array(kept + running, dtype=np.int64)
        reference = self.reference()
        front = np.zeros((0, len(reference)))
        if len(members):
            x = self.space.encode([self.samples[n] for n in members.tolist()])
            front, _ = at_end(models, self.link, x, members)
            likely = feasible(limits, x, members) > 0.5
            front = front[likely | np.isin(members, kept)]
        if running:
            x = self.space.encode([self.samples[n] for n in running])
            models, limits = ([m.believing(x, 1.0, np.array(running)) for m in each] for each in (models, limits))
        return Outlook(models, self.link, limits, boxes(front, reference))

    def spanned(self) -> float:
        """The hypervolume of what whole trials have measured, those that violate a constraint as well."""
        whole = [self.values[n][self.last] for n in sorted(self.complete)]
        return hypervolume(np.stack(whole), self.reference()) if whole else 0.0

    def reference(self) -> Floats:
        """[G]: below it nothing counts; where none was given, a tenth below the worst of each goal on the front."""
        if self._reference is not None:
            return np.asarray(self._reference, dtype=np.float64)
        at_last = [self.values[n][epoch] for n, epoch in self._arrived if epoch == self.last and self._is_feasible(n)]
        ends = np.stack(at_last or [self.values[n][epoch] for n, epoch in self._arrived])
        front = ends[non_dominated(ends)]
        span = np.ptp(front, axis=0)
        span = np.where(span > 0, span, np.ptp(ends, axis=0))
        return np.asarray(front.min(axis=0) - 0.1 * np.where(span > 0, span, 1.0))

    def _is_feasible(self, number: int) -> bool:
        return all(each <= 0 for each in self.violations.get(number, {}).values())

    def _models(self) -> list[CurveModel]:
        """One for each goal."""
        places = self._places()
        y, variance = self._measured(places)
        arrived = self._arrived[: fitted_at(len(self._arrived))]
        models = []
        for goal in range(y.shape[1]):
            key = goal, tuple(arrived)
            if key not in self._fits:
                before, noise = self._measured(arrived) if arrived else (y, variance)
                self._fits[key] = self._fitted(arrived, before[:, goal], noise[:, goal], floor=self.floor)
            rows = self._rows(places, y[:, goal], variance[:, goal])
            models.append(CurveModel(rows, self.space.group, self._fits[key], floor=self.floor))
        return models

    def _limits(self) -> list[CurveModel]:
        """One for each constraint: how far trials were from violating it; that none fails is one where any has."""
        names = dict.fromkeys(name for n in self._outcomes for name in self.violations[n])
        if not any(self.violations[n][FAILS] > 0 for n in self._outcomes):
            names.pop(FAILS, None)
        models = []
        for name in names:
            numbers = [n for n in self._outcomes if name in self.violations[n]]
            before = self._distance(name, numbers[: fitted_at(len(numbers))])
            key = name, tuple(before[0])
            if key not in self._fits:
                self._fits[key] = self._fitted(*before, floor=False)
            rows = self._rows(*self._distance(name, numbers[-ROWS_AT_MOST:]))
            models.append(CurveModel(rows, self.space.group, self._fits[key], floor=False))
        return models

    def _distance(self, name: str, numbers: Sequence[int]) -> tuple[list[Place], Floats, Floats]:
        """How far trials were from violating a constraint, known without noise.

        The sign is what counts, and which way it changes. A huge violation must not set the scale: none is larger than
        the farthest that a trial kept away from one, or three times what is usual. A floor as goals have it would make
        the few that violate a constraint some that do not.
        """
        y = np.array([-self.violations[n][name] for n in numbers])
        if len(y):
            y = np.maximum(y, -max(y.max(), 3 * np.median(np.abs(y))))
        return [(n, self.last) for n in numbers], y, np.zeros(len(y))

    def _fitted(self, places: Sequence[Place], y: Floats, variance: Floats, *, floor: bool) -> Floats:
        if not places:
            return prior(len(self.space.knobs))[0]
        return fit(self._rows(places, y, variance), self.space.group, floor=floor)

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
        """Goals [N, G] where they are modelled, and their known variances there."""
        y = np.array([self.values[n][epoch] for n, epoch in places])
        variance = np.array([self.noise(row) for row in y])
        return self.link.there(y), variance * self.link.slope(y) ** 2

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
