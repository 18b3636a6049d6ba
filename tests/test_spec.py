"""What all specs share: strictness, fractions, paths."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field, ValidationError

from arat_ray.spec import Pixels, Spec
from arat_ray.text import did_you_mean
from arat_ray.training.data.locations import DataPath


class Thing(Spec):
    radius: Pixels = 0.1
    count: int = 1
    where: DataPath = Path("/")


def test_a_fraction_is_a_number() -> None:
    assert Thing.model_validate({"radius": "8/255"}).radius == 8 / 255
    assert Thing.model_validate({"radius": " 0.5 / 2 "}).radius == 0.25
    assert Thing.model_validate({"radius": 0.3}).radius == 0.3


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"radios": 1}, "unknown key 'radios'; did you mean 'radius'"),
        ({"xyz": 1}, "unknown key 'xyz'; known: count, radius, where"),
        ({"radius": "8/0"}, "8/0 divides by zero"),
        ({"count": True}, "'count' must be a number, not true"),
        ({"where": "$NO_SUCH_VARIABLE/x"}, "the variable [$]NO_SUCH_VARIABLE is not set"),
        ({"radius": float("nan")}, "finite number"),
    ],
)
def test_a_mistake_is_named_with_its_value(data: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Thing.model_validate(data)


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Thing().count = 2  # type: ignore[misc]


def test_a_path_is_absolute_with_its_variables_filled_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERE", "/some/where")
    assert Thing.model_validate({"where": "$HERE/data"}).where == Path("/some/where/data")
    assert Thing.model_validate({"where": "data"}).where == Path.cwd() / "data"


def test_the_nearest_word_is_suggested() -> None:
    assert did_you_mean("epoch", ["epochs", "images"]) == "; did you mean 'epochs'?"


class Numbers(Spec):
    whole: int = 1
    maybe: int | None = None
    share: Annotated[float, Field(ge=0)] | None = None
    either: int | float | None = None
    radius: Pixels | None = None
    flag: bool = False
    text: str | None = None


@pytest.mark.parametrize("key", ["whole", "maybe", "share", "either", "radius"])
@pytest.mark.parametrize("value", [True, False, "1_000"])
def test_no_number_is_a_boolean_or_has_underscores(key: str, value: object) -> None:
    with pytest.raises(ValidationError, match=f"'{key}' must be a number, not {str(value).lower()}"):
        Numbers.model_validate({key: value})
    assert Numbers.model_validate({"flag": True, "text": "a_b", key: 1})


def test_a_comma_in_a_number_is_told() -> None:
    with pytest.raises(ValidationError, match=r"unknown key 1; is it the end of a number\? Decimals follow a point"):
        Numbers.model_validate({"share": 0, 1: None})
