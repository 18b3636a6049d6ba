"""Experiment: one training run plus what varies in it, read from YAML and checked before anything is computed."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from arat_ray.experiment.errors import ExperimentError, explain, read_yaml
from arat_ray.experiment.search import Domain
from arat_ray.spec import Spec, did_you_mean
from arat_ray.training.run import Train, Validate

if TYPE_CHECKING:
    import optuna

Goal = Literal["clean_accuracy", "robust_accuracy"]
Sampled = dict[str, Any]
"""Path into `train` -> sampled value or label."""


def _is_a_file_name(name: str) -> str:
    if not name or not all(c.isalnum() or c in "-_." for c in name) or name.startswith("."):
        raise ValueError(f"{name!r} becomes a folder: use letters, digits, '-', '_' and '.'")
    return name


class Sampler(Spec):
    """How the search proposes its next trial."""

    name: Literal["tpe", "nsga2", "random", "grid"] = "tpe"
    seed: int = Field(ge=0)


class Budget(Spec):
    """When the search ends: whichever comes first. A grid ends by itself."""

    trials: int | None = Field(None, ge=1)
    hours: float | None = Field(None, gt=0)


class Resources(Spec):
    """What one trial takes, and how many run at once (by default as many as the cluster holds)."""

    workers: int = Field(1, ge=1)
    cpus_per_worker: float = Field(1, gt=0)
    gpus_per_worker: float = Field(0, ge=0)
    concurrent_trials: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _gpus_can_be_shared_out(self) -> Self:
        gpus = self.gpus_per_worker
        if self.workers > 1 and 0 < gpus < 1:
            raise ValueError(
                f"gpus_per_worker {gpus:g} with {self.workers} workers would put two workers of a trial on one GPU, "
                "which NCCL refuses; use workers: 1, or gpus_per_worker: 1"
            )
        if gpus > 1 and gpus != int(gpus):
            raise ValueError(f"gpus_per_worker {gpus:g}: above 1, only whole GPUs can be given")
        return self


class Experiment(Spec):
    """An experiment file. `train` alone is runnable; `search` says what varies in it."""

    name: Annotated[str, AfterValidator(_is_a_file_name)]
    train: dict[str, Any]
    validation: Validate = Field(alias="validate")
    search: dict[str, Domain] = Field(default_factory=dict)
    first: list[Sampled] = Field(default_factory=list)
    maximize: tuple[Goal, ...] = Field(("clean_accuracy", "robust_accuracy"), min_length=1)
    sampler: Sampler | None = None
    budget: Budget = Budget()
    resources: Resources = Resources()

    @property
    def base(self) -> Train:
        """The run of `train:` as it stands."""
        return Train.model_validate(self.train)

    def suggest(self, trial: optuna.Trial) -> Sampled:
        """Sample every domain whose condition holds, in the file's order."""
        sampled: Sampled = {}
        for path, domain in self.search.items():
            if domain.applies(sampled):
                sampled[path] = domain.suggest(trial, path)
        return sampled

    def resolve(self, sampled: Mapping[str, Any]) -> Train:
        """The concrete run of one trial.

        Raises ValueError naming the path for a sample that is outside of its domain or leads nowhere in `train`, and
        pydantic's ValidationError for one that makes an impossible run.
        """
        return Train.model_validate(self.place(sampled))

    def place(self, sampled: Mapping[str, Any]) -> dict[str, Any]:
        """`train` with the samples' values put in, not yet validated."""
        train = self.base.model_dump()
        for path in sorted(sampled, key=lambda path: path.count(".")):
            if path not in self.search:
                raise ValueError(f"{path!r} is not a path of `search:`{did_you_mean(path, self.search)}")
            try:
                value = self.search[path].value(sampled[path])
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error
            _set(train, path, copy.deepcopy(value))
        return train

    def grid(self) -> Iterator[Sampled]:
        """Every combination of choices, conditions respected. Raises ValueError for a domain that is no choice."""
        for path, domain in self.search.items():
            if domain.labels is None:
                raise ValueError(f"search.{path}: a grid needs `choice`, not an interval")
        seen = set()
        for labels in itertools.product(*(domain.probes for domain in self.search.values())):
            sampled: Sampled = {}
            for (path, domain), label in zip(self.search.items(), labels, strict=True):
                if domain.applies(sampled):
                    sampled[path] = label
            key = tuple(sampled.items())
            if key not in seen:
                seen.add(key)
                yield sampled

    @property
    def trials(self) -> int | None:
        """How many trials the study has when it is done; None where only time ends it."""
        if self.sampler is not None and self.sampler.name == "grid":
            combinations = sum(1 for _ in self.grid())
            return min(combinations, self.budget.trials or combinations)
        return self.budget.trials

    def with_budget(self, *, trials: int | None, hours: float | None) -> Experiment:
        """The same experiment, with these instead of the file's where they are given."""
        given = {"trials": trials, "hours": hours}
        budget = self.budget.model_copy(update={key: value for key, value in given.items() if value is not None})
        return self.model_copy(update={"budget": budget})

    def without_search(self) -> Experiment:
        """The run of `train:` alone, as a study of one trial."""
        nothing: dict[str, Any] = {"search": {}, "first": [], "sampler": None, "budget": Budget(trials=1)}
        return self.model_copy(update=nothing)

    def identity(self) -> dict[str, Any]:
        """What makes results comparable: everything but the budget, the sampler and the resources."""
        dumped = self.model_dump(mode="json", by_alias=True, exclude={"budget", "sampler", "resources", "first"})
        return dumped | {"train": self.base.model_dump(mode="json")}

    def probes(self) -> Iterator[tuple[str, Sampled]]:
        """Samples that show whether each value of each domain can be used: (where it is written, sample)."""
        conditions: dict[str, Sampled] = {}
        for path, domain in self.search.items():
            base: Sampled = {}
            for other, wanted in domain.when.items():
                label = wanted[0] if isinstance(wanted, list) else wanted
                base |= conditions.get(other, {}) | {other: label}
            conditions[path] = base
            for sample in domain.probes:
                yield f"search.{path}", base | {path: sample}
        for number, point in enumerate(self.first):
            yield f"first[{number}]", point


def load(path: Path) -> Experiment:
    """Read and check an experiment file.

    Raises ExperimentError, which names the file, the key, the value and what to do, for everything that can be known
    without data and without computing.
    """
    raw = read_yaml(path)
    try:
        experiment = Experiment.model_validate(raw)
    except ValidationError as error:
        raise ExperimentError(path, explain(error, raw)) from error
    try:
        base = Train.model_validate(experiment.train)
    except ValidationError as error:
        raise ExperimentError(path, explain(error, raw["train"], prefix="train")) from error
    try:
        base.check()
    except ValueError as error:
        raise ExperimentError(path, [f"train: {error}"]) from error
    problems = [*_search_problems(experiment), *_sampler_problems(experiment)]
    if problems:
        raise ExperimentError(path, problems)
    return experiment


def _search_problems(experiment: Experiment) -> Iterator[str]:
    earlier: list[str] = []
    for path, domain in experiment.search.items():
        for other, wanted in domain.when.items():
            if other not in earlier:
                yield f"search.{path}.when: {other!r} is not searched above it{did_you_mean(other, earlier)}"
                return
            for label in wanted if isinstance(wanted, list) else [wanted]:
                try:
                    experiment.search[other].value(label)
                except ValueError as error:
                    yield f"search.{path}.when: {error}"
                    return
        earlier.append(path)
    refused: set[str] = set()
    for where, sampled in experiment.probes():
        if where in refused:
            continue
        try:
            experiment.resolve(sampled).check()
        except ValidationError as error:
            refused.add(where)
            value = sampled.get(where.removeprefix("search."), sampled)
            yield from (
                f"{where}: with {value!r}: {line}" for line in explain(error, experiment.place(sampled), prefix="train")
            )
        except ValueError as error:
            refused.add(where)
            yield f"{where}: {error}"


def _sampler_problems(experiment: Experiment) -> Iterator[str]:
    if not experiment.search:
        return
    if experiment.sampler is None:
        yield "sampler: missing; write `sampler: {name: tpe, seed: 0}`"
        return
    if experiment.sampler.name == "grid":
        try:
            list(experiment.grid())
        except ValueError as error:
            yield str(error)
    elif experiment.budget.trials is None and experiment.budget.hours is None:
        yield "budget: missing; write `budget: {trials: 64}` or `budget: {hours: 12}`"


def _set(train: dict[str, Any], path: str, value: Any) -> None:
    """Put a value at a dotted path, which must exist."""
    *parents, last = path.split(".")
    node: Any = train
    for depth, part in enumerate([*parents, last]):
        if not isinstance(node, dict) or part not in node:
            known = (
                [f"{'.'.join(path.split('.')[:depth])}.{key}".lstrip(".") for key in node]
                if isinstance(node, dict)
                else []
            )
            raise ValueError(f"path {path!r} is not in train{did_you_mean(path, known) if known else ''}")
        if depth < len(parents):
            node = node[part]
    node[last] = value
