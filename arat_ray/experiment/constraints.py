"""What `constraints:` may say: bounds on numbers of a trial in the tables. A trial that breaks one is infeasible.

How far a bound is broken is told to the sampler as a share of the bound, so that bounds of different units compare.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import pyarrow as pa
from pydantic import model_validator

from arat_ray.results.schema import TABLES
from arat_ray.spec import Pixels, Spec

NAMES = ("number", "attempt", "seed", "epoch")
"""Whole numbers that are no measurements."""
NOT_MEASURED = 1.0
"""How far a bound on a missing number counts as broken: by as much as the bound."""


def _numeric(table: str) -> list[str]:
    schema = TABLES[table].schema
    is_number = {each.name: pa.types.is_floating(each.type) or pa.types.is_integer(each.type) for each in schema}
    return [name for name, holds in is_number.items() if holds and name not in NAMES]


OF_TRIALS, OF_EPOCHS = _numeric("trials"), _numeric("epochs")
"""Columns that can be bounded: a trial's own, else the last one of its epochs that holds a number."""
DIAGNOSTICS = OF_EPOCHS[OF_EPOCHS.index("gradient_norm") : OF_EPOCHS.index("diagnostics_s") + 1]


class Bound(Spec):
    """What a number may be at least and at most."""

    min: Pixels | None = None
    """The least that is feasible."""
    max: Pixels | None = None
    """The most that is feasible."""

    @model_validator(mode="after")
    def _bounds_something(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("write {min: ...}, {max: ...} or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}, so nothing satisfies it")
        return self

    def __str__(self) -> str:
        return " and ".join(
            f"{name} {bound:g}" for name, bound in (("at least", self.min), ("at most", self.max)) if bound is not None
        )


class Feasibility(NamedTuple):
    """How a trial stands to the constraints: each one's violation (up to 0: satisfied), and in words what is broken."""

    violations: dict[str, float]
    broken: list[str]


def check(constraints: Mapping[str, Bound], values: Mapping[str, Any]) -> Feasibility:
    """Hold a trial's values against the constraints; a value that is missing or no finite number breaks its own."""
    violations, broken = {}, []
    for column, bound in constraints.items():
        value = values.get(column)
        if value is None or not math.isfinite(value):
            broken.append(f"{column} was not measured")
            value = None
        for name, sign, limit in (("min", -1, bound.min), ("max", 1, bound.max)):
            if limit is None:
                continue
            violation = NOT_MEASURED if value is None else sign * (value - limit) / (abs(limit) or 1.0)
            violations[f"{column}.{name}"] = float(violation)
            if value is not None and violation > 0:
                broken.append(f"{column} {value:.4g} is {'below' if sign < 0 else 'above'} {limit:g}")
    return Feasibility(violations, broken)
