"""Attacks by name: the words after `--attack`, whose they are, and the labels that tables know an attack by.

Loads no attack, so that `--help` and `pareto` know them all without torch.
"""

from __future__ import annotations

import re
from typing import Literal

ATTACKS = {"pgd": "arat_ray.training.attacks.pgd:Pgd", "pgd-any": "arat_ray.training.attacks.pgd_any:PgdAny"}
"""The menu of the attacks that train, validate and evaluate: `name:` in YAML, and where its spec stands."""
SHORTHANDS = {"fgsm": "pgd"}
"""Words of the command line for an attack of the menu with fixed values."""

EnsembleName = Literal["autoattack", "apgd", "square", "autoattack-10-steps"]
ENSEMBLES: dict[EnsembleName, str] = {
    "autoattack": "APGD on the cross-entropy, targeted APGD, targeted FAB, Square, as the standard version has them",
    "apgd": "the first two of autoattack, which find nearly all that it finds at a third of its cost or less",
    "square": "the last of autoattack, 5,000 queries without a gradient: it finds what gradients are masked for",
    "autoattack-10-steps": "the same four with 10 steps in the place of 100, as torchattacks has them: it flatters",
}

_COUNTED = re.compile(r"(.+)-([1-9]\d*)")


def attack_words() -> tuple[str, ...]:
    """All that `--attack` takes."""
    return (*ENSEMBLES, *ATTACKS, *SHORTHANDS)


def counted(name: str, steps: int) -> str:
    """The label of an attack whose strength is its number of steps: pgd-20."""
    return f"{name}-{steps}"


def name_and_steps(label: str) -> tuple[str, int | None]:
    """What `counted` was told, ("pgd", 20) of pgd-20; of a label without a number itself and None."""
    match = _COUNTED.fullmatch(label)
    return (match[1], int(match[2])) if match and match[1] in ATTACKS else (label, None)
