"""What varies in a search: domains, each written in YAML as one key.

    uniform: [low, high]      loguniform: [low, high]      int: [low, high]      choice: [values] or {label: value}

Both ends are included. `when: {path: value}` makes a domain conditional on what another one sampled. What is sampled
(for a labelled choice the label) is stored and plotted; what it stands for goes into the run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from arat_ray.experiment.errors import shown
from arat_ray.pixels import parse_fraction
from arat_ray.spec import Spec, Written

if TYPE_CHECKING:
    import optuna

Kind = Literal["float", "int", "bool", "string"]
CHOICE_AT_MOST = 1000
"""Values, each of which is tried out before anything is computed."""
INSIDE = 0.38196601125
"""A place within an interval where no round number lies."""


def _two_numbers(value: Any) -> Any:
    """The ends of an interval; 8/255 is a number here."""
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError(f"must be two numbers, [low, high], not {shown(value)}")
    return [parse_fraction(end) for end in value]


def flag(value: Any) -> Any:
    """A boolean as YAML 1.1 writes it, `on` or `no`; anything else unchanged."""
    return {"yes": True, "on": True, "no": False, "off": False}.get(value.lower(), value) if _is_word(value) else value


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and value in {value.lower(), value.upper(), value.capitalize()}


def _values(value: Any) -> Any:
    """The values of a choice; 8/255 is a number here, [on, off] booleans. Labels are text, or all of them integers."""
    if isinstance(value, list):
        flags = [flag(item) for item in value]
        return flags if all(isinstance(item, bool) for item in flags) else [parse_fraction(item) for item in value]
    if not isinstance(value, Mapping):
        raise ValueError(f"must be [value, ...] or {{label: value, ...}}, not {shown(value)}")
    are_numbers = bool(value) and all(type(label) is int for label in value)
    for label in value:
        if not (are_numbers or isinstance(label, str)):
            raise ValueError(f"a label must be text; YAML reads this one as {shown(label)}, so put it in quotes")
    return {label: parse_fraction(_with_flags(item)) for label, item in value.items()}


def _with_flags(value: Any) -> Any:
    """A value of `train`, which has no text that is a boolean in YAML 1.1, in nested collections as well."""
    if isinstance(value, dict):
        return {key: _with_flags(item) for key, item in value.items()}
    return [_with_flags(item) for item in value] if isinstance(value, list) else flag(value)


class Domain(Spec):
    """The values of one path into `train`."""

    uniform: Annotated[tuple[float, float], BeforeValidator(_two_numbers)] | None = None
    """[low, high], both included, drawn uniformly."""
    loguniform: Annotated[tuple[float, float], BeforeValidator(_two_numbers)] | None = None
    """[low, high], both included, drawn uniformly in the logarithm."""
    int_: Annotated[tuple[int, int], BeforeValidator(_two_numbers)] | None = Field(None, alias="int")
    """[low, high], whole numbers, both included."""
    choice: Annotated[
        Any, BeforeValidator(_values), Written("list of values, or mapping of labels (text, or all integers) to values")
    ] = None
    """A list of values, or labels and what they stand for; the label is sampled, stored and plotted."""
    when: Annotated[dict[str, Any], Written("mapping of paths in `search` to a label or a list of labels")] = Field(
        default_factory=dict
    )
    """{path: label or labels}: drawn only where another domain took one of them; else `train`'s value stays."""

    @model_validator(mode="after")
    def _is_one_domain_with_values(self) -> Self:
        given = [self.uniform, self.loguniform, self.int_, self.choice]
        if sum(values is not None for values in given) != 1:
            raise ValueError("write exactly one of uniform, loguniform, int, choice")
        if self.choice is None:
            low, high = self.ends
            if low >= high:
                raise ValueError(f"[{low:g}, {high:g}] is empty; write the lower end first")
            if self.loguniform is not None and low <= 0:
                raise ValueError(f"a logarithmic interval starts above 0, not at {low:g}")
        elif not self.choice:
            raise ValueError("a choice needs at least one value")
        elif len(self.choice) > CHOICE_AT_MOST:
            raise ValueError(f"a choice of {len(self.choice)} values; use int, uniform or loguniform for so many")
        elif isinstance(self.choice, list):
            _refuse_values_without_a_column(self.choice)
        return self

    @property
    def ends(self) -> tuple[float, float]:
        """Lower and upper end of an interval."""
        ends = self.uniform or self.loguniform or self.int_
        assert ends is not None
        return ends

    @property
    def labels(self) -> list[Any] | None:
        """What a choice samples from; None for an interval."""
        return None if self.choice is None else list(self.choice)

    @property
    def kind(self) -> Kind:
        """The type of the column that stores what is sampled."""
        if self.labels is None:
            return "float" if self.int_ is None else "int"
        return _kind(self.labels)

    @property
    def probes(self) -> list[Any]:
        """Samples that together show whether every value can be used: all of a choice, both ends and one inside."""
        if self.labels is not None:
            return self.labels
        low, high = self.ends
        return [low, high] if self.int_ is not None else [low, high, low + INSIDE * (high - low)]

    def __str__(self) -> str:
        if self.labels is not None:
            values = f"one of {', '.join(map(str, self.labels))}"
        else:
            low, high = self.ends
            how = "log-uniform" if self.loguniform else "uniform" if self.uniform else "integer"
            values = f"{how} in [{low:g}, {high:g}]"
        conditions = [f"{path} is {' or '.join(map(str, _as_list(wanted)))}" for path, wanted in self.when.items()]
        return f"{values}, where {' and '.join(conditions)}" if conditions else values

    def read(self, given: Any) -> Any:
        """A sample as a user writes it: 8/255 is a number here too, `on` a boolean, unless it is a label."""
        if isinstance(self.choice, dict):
            return given
        read = flag(given) if self.kind == "bool" else parse_fraction(given)
        return next((label for label in self.labels or () if _are_equal(label, read)), read)

    def applies(self, sampled: Mapping[str, Any]) -> bool:
        """Whether the condition holds among what was sampled so far."""
        return all(
            path in sampled and any(sampled[path] in (label, parse_fraction(label)) for label in _as_list(wanted))
            for path, wanted in self.when.items()
        )

    def suggest(self, trial: optuna.Trial, path: str) -> Any:
        """Sample through Optuna."""
        if self.labels is not None:
            return trial.suggest_categorical(path, self.labels)
        low, high = self.ends
        if self.int_ is not None:
            return trial.suggest_int(path, int(low), int(high))
        return trial.suggest_float(path, low, high, log=self.loguniform is not None)

    def distribution(self) -> optuna.distributions.BaseDistribution:
        """What Optuna records when it suggests from here."""
        from optuna import distributions

        if self.labels is not None:
            return distributions.CategoricalDistribution(self.labels)
        low, high = self.ends
        if self.int_ is not None:
            return distributions.IntDistribution(int(low), int(high))
        return distributions.FloatDistribution(low, high, log=self.loguniform is not None)

    def value(self, sampled: Any) -> Any:
        """What a sample stands for. Raises ValueError for one outside of the domain."""
        if self.labels is not None:
            if not any(_are_equal(label, sampled) for label in self.labels):
                raise ValueError(f"{shown(sampled)} is none of {', '.join(map(shown, self.labels))}")
            return self.choice[sampled if isinstance(self.choice, dict) else self.labels.index(sampled)]
        low, high = self.ends
        number = isinstance(sampled, int | float) and not isinstance(sampled, bool)
        if not number or not low <= sampled <= high:
            raise ValueError(f"{shown(sampled)} is not within [{low:g}, {high:g}]")
        if self.int_ is not None and not isinstance(sampled, int):
            raise ValueError(f"{shown(sampled)} is no whole number")
        return sampled


def _are_equal(label: Any, given: Any) -> bool:
    """As numbers are, and True is not 1."""
    return bool(label == given) and isinstance(label, bool) == isinstance(given, bool)


def _as_list(wanted: Any) -> list[Any]:
    """The labels of a condition, which may be one or several."""
    return wanted if isinstance(wanted, list) else [wanted]


def _kind(labels: Sequence[Any]) -> Kind:
    types = {type(label) for label in labels}
    if types == {bool}:
        return "bool"
    if types == {int}:
        return "int"
    return "float" if types <= {int, float} else "string"


def _refuse_values_without_a_column(values: Sequence[Any]) -> None:
    """Raises ValueError for an unlabelled choice whose values one column of the results cannot hold."""
    for value in values:
        if not isinstance(value, bool | int | float | str):
            raise ValueError(f"give {shown(value)} a label: `choice: {{label: value, ...}}`")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"must be finite numbers, not {value}")
    if _kind(values) == "string" and not all(isinstance(value, str) for value in values):
        raise ValueError("mixes text, numbers or booleans; give each a label: `choice: {label: value, ...}`")
    if len(set(values)) < len(values):
        raise ValueError(f"a value stands twice in {shown(list(values))}")
