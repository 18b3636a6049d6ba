"""What varies in a search: domains, each written in YAML as one key.

    uniform: [low, high]      loguniform: [low, high]      int: [low, high]      choice: [values] or {label: value}

Both ends are included. `when: {path: value}` makes a domain conditional on what another one sampled. What is sampled
(for a labelled choice the label) is stored and plotted; what it stands for goes into the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from arat_ray.spec import Spec, parse_fraction

if TYPE_CHECKING:
    import optuna

Kind = Literal["float", "int", "bool", "string"]
Scalar = bool | int | float | str


def _parse_fractions(value: Any) -> Any:
    """8/255 as a number, wherever a domain's values are written."""
    if isinstance(value, list):
        return [_parse_fractions(item) for item in value]
    if isinstance(value, Mapping):
        return {key: parse_fraction(item) for key, item in value.items()}
    return parse_fraction(value)


Ends = Annotated[tuple[float, float], BeforeValidator(_parse_fractions)]
Values = Annotated[list[Any] | dict[str, Any], BeforeValidator(_parse_fractions)]


class Domain(Spec):
    """The values of one path into `train`."""

    uniform: Ends | None = None
    loguniform: Ends | None = None
    int_: tuple[int, int] | None = Field(None, alias="int")
    choice: Values | None = None
    when: dict[str, Any] = Field(default_factory=dict)

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
        elif isinstance(self.choice, list):
            for value in self.choice:
                if not isinstance(value, Scalar):
                    raise ValueError(f"give {value!r} a label: `choice: {{label: value, ...}}`")
            if len(set(map(repr, self.choice))) < len(self.choice):
                raise ValueError(f"a value stands twice in {self.choice}")
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
        types = {type(label) for label in self.labels}
        if types == {bool}:
            return "bool"
        if types == {int}:
            return "int"
        return "float" if types <= {int, float} else "string"

    @property
    def probes(self) -> list[Any]:
        """Samples that together show whether every value can be used: all of a choice, both ends of an interval."""
        return self.labels if self.labels is not None else list(self.ends)

    def applies(self, sampled: Mapping[str, Any]) -> bool:
        """Whether the condition holds among what was sampled so far."""
        return all(
            path in sampled and sampled[path] in (wanted if isinstance(wanted, list) else [wanted])
            for path, wanted in self.when.items()
        )

    def suggest(self, trial: optuna.Trial, path: str) -> Any:
        """Sample through Optuna."""
        if self.labels is not None:
            labels = [str(label) for label in self.labels] if self.kind == "string" else self.labels
            return trial.suggest_categorical(path, labels)
        low, high = self.ends
        if self.int_ is not None:
            return trial.suggest_int(path, int(low), int(high))
        return trial.suggest_float(path, low, high, log=self.loguniform is not None)

    def value(self, sampled: Any) -> Any:
        """What a sample stands for. Raises ValueError for one outside of the domain."""
        if isinstance(self.choice, dict):
            if sampled not in self.choice:
                raise ValueError(f"{sampled!r} is none of {', '.join(map(repr, self.choice))}")
            return self.choice[sampled]
        if isinstance(self.choice, list):
            for value in self.choice:
                if value == sampled or (self.kind == "string" and str(value) == sampled):
                    return value
            raise ValueError(f"{sampled!r} is none of {', '.join(map(repr, self.choice))}")
        low, high = self.ends
        if isinstance(sampled, bool) or not isinstance(sampled, int | float) or not low <= sampled <= high:
            raise ValueError(f"{sampled!r} is not within [{low:g}, {high:g}]")
        return sampled
