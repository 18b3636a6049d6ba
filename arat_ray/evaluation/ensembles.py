"""Ensembles of attacks by name, and what each consists of for a number of classes; a single attack is a plan as well.

Robust accuracy under an ensemble counts the images that no attack in it breaks. `autoattack` is the standard version of
Croce and Hein (https://arxiv.org/abs/2003.01690), the number that papers and RobustBench report.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from arat_ray.attack_names import EnsembleName
from arat_ray.evaluation import fast
from arat_ray.evaluation.attack_classes import VERSION, Step, perturb
from arat_ray.pixels import Norm, format_pixels
from arat_ray.spec import Pixels, Spec
from arat_ray.training.attacks import Adversary, Attack, AttackSpec, check_pixel_units
from arat_ray.training.randomness import Noise
from arat_ray.version import __version__

Mode = Literal["exact", "fast"]
VERSIONS: dict[Mode, str] = {"exact": f"{VERSION}, exact", "fast": f"arat-ray {__version__}, fast"}
"""Whose code attacks, and how: exactly as its authors run it, or the same up to rounding."""


@dataclass(frozen=True)
class BoundStep:
    """A step of AutoAttack with its ball, its seed and, in fast mode, the network that it searches on.

    It draws its random numbers from the seed, as the reference code does.
    """

    step: Step
    norm: Norm
    epsilon: float
    mode: Mode
    seed: int
    search: nn.Module

    @property
    def label(self) -> str:
        return self.step.label

    @property
    def version(self) -> str:
        return VERSIONS[self.mode]

    @property
    def passes(self) -> int:
        return self.step.passes

    def __call__(self, logits: nn.Module, x: Tensor, y: Tensor, *, noise: Noise | None) -> Tensor:
        del noise
        if self.mode == "exact":
            return perturb(self.step, logits, x, y, norm=self.norm, epsilon=self.epsilon, seed=self.seed)
        return fast.perturb(self.step, self.search, logits, x, y, norm=self.norm, epsilon=self.epsilon, seed=self.seed)


class AttackPlan(Spec):
    """The attacks of an ensemble for networks of one number of classes, in their order; or a training attack alone."""

    label: str
    """The name under which the accuracy is reported."""
    norm: Norm
    epsilon: Pixels
    steps: tuple[Step | AttackSpec, ...]
    mode: Mode = "exact"

    def __str__(self) -> str:
        return f"{self.label} {self.norm} {format_pixels(self.epsilon)}{', fast mode' * (self.mode == 'fast')}"

    @property
    def is_ensemble(self) -> bool:
        """Whether AutoAttack's attacks measure, and not an attack of training."""
        return isinstance(self.steps[0], Step)

    @property
    def version(self) -> str:
        """Of the code that attacks."""
        first = self.steps[0]
        return VERSIONS[self.mode] if isinstance(first, Step) else first.version

    def bound(self, step: Step | Attack, *, seed: int, search: nn.Module) -> Adversary:
        """One of the steps as it is called; `search` is the folded network, on which fast mode searches."""
        if not isinstance(step, Step):
            return step
        return BoundStep(step, self.norm, self.epsilon, self.mode, seed, search)


class Ensemble(Spec):
    """A named ensemble and its radius, in pixel units.

    `mode` is exact, with the reference code's verdicts bit for bit, or fast, with its verdicts up to rounding.
    """

    name: EnsembleName
    norm: Norm
    epsilon: Pixels = Field(gt=0)
    mode: Mode = "exact"

    @model_validator(mode="after")
    def _epsilon_is_in_pixel_units(self) -> Self:
        check_pixel_units("epsilon", self.epsilon, self.norm)
        return self

    def plan(self, num_classes: int) -> AttackPlan:
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

    def _plan(self, label: str, *steps: Step) -> AttackPlan:
        return AttackPlan(label=label, norm=self.norm, epsilon=self.epsilon, steps=steps, mode=self.mode)


def plan_of(attack: Attack | Ensemble, num_classes: int) -> AttackPlan:
    """What measures a network with so many classes."""
    if isinstance(attack, Ensemble):
        return attack.plan(num_classes)
    return AttackPlan(label=attack.label, norm=attack.norm, epsilon=attack.epsilon, steps=(attack,))
