"""What an experiment must satisfy beyond the shape of its keys: every value that may be sampled makes a run."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from pydantic import ValidationError

from arat_ray.experiment.constraints import DIAGNOSTICS, OF_EPOCHS, OF_TRIALS
from arat_ray.experiment.errors import explain, shown
from arat_ray.experiment.paths import MEMBER
from arat_ray.experiment.probes import probes
from arat_ray.experiment.spec import NEEDS_CURVES, PRICE, Experiment, Resources
from arat_ray.results.schema import ACCURACIES
from arat_ray.text import did_you_mean
from arat_ray.training.optimizers import Sgd
from arat_ray.training.run import Train
from arat_ray.training.schedules import Piecewise


def problems(experiment: Experiment) -> list[str]:
    """One line for each problem, found without data and without computing."""
    if problem := _impossible(experiment.base, experiment.resources):
        return [f"train: {problem}"]
    if found := list(_condition_problems(experiment)):
        return found
    return [
        *_search_problems(experiment),
        *_sampler_problems(experiment),
        *_budget_problems(experiment),
        *_constraint_problems(experiment),
        *_dial_problems(experiment),
        *_early_stopping_problems(experiment),
    ]


DIAL_GOAL = "dial_hypervolume"
NO_DIALS = "is measured at settings of the dial; write `validate: {dials: [-0.5, -0.25, 0.5]}`"


def _dial_problems(experiment: Experiment) -> Iterator[str]:
    """A dial is measured where the goal needs it, and of runs that have one; what is sampled is looked at apart."""
    if not _varies_methods(experiment) and (problem := _without_dial(experiment, experiment.base)):
        yield problem
    if DIAL_GOAL in experiment.maximize and not experiment.validation.dials:
        yield f"maximize: {DIAL_GOAL} {NO_DIALS}"


def _without_dial(experiment: Experiment, train: Train) -> str | None:
    problem = train.lacks_branches if experiment.validation.dials else None
    return problem and f"validate.dials: {problem}"


def _varies_methods(experiment: Experiment) -> bool:
    """Whether `train:` need not be a run of the search: its method is only an example."""
    return any(path in ("method", "preset", MEMBER) for path in experiment.search)


def _impossible(train: Train, resources: Resources) -> str | None:
    """Why a valid spec cannot be built or run, if it cannot."""
    if train.batch_size % resources.workers:
        return f"batch_size {train.batch_size} cannot be shared out over {resources.workers} workers"
    if train.batch_size == resources.workers:
        return f"batch_size {train.batch_size} leaves each of {resources.workers} workers one image, too few for a norm"
    if resources.min_workers is not None and resources.min_workers < resources.workers and not train.sync_batch_norm:
        return (
            f"resources.min_workers {resources.min_workers} would have a lost machine change the results, since each "
            "worker normalises its share of a batch by itself; set train.sync_batch_norm: true"
        )
    return _why_not_built(train.model_copy(update=NO_MATTER))


NO_MATTER = {"seed": 0, "epochs": 1, "batch_size": 2, "optimizer": Sgd(), "schedule": Piecewise(), "attack": None}
"""What no network depends on, as one value for all, so that a search of it builds the network once."""


@lru_cache(maxsize=256)
def _why_not_built(train: Train) -> str | None:
    try:
        train.check()
    except ValueError as error:
        return str(error)
    except (RuntimeError, TypeError, OverflowError) as error:  # torch, about a size that no tensor can have
        return f"the network cannot be built: {str(error).splitlines()[0]}"
    return None


def _condition_problems(experiment: Experiment) -> Iterator[str]:
    """`when` speaks of choices (or whole numbers) that stand above it, and of labels that they have."""
    earlier: list[str] = []
    for path, domain in experiment.search.items():
        for other, wanted in domain.when.items():
            where = f"search.{path}.when"
            if other not in earlier and other in experiment.search:
                yield f"{where}: {other!r} stands below it; move it above"
                continue
            if other not in earlier:
                yield f"{where}: {other!r} is not searched above it{did_you_mean(other, earlier) if earlier else ''}"
                continue
            condition = experiment.search[other]
            if condition.labels is None and condition.kind == "float":
                yield f"{where}: {other!r} is an interval, which is hardly ever met; a condition needs a `choice`"
                continue
            for label in wanted if isinstance(wanted, list) else [wanted]:
                try:
                    condition.value(condition.read(label))
                except ValueError as error:
                    yield f"{where}: {other}: {error}"
        earlier.append(path)


def _search_problems(experiment: Experiment) -> Iterator[str]:
    refused: set[str] = set()
    for where, sampled in probes(experiment):
        if where in refused:
            continue
        problems = list(_sample_problems(experiment, where, sampled))
        if problems:
            refused.add(where)
            yield from (f"{where}: {problem}" for problem in problems)


def _sample_problems(experiment: Experiment, where: str, sampled: dict[str, Any]) -> Iterator[str]:
    shown_sample = ", ".join(f"{path}: {shown(label)}" for path, label in sampled.items())
    try:
        train = experiment.resolve(sampled)
    except ValidationError as error:
        for line in explain(error, experiment.substitute(sampled), prefix="train"):
            yield f"with {shown_sample}: {line}"
        return
    except ValueError as error:
        others = len(sampled) > 1 and where.startswith("search.")
        yield f"with {shown_sample}: {error}; a `when` can leave this out" if others else str(error)
        return
    if problem := _impossible(train, experiment.resources):
        yield f"with {shown_sample}: {problem}"
    base_has_it = _varies_methods(experiment) or not _without_dial(experiment, experiment.base)
    if base_has_it and (problem := _without_dial(experiment, train)):
        yield f"with {shown_sample}: {problem}"
    if experiment.early_stopping is not None and train.epochs != experiment.base.epochs:
        yield (
            f"with {shown_sample}: a run of {train.epochs} epochs is not comparable with one of "
            f"{experiment.base.epochs} at the rungs of early_stopping; leave one of the two out"
        )
    if where.startswith("first"):
        for path in sampled:
            if not experiment.search[path].applies(sampled):
                yield f"{path} is given, but its `when` does not hold; leave it out"


def _sampler_problems(experiment: Experiment) -> Iterator[str]:
    if not experiment.search:
        return
    chosen = [path for path in experiment.search if path != "seed"]
    if experiment.validation.split == "test" and chosen:
        yield f"validate.split: test would choose {chosen[0]} on the test images; use split: validation"
    if experiment.sampler is None:
        yield "sampler: missing; write `sampler: {name: curves, seed: 0}`"
        return
    if experiment.sampler.name == "grid":
        if experiment.first:
            yield "first: a grid tries every combination anyway; leave `first` out"
        try:
            next(experiment.grid())
        except ValueError as error:
            yield str(error)
    elif not experiment.budget.model_dump(exclude_none=True, exclude={"max_failures"}):
        yield "budget: missing; write `budget: {trials: 64}` or `budget: {hours: 12}`"


def _budget_problems(experiment: Experiment) -> Iterator[str]:
    if experiment.budget.usd is not None and experiment.resources.price is None:
        yield f"budget.usd: {experiment.budget.usd:g} needs a price; {PRICE}"
    if experiment.budget.gain is not None and not experiment.proposes_by_gain:
        yield f"budget.gain: {100 * experiment.budget.gain:g}% {NEEDS_CURVES}"


def _early_stopping_problems(experiment: Experiment) -> Iterator[str]:
    if experiment.early_stopping is not None:
        yield from experiment.early_stopping.problems(experiment.base.epochs, experiment.validation)


def _constraint_problems(experiment: Experiment) -> Iterator[str]:
    """Why the constraints of an experiment cannot be judged."""
    known = dict.fromkeys([*OF_TRIALS, *OF_EPOCHS])
    for column, bound in experiment.constraints.items():
        where = f"constraints.{column}"
        if column not in known:
            yield f"constraints: {column!r} is no number in trials or epochs{did_you_mean(column, known)}"
        elif column in DIAGNOSTICS and experiment.base.diagnostics is None:
            yield f"{where}: is measured by diagnostics only; write `train: {{diagnostics: {{every: 5}}}}`"
        elif column.endswith(DIAL_GOAL) and not experiment.validation.dials:
            yield f"{where}: {NO_DIALS}"
        elif column == "cost_usd" and experiment.resources.price is None:
            yield f"{where}: needs a price; write `resources: {{price: {{usd_per_device_hour: 2.5}}}}`"
        for name, limit in (("min", bound.min), ("max", bound.max)):
            if column.endswith(ACCURACIES) and limit is not None and not 0 <= limit <= 1:
                hint = f"; did you mean {limit / 100:g}?" if 1 < limit <= 100 else ""
                yield f"{where}.{name}: {limit:g} is no accuracy, which lies in [0, 1]{hint}"
