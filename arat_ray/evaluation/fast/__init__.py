"""AutoAttack's attacks, written for speed: the same iterates on the same random numbers, up to rounding.

`fold` makes a network that computes the same with fewer passes over memory; the attacks search on it. An image has
fallen when the network itself, as it is, confirms it, and costs nothing from then on. bf16 is left out on purpose: what
a search in bf16 leaves unbroken would have to be attacked again in fp32, and those images take most of the time (a
robust image costs 7,850 forward passes, one that falls to APGD about 200).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from arat_ray.evaluation.attack_classes import Step
from arat_ray.evaluation.fast import apgd, fab, square
from arat_ray.evaluation.fast.fold import fold, lean
from arat_ray.evaluation.fast.unbroken import Unbroken

__all__ = ["fold", "lean", "perturb"]


def perturb(
    step: Step, search: nn.Module, model: nn.Module, x: Tensor, y: Tensor, *, norm: str, epsilon: float, seed: int
) -> Tensor:
    """Images [N, C, H, W] that the attack made of x [N, C, H, W], all rightly classified; the unbroken are x itself.

    `search` is `fold(model, x)`. The random numbers are those of the reference code for this seed, as long as the same
    images fall.
    """
    draw = torch.Generator().manual_seed(seed)
    unbroken = Unbroken(model, x.contiguous(memory_format=torch.channels_last), y)
    if step.name == "square":
        for _ in range(step.restarts):
            if len(rows := unbroken.rows()):
                square.attack(
                    search,
                    unbroken,
                    rows,
                    queries=step.steps,
                    rescaled=step.rescaled,
                    norm=norm,
                    epsilon=epsilon,
                    draw=draw,
                )
        return unbroken.images()
    for rank in range(2, 2 + (step.targets or 1)):  # 1 is the true class
        for _ in range(step.restarts):
            rows = unbroken.rows()
            if not len(rows):
                break
            with torch.no_grad():
                target = search(unbroken.x[rows]).sort(dim=1).indices[:, -rank]
            if step.name == "fab-t":
                fab.attack(search, unbroken, rows, target, steps=step.steps, norm=norm, epsilon=epsilon)
            else:
                loss = {"apgd-ce": apgd.cross_entropy, "apgd-dlr": apgd.dlr, "apgd-t": apgd.targeted_dlr}[step.name]
                apgd.attack(
                    search, unbroken, rows, target, loss, steps=step.steps, norm=norm, epsilon=epsilon, draw=draw
                )
    return unbroken.images()
