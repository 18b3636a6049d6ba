"""Experiment: the spec of one training run plus what varies in it."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from arat_ray.experiment.constraints import Bound
from arat_ray.experiment.early_stopping import EarlyStopping
from arat_ray.experiment.errors import explain, shown
from arat_ray.experiment.paths import MEMBER, put, whole_run
from arat_ray.experiment.search import Domain, flag
from arat_ray.results.schema import GOALS
from arat_ray.spec import Spec, Written
from arat_ray.storage.names import check_experiment_name
from arat_ray.text import did_you_mean
from arat_ray.training.identity import of_experiment
from arat_ray.training.run import Train, Validate
from arat_ray.units import parse_share

if TYPE_CHECKING:
    import optuna

if TYPE_CHECKING:
    Goal = str
else:
    Goal = Literal[GOALS]
Sampled = dict[str, Any]
"""Path into `train` -> sampled value or label."""

NEEDS_CURVES = "needs a sampler that knows what a trial would add; write `sampler: {name: curves}`"
PRICE = "write `resources: {price: {usd_per_device_hour: 2.5}}`"
GRID_AT_MOST = 100_000


class Sampler(Spec):
    """How the search proposes its next trial."""

    name: Literal["curves", "tpe", "nsga2", "gp", "random", "grid"] = "curves"
    seed: int = Field(0, ge=0)
    """Of what is drawn at random."""


class Budget(Spec):
    """When the search ends: whichever comes first. A grid ends by itself."""

    trials: int | None = Field(None, ge=1)
    """Trials to run; `--trials` extends a finished study."""
    hours: float | None = Field(None, gt=0)
    """Of wall time, from each start."""
    device_hours: float | None = Field(None, gt=0)
    """Hours of devices, a GPU each, or a CPU worker where trials take no GPU, added up over all attempts."""
    usd: float | None = Field(None, gt=0)
    """US dollars, by `resources.price`, added up over all attempts."""
    gain: Annotated[float | None, BeforeValidator(parse_share), Written("share of the hypervolume, such as 0.1%")] = (
        Field(None, gt=0, lt=1)
    )
    """No trial begins that is expected to add less to the front than this share of its hypervolume, and the search ends
    when those at work have ended; needs `sampler: {name: curves}`."""
    stall: int | None = Field(None, ge=1)
    """Trials in a row that may end without the hypervolume of the front growing."""
    max_failures: int | None = Field(5, ge=1)
    """Trials in a row that may fail before the study ends, since its last start; null: any number."""


class Price(Spec):
    """What a device costs: a GPU, or a CPU worker where trials take no GPU."""

    usd_per_device_hour: float = Field(ge=0)
    """US dollars an hour of one device."""


class Resources(Spec):
    """What one trial takes and costs, and how many run at once (by default as many as the cluster holds)."""

    workers: int = Field(1, ge=1, le=10_000)
    """Processes that share one trial's batches."""
    min_workers: int | None = Field(None, ge=1)
    """With how few of its workers a trial goes on while machines are missing; by default with none less."""
    cpus_per_worker: float = Field(1, gt=0)
    """CPU cores that Ray keeps for a worker."""
    gpus_per_worker: float = Field(0, ge=0)
    """GPUs of a worker; a fraction puts several trials on one GPU."""
    concurrent_trials: int | None = Field(None, ge=1)
    """Trials at once at most."""
    timeout_minutes: float | None = Field(None, gt=0)
    """How long nothing may be heard of a trial at work before its workers are killed and replaced; by default 10
    minutes, or ten times the longest step."""
    price: Price | None = None
    """What the cost of trials is reckoned with."""

    @property
    def devices(self) -> float:
        """Devices that a trial holds: its GPUs, or its workers where they have none."""
        return self.workers * (self.gpus_per_worker or 1)

    def counts(self, batch_size: int) -> list[int]:
        """The numbers of workers that a trial may have, most first; each takes an equal share of a batch."""
        fewest = self.workers if self.min_workers is None else self.min_workers
        return [n for n in range(self.workers, fewest - 1, -1) if batch_size % n == 0 and n < batch_size]

    @model_validator(mode="after")
    def _fewest_workers_are_not_more(self) -> Self:
        if self.min_workers is not None and self.min_workers > self.workers:
            raise ValueError(f"min_workers {self.min_workers} is more than workers {self.workers}")
        return self

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

    name: Annotated[str, AfterValidator(check_experiment_name)]
    """The study's name: results land in `results/<name>/`."""
    train: Annotated[dict[str, Any], Written("[Train](#train)")]
    """One complete training run, from which every trial starts; by itself it is what `arat-ray train` runs."""
    validation: Validate = Field(alias="validate")
    """How trials are measured during the search."""
    search: dict[str, Domain] = Field(default_factory=dict)
    """What varies: a path into `train`, such as `method.beta`, then its domain. `member` is a choice of whole runs."""
    first: Annotated[
        list[Sampled], Written("list of mappings of paths in `search` to a value, or to a label of a choice")
    ] = Field(default_factory=list)
    """Known good points, tried before the sampler proposes any: values by path."""
    maximize: tuple[Goal, ...] = Field(("clean_accuracy", "robust_accuracy"), min_length=1)
    """The goals of the search."""
    constraints: dict[str, Bound] = Field(default_factory=dict)
    """Bounds on numbers of `trials`, or of the last row of `epochs`; a complete trial that breaks one is infeasible
    and on no front."""
    sampler: Sampler | None = None
    """How the next trial is proposed; a search needs one."""
    early_stopping: EarlyStopping | None = None
    """Ends trials that are not worth their epochs; without it all run to their end."""
    budget: Budget = Budget()
    """When the search ends."""
    resources: Resources = Resources()
    """What a trial takes of the machines."""

    @model_validator(mode="before")
    @classmethod
    def _an_empty_section_is_left_out(cls, data: Any) -> Any:
        """`search:` with nothing below it is null in YAML."""
        if not isinstance(data, Mapping):
            return data
        optional = {field.alias or name for name, field in cls.model_fields.items() if not field.is_required()}
        return {key: value for key, value in data.items() if value is not None or key not in optional}

    @field_validator("train", mode="before")
    @classmethod
    def _as_written(cls, train: Any) -> Any:
        """In Python a run may be given as the spec that it is."""
        return train.model_dump(mode="json") if isinstance(train, Train) else train

    @field_validator("search")
    @classmethod
    def _read_conditions(cls, search: dict[str, Domain]) -> dict[str, Domain]:
        """`when: {sync_batch_norm: on}` speaks of the boolean that the domain has."""
        flags = {path for path, domain in search.items() if domain.kind == "bool"}
        for path, domain in search.items():
            if flags & domain.when.keys():
                when = {other: _flags(wanted) if other in flags else wanted for other, wanted in domain.when.items()}
                search = search | {path: domain.model_copy(update={"when": when})}
        return search

    @field_validator("first")
    @classmethod
    def _read_first(cls, first: list[Sampled], info: ValidationInfo) -> list[Sampled]:
        search: Mapping[str, Domain] = info.data.get("search", {})
        return [
            {path: search[path].read(given) if path in search else given for path, given in point.items()}
            for point in first
        ]

    @field_validator("maximize")
    @classmethod
    def _goals_differ(cls, goals: tuple[Goal, ...]) -> tuple[Goal, ...]:
        if len(set(goals)) < len(goals):
            raise ValueError(f"a goal stands twice in {shown(list(goals))}")
        return goals

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
        return Train.model_validate(self.substitute(sampled))

    def substitute(self, sampled: Mapping[str, Any]) -> dict[str, Any]:
        """`train` as written with the samples' values put in, not yet validated.

        What the file leaves out stays out, so that a sampled preset can still fill it in. A subtree is put in before
        the paths below it.
        """
        train = copy.deepcopy(self.train)
        for path in sorted(sampled, key=lambda path: (path != MEMBER, path.count("."))):
            if path not in self.search:
                raise ValueError(f"{path!r} is not a path of `search:`{did_you_mean(path, self.search)}")
            try:
                value = self.search[path].value(sampled[path])
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error
            if path == MEMBER:
                train = copy.deepcopy(whole_run(value))
            else:
                put(train, path, copy.deepcopy(value))
        return train

    def grid(self) -> Iterator[Sampled]:
        """Every combination of choices, conditions respected.

        Raises ValueError for a domain that is no choice, and for more combinations than anyone would run.
        """
        for path, domain in self.search.items():
            if domain.labels is None:
                raise ValueError(f"search.{path}: a grid needs `choice`, not an interval")
        combinations = math.prod(len(domain.probes) for domain in self.search.values())
        if combinations > GRID_AT_MOST:
            raise ValueError(f"sampler: a grid of {combinations} combinations; use curves or random for so many")
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

    @property
    def proposes_by_gain(self) -> bool:
        """Whether its sampler knows what a new trial is expected to add to the front."""
        return self.sampler is not None and self.sampler.name == "curves"

    def with_budget(self, **given: float | str | None) -> Experiment:
        """The same experiment, with these budgets instead of the file's where they are given.

        Raises ValueError for a budget that is none, for one in usd where no price is known, and for one by gain where
        nobody knows what a trial would add.
        """
        given = {key: value for key, value in given.items() if value is not None}
        try:
            budget = Budget.model_validate(self.budget.model_dump() | given)
        except ValidationError as error:
            raise ValueError("; ".join(explain(error, given, prefix="budget"))) from None
        if "usd" in given and self.resources.price is None:
            raise ValueError(f"--budget-usd {given['usd']:g} needs a price; {PRICE}")
        if "gain" in given and not self.proposes_by_gain:
            raise ValueError(f"--gain {given['gain']} {NEEDS_CURVES}")
        return self.model_copy(update={"budget": budget})

    def without_search(self) -> Experiment:
        """The run of `train:` alone, as a study of one trial."""
        nothing: dict[str, Any] = {"search": {}, "first": [], "sampler": None, "early_stopping": None}
        nothing["budget"] = Budget(trials=1)
        return self.model_copy(update=nothing)

    def identity(self) -> dict[str, Any]:
        """What makes results comparable: all but the budget, the sampler, the resources and where the data lies."""
        dumped = self.model_dump(mode="json", by_alias=True, exclude={"budget", "sampler", "resources", "first"})
        if not self.constraints:  # studies from before there were any stay the same
            del dumped["constraints"]
        return of_experiment(dumped | {"train": self.base.model_dump(mode="json")})


def _flags(wanted: Any) -> Any:
    return [flag(label) for label in wanted] if isinstance(wanted, list) else flag(wanted)
