"""The learning curves of a study for its sampler and its early stopping, told by the study's record: what has happened,
line by line and in its order, and what will. So a resumed study goes on as an uninterrupted one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from arat_ray.experiment.early_stopping import ExpectedGain
from arat_ray.experiment.search import Domain
from arat_ray.experiment.spec import Experiment, Sampled
from arat_ray.frontier.dominance import Floats
from arat_ray.frontier.knobs import Space
from arat_ray.frontier.links import IDENTITY, LOGIT, Link, no_noise, of_counts
from arat_ray.results.schema import SHARES
from arat_ray.results.segments import Line
from arat_ray.study.state import number_of
from arat_ray.study.warm_start import translate

if TYPE_CHECKING:  # most searches model no curves, and do without scipy
    from arat_ray.frontier.curves import Curves, How
    from arat_ray.study.curve_sampler import CurveSampler

KEEP_FACTOR = 3
"""Without early stopping, how many times as late the next epoch is that stays in the model."""
HEARD = (b"learned", b"asked", b"epoch", b"ended")
MEASURED = b'"validation_images":'
"""In the line of an epoch after which something was measured."""
HOW: dict[str, How] = {"complete": "complete", "pruned": "stopped", "failed": "failed"}
"""By the status of a trial that has ended; an interrupted one has not."""


def hearing_of(experiment: Experiment) -> Hearing | None:
    """What tells the curves of a study what happens in it; None for one that has no use for them."""
    sampler, stopping, epochs = experiment.sampler, experiment.early_stopping, experiment.base.epochs
    if not (sampler and sampler.name == "curves") and not isinstance(stopping, ExpectedGain):
        return None
    from arat_ray.frontier.curves import Curves

    every = experiment.validation.every
    keep = stopping.rungs(epochs) if stopping else powers(every, epochs)
    curves = Curves(
        space_of(experiment.search),
        last=epochs,
        every=every,
        keep=keep,
        reference=[0.0] * len(experiment.maximize),
        **of_goals(experiment.maximize, experiment.validation.images),
        seed=sampler.seed if sampler else 0,
    )
    return Hearing(curves, experiment.maximize, choose=experiment.validation.choose)


class OfGoals(TypedDict):
    """How noisy goals are, and on which scale they are modelled, as arguments of `Curves`."""

    noise: Callable[[Floats], Floats]
    link: Link


def of_goals(goals: Sequence[str], images: int) -> OfGoals:
    """Accuracies are counts of so many validation images; an area of such shares is no noisier than a count."""
    if all(goal in SHARES for goal in goals):
        return OfGoals(noise=of_counts(images), link=LOGIT)
    return OfGoals(noise=no_noise, link=IDENTITY)


def powers(first: int, before: int) -> list[int]:
    """first, 3 first, 9 first, ... below a number."""
    found, epoch = [], first
    while epoch < before:
        found.append(epoch)
        epoch *= KEEP_FACTOR
    return found


def space_of(search: Mapping[str, Domain]) -> Space:
    """The knobs of a search and its conditions."""
    from arat_ray.study.curve_sampler import knob_of

    knobs = [knob_of(path, domain.distribution()) for path, domain in search.items()]
    return Space(knobs, lambda path, sampled: search[path].applies(sampled))


def open_sampler(experiment: Experiment, curves: Curves | None) -> CurveSampler | None:
    """The sampler that proposes by these curves; None for a search with another one."""
    sampler = experiment.sampler
    if curves is None or sampler is None or sampler.name != "curves":
        return None
    from arat_ray.study.curve_sampler import CurveSampler

    return CurveSampler(
        seed=sampler.seed,
        search_space={path: domain.distribution() for path, domain in experiment.search.items()},
        default=default_of(experiment),
        startup=start_of(experiment),
        curves=curves,
    )


def start_of(experiment: Experiment) -> int:
    """How many quasi-random trials its search with curves begins with."""
    from arat_ray.study.curve_sampler import startup_of

    budget = experiment.budget
    return startup_of(experiment.trials, timed=bool(budget.hours or budget.device_hours or budget.usd))


def default_of(experiment: Experiment) -> Sampled | None:
    """What `train` has of what is searched, to be tried first; None where the file names better ones, or where a value
    of it is outside of the search."""
    if experiment.first:
        return None
    return translate(experiment, experiment.base.model_dump(mode="json"))


class Hearing:
    """Tells curves what happens in a study, by the events of its record.

    What a trial measured at their last epoch is told when it is complete: where epochs vary, it may go beyond.
    """

    def __init__(self, curves: Curves, goals: Sequence[str], *, choose: str) -> None:
        self.curves, self.goals, self.choose = curves, goals, choose
        self.reached: dict[int, list[float | None]] = {}
        """What each trial would have, were its last measurement at its end."""
        self._best: dict[int, tuple[float, list[float | None]]] = {}

    def __call__(self, event: Mapping[str, Any]) -> None:
        kind, curves = next(iter(event)), self.curves
        what = event[kind]
        if kind == "learned":
            for trial in what["trials"]:
                curves.learn(trial["sampled"], trial["goals"], trial["violations"])
        elif kind == "asked":
            curves.begin(what["number"], what["sampled"])
        elif kind == "epoch" and what.get("validation_images"):
            number = number_of(what["trial_id"])
            self.reached[number] = goals = self._goals(number, what)
            if what["epoch"] < curves.last:
                curves.measured(number, what["epoch"], goals)
        elif kind == "ended" and what["status"] in HOW:
            number = number_of(what["trial_id"])
            if what["status"] == "complete":
                curves.measured(number, curves.last, self._at_end(number, what))
            curves.ended(number, HOW[what["status"]], event.get("violations"))

    def again(self, line: Line) -> None:
        """The same of a line that is read; epochs after which nothing was measured are not even parsed."""
        if line.kind in HEARD and (line.kind != b"epoch" or MEASURED in line.text):
            self(line.event)

    def _at_end(self, number: int, row: Mapping[str, Any]) -> list[float | None]:
        """A complete trial's goals; where a worker was lost, its end holds only those that have changed since."""
        reached = self.reached.get(number) or [None] * len(self.goals)
        ended = [row.get(goal) for goal in self.goals]
        return [before if now is None else now for now, before in zip(ended, reached, strict=True)]

    def _goals(self, number: int, row: Mapping[str, Any]) -> list[float | None]:
        """What the trial would have reached, were this its last epoch; those of its best one where that counts."""
        goals: list[float | None] = [row.get(f"validation_{goal}") for goal in self.goals]
        robust = row.get("validation_robust_accuracy")
        if self.choose == "last" or robust is None:
            return goals
        best = self._best.get(number)
        if best is None or robust > best[0]:
            best = self._best[number] = robust, goals
        return best[1]
