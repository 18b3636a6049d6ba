"""The attacks of training, validation and evaluation: one file each, its spec beside its call.

`arat_ray.attack_names.ATTACKS` is the menu; here it becomes the union that YAML is validated against.
"""

from __future__ import annotations

from collections.abc import Mapping
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Annotated, Any, Union

from pydantic import BeforeValidator, Field

from arat_ray.attack_names import ATTACKS, SHORTHANDS
from arat_ray.training.attacks.base import Adversary, Attack, Logits, Loss, check_pixel_units
from arat_ray.training.attacks.pgd import Pgd
from arat_ray.training.attacks.pgd_any import PgdAny

SPECS: dict[str, type[Attack]] = {name: resolve_name(home) for name, home in ATTACKS.items()}


def spec_of(word: str) -> type[Attack]:
    """The spec that a word of the command line asks for."""
    return SPECS[SHORTHANDS.get(word, word)]


def _is_pgd_unless_named(given: Any) -> Any:
    return {"name": "pgd", **given} if isinstance(given, Mapping) else given


if TYPE_CHECKING:
    AttackSpec = Attack  # nothing may ask which one it has
else:
    AttackSpec = Annotated[
        Union[tuple(SPECS.values())],  # noqa: UP007
        Field(discriminator="name"),
        BeforeValidator(_is_pgd_unless_named),
    ]
"""What `attack:` may be in YAML."""

__all__ = [
    "SPECS",
    "Adversary",
    "Attack",
    "AttackSpec",
    "Logits",
    "Loss",
    "Pgd",
    "PgdAny",
    "check_pixel_units",
    "spec_of",
]
