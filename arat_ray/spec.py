"""Spec: the strict, frozen base of everything that YAML may say.

A spec stands beside the code that it configures; this module only holds what all of them share.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

from arat_ray.pixels import parse_fraction
from arat_ray.text import did_you_mean


class Written(NamedTuple):
    """What may be written for a key whose type cannot say it: `Annotated[Any, Written("list of values")]`."""

    words: str


_POINT = "; is it the end of a number? Decimals follow a point, as in 0.1"


def _is_numeric(annotation: Any) -> bool:
    """Whether a field takes a number, or nothing, and no text or boolean."""
    kinds = [get_args(kind)[0] if get_origin(kind) is Annotated else kind for kind in get_args(annotation)]
    return {*(kinds or [annotation])} - {type(None)} in ({int}, {float}, {int, float})


def merge(preset: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """`given` over `preset`, key by key in nested mappings; a mapping of another `name` replaces the preset's whole."""
    merged = dict(preset)
    for key, value in given.items():
        below = preset.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping) and _same_name(below, value):
            merged[key] = merge(below, value)
        else:
            merged[key] = value
    return merged


def _same_name(preset: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
    return bool(given.get("name", preset.get("name")) == preset.get("name"))


class Spec(BaseModel):
    """Immutable, refuses unknown keys, and says which key was probably meant."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys_and_booleans_for_numbers(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            known = [field.alias or name for name, field in cls.model_fields.items()]
            for key in data:
                if key not in known:
                    raise PydanticCustomError(
                        "unknown_key",
                        "unknown key {key}{hint}",
                        {"key": repr(key), "hint": _POINT if type(key) is int else did_you_mean(str(key), known)},
                    )
            for name, field in cls.model_fields.items():
                value = data.get(field.alias or name)
                is_no_number = isinstance(value, bool) or (
                    isinstance(value, str) and "_" in value
                )  # 1_000 is for Python
                if is_no_number and _is_numeric(field.annotation):
                    message = "{key} must be a number, not {value}"
                    shown = {"key": repr(name), "value": str(value).lower()}
                    raise PydanticCustomError("boolean", message, shown)
        return data


Pixels = Annotated[float, BeforeValidator(parse_fraction)]
"""A length in pixel units, where an image lies in [0, 1]; YAML may write it as a fraction, 8/255."""
