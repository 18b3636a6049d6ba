"""Ensembles of attacks by name, and what each consists of for a number of classes; a single attack is a plan as well.

Robust accuracy under an ensemble counts the images that no attack in it breaks. `autoattack` is the standard version of
Croce and Hein (https://arxiv.org/abs/2003.01690), the number that papers and RobustBench report.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from arat_ray.evaluation.attack_classes import VERSION, Step
from arat_ray.spec import Pixels, Spec
from arat_ray.training.attacks import Attack, Pgd, check_pixel_units, format_pixels
from arat_ray.version import __version__

Mode = Literal["exact", "fast"]
EnsembleName = Literal["autoattack", "autoattack-10-steps", "apgd", "square"]
ENSEMBLES: dict[EnsembleName, str] = {
    "autoattack": "APGD on the cross-entropy, targeted APGD, targeted FAB, Square, as the standard version has them",
    "autoattack-10-steps": "the same four with 10 steps in the place of 100, as torchattacks has them: it flatters",
    "apgd": "the first two of autoattack, which find nearly all that it finds at a third of its cost or less",
    "square": "the last of autoattack, 5,000 queries without a gradient: it finds what gradients are masked for",
}


class Plan(Spec):
    """The attacks of an ensemble for networks of one number of classes, in their order; or a training attack alone."""

    label: str
    """The name under which the accuracy is reported."""
    norm: Literal["linf", "l2"]
    epsilon: Pixels
    steps: tuple[Step | Pgd, ...]
    mode: Mode = "exact"

    def __str__(self) -> str:
        return f"{self.label} {self.norm} {format_pixels(self.epsilon)}{', fast mode' * (self.mode == 'fast')}"

    @property
    def version(self) -> str:
        """Whose code attacks, and how: exactly as its authors run it, or the same up to rounding."""
        if isinstance(self.steps[0], Pgd):
            return Pgd.version
        return f"{VERSION}, exact" if self.mode == "exact" else f"arat-ray {__version__}, fast"


class Ensemble(Spec):
    """A named ensemble and its radius, in pixel units.

    `mode` is exact, with the reference code's verdicts bit for bit, or fast, with its verdicts up to rounding.
    """

    name: EnsembleName
    norm: Literal["linf", "l2"]
    epsilon: Pixels = Field(gt=0)
    mode: Mode = "exact"

    @model_validator(mode="after")
    def _epsilon_is_in_pixel_units(self) -> Self:
        check_pixel_units("epsilon", self.epsilon, self.norm)
        return self

    def plan(self, num_classes: int) -> Plan:
        """What it consists of for networks with so many classes, at least two.

        The targeted attacks go for the 9 wrong classes with the highest logits, or for all where there are fewer.
        The targeted DLR loss needs four logits and the plain one three. For 3 classes APGD on the plain DLR loss takes
        the place of the targeted one and for 2 classes nothing does, APGD restarts five times, and the result has
        another name: it is not AutoAttack.
        """
        if num_classes < 2:
            raise ValueError(f"{num_classes} class: there is no wrong one to be led to")
        wrong, short = num_classes - 1, self.name == "autoattack-10-steps"
        steps, restarts = 10 if short else 100, 1 if num_classes > 3 else 5
        targets = wrong if short else min(9, wrong)
        first = [Step(name="apgd-ce", steps=steps, restarts=restarts)]
        if num_classes > 3:
            first.append(Step(name="apgd-t", steps=steps, targets=targets))
        elif num_classes == 3:
            first.append(Step(name="apgd-dlr", steps=steps, restarts=restarts))
        fab = Step(name="fab-t", steps=steps, targets=targets)
        square = Step(name="square", steps=5000, rescaled=short)
        if self.name == "square":
            return self._plan("square", square)
        missing = {2: "-without-dlr", 3: "-without-targeted-dlr"}.get(num_classes, "")
        if self.name == "apgd":
            return self._plan(f"apgd{missing}", *first)
        label = f"ensemble{missing}{'-10-steps' if short else ''}" if missing else self.name
        return self._plan(label, *first, fab, square)

    def _plan(self, label: str, *steps: Step) -> Plan:
        return Plan(label=label, norm=self.norm, epsilon=self.epsilon, steps=steps, mode=self.mode)


def plan_of(attack: Attack | Ensemble, num_classes: int) -> Plan:
    """What measures a network with so many classes."""
    if isinstance(attack, Ensemble):
        return attack.plan(num_classes)
    return Plan(label=attack.label, norm=attack.norm, epsilon=attack.epsilon, steps=(attack,))
