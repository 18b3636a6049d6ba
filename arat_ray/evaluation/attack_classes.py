"""The single attacks that AutoAttack is made of, from the reference code: the only module that imports it.

pyautoattack is that code (https://github.com/fra31/auto-attack) as a package: same verdicts, same images, bit for bit.
Where `autoattack` itself is installed, from its repository, that one is taken. APGD and the ensemble: Croce and Hein,
https://arxiv.org/abs/2003.01690; FAB: https://arxiv.org/abs/1907.02044; Square: Andriushchenko et al.,
https://arxiv.org/abs/1912.00049.
"""

from __future__ import annotations

import logging
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from arat_ray.spec import Spec


def _installed() -> tuple[str, str]:
    """The package that has the attacks, and its version."""
    try:
        return "autoattack", version("autoattack")
    except PackageNotFoundError:
        return "pyautoattack", version("pyautoattack")


PACKAGE, NUMBER = _installed()
VERSION = f"{PACKAGE} {NUMBER}"
_apgd, _fab, _square = (import_module(f"{PACKAGE}.{name}") for name in ("autopgd_base", "fab_pt", "square"))
APGD, SQUARE = ("apgd-ce", "apgd-dlr", "apgd-t"), "square"
NORMS = {"linf": "Linf", "l2": "L2"}
LOG = logging.getLogger(__name__)


class Step(Spec):
    """One attack, with what the reference calls it. Each runs on the images that all earlier ones left unbroken."""

    name: Literal["apgd-ce", "apgd-dlr", "apgd-t", "fab-t", "square"]
    steps: int = Field(ge=1)
    """Iterations of each restart and target; queries of Square."""
    restarts: int = Field(1, ge=1)
    targets: int | None = Field(None, ge=1)
    """Wrong classes that apgd-t and fab-t go for, those with the highest logits first."""
    rescaled: bool = False
    """Square's squares shrink along `steps` queries instead of along 10,000."""

    @property
    def label(self) -> str:
        return self.name

    @property
    def passes(self) -> int:
        """Passes through the network, forward or backward, that a robust image takes at most."""
        each = {"square": 1, "fab-t": 3}.get(self.name, 2)
        return each * self.steps * self.restarts * (self.targets or 1)


def perturb(step: Step, model: nn.Module, x: Tensor, y: Tensor, *, norm: str, epsilon: float, seed: int) -> Tensor:
    """Images [N, C, H, W] that the attack made of x [N, C, H, W] in [0, 1]; those it could not break are x itself.

    The attack seeds torch's global generators; they are put back afterwards.
    """
    common: dict[str, Any] = {"norm": NORMS[norm], "eps": epsilon, "seed": seed, "device": x.device, "verbose": False}
    common["n_restarts"] = step.restarts
    attack: Any
    match step.name:
        case "apgd-ce" | "apgd-dlr":
            loss = step.name.removeprefix("apgd-")
            attack = _apgd.APGDAttack(model, n_iter=step.steps, loss=loss, logger=LOG, **common)
        case "apgd-t":
            attack = _apgd.APGDAttack_targeted(
                model, n_iter=step.steps, n_target_classes=step.targets, logger=LOG, **common
            )
        case "fab-t":
            attack = _fab.FABAttack_PT(model, n_iter=step.steps, targeted=True, n_target_classes=step.targets, **common)
        case "square":
            attack = _square.SquareAttack(model, n_queries=step.steps, resc_schedule=step.rescaled, **common)
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=list(gpus)), torch.no_grad():
        x_adv: Tensor = attack.perturb(x.clone(), y.clone())
    return x_adv
