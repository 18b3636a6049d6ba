"""Signs that a robust accuracy is too good to be true, and what they mean.

Gradient masking in all its forms makes attacks fail without making a network robust: Athalye et al.,
https://arxiv.org/abs/1802.00420; the checks of AutoAttack's authors are among these (flags_doc.md in their repository).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from arat_ray.evaluation.attack_classes import APGD, SQUARE
from arat_ray.training.accuracy_counts import margins
from arat_ray.training.attacks import Attack, Loss
from arat_ray.training.randomness import Noise

UNSTABLE = 1e-4
"""Relative difference of the logits of two passes that rounding on a GPU does not explain."""
FAR = 0.10
"""For the robust networks in benchmarks/methods.md PGD-20 leaves 3.0 to 5.5 points more than APGD does."""
UNEXPECTED = 0.002
"""Share of the images that Square may win after the other attacks; the reference code's limit."""


class Signs(NamedTuple):
    """What was seen of each of N images; all False for one that is wrong without an attack, but for `unstable`."""

    unstable: Tensor  # bool [N]: two passes gave different logits
    no_gradient: Tensor  # bool [N]: the margin's gradient at x is zero
    saturated: Tensor  # bool [N]: only the cross-entropy's is
    pgd: Tensor  # bool [N]: PGD-20 broke it


def probe(model: nn.Module, x: Tensor, y: Tensor, *, pgd: tuple[Attack, torch.Generator] | None) -> Signs:
    """The signs of x [N, C, H, W] and y [N], and the success of a PGD with its random numbers, if one is given."""
    with torch.no_grad():
        logits, again = model(x), model(x)
    length = torch.linalg.vector_norm(logits, dim=1).clamp_min(1e-10)
    unstable = torch.linalg.vector_norm(logits - again, dim=1) > UNSTABLE * length
    right = logits.argmax(1) == y
    no_gradient, saturated, broken = (torch.zeros_like(right) for _ in range(3))
    if right.any():
        x, y = x[right], y[right]
        vanished = _is_zero(model, x, lambda scores: margins(scores, y).sum())
        no_gradient[right] = vanished
        saturated[right] = ~vanished & _is_zero(model, x, lambda scores: F.cross_entropy(scores, y, reduction="sum"))
        if pgd:
            attack, generator = pgd
            x_adv = attack(model, x, y, noise=Noise(generator, len(x)))
            with torch.no_grad():
                broken[right] = model(x_adv).argmax(1) != y
    return Signs(unstable, no_gradient, saturated, broken)


def _is_zero(model: nn.Module, x: Tensor, height: Loss) -> Tensor:
    """bool [N]: whose input gradient is zero everywhere."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        total = height(model(x))
    gradient = torch.autograd.grad(total, x, allow_unused=True)[0] if total.requires_grad else None
    return (torch.zeros_like(x) if gradient is None else gradient).flatten(1).abs().amax(1) == 0


def warnings(signs: Signs, clean_correct: Tensor, broken_by: Sequence[str | None], attacks: Sequence[str]) -> list[str]:
    """One sentence for each danger. `broken_by` [N] names which of `attacks`, in their order, broke an image first."""
    n, right = len(clean_correct), int(clean_correct.sum())
    unstable, no_gradient, saturated, by_pgd = (int(each.sum()) for each in signs)
    found = []
    if unstable:
        found.append(
            f"randomised: two passes over the same image differ on {unstable} of {n} images, and attacks that do not "
            "average over the randomness flatter such a network"
        )
    if no_gradient:
        found.append(
            f"zero gradients: none reaches the input on {no_gradient} of {right} rightly classified images, where all "
            "attacks but Square are blind"
        )
    if saturated:
        found.append(
            f"saturated: the cross-entropy is flat in float32 on {saturated} of {right} rightly classified images, "
            "where PGD, FGSM and apgd-ce are blind"
        )
    by = Counter(broken_by)
    by_apgd = sum(by[name] for name in APGD)
    if by_apgd - by_pgd > FAR * n:
        found.append(
            f"masked gradients: PGD-20 leaves {by_apgd - by_pgd} of {n} images more than APGD does; do not trust what "
            "it says of this network, nor the robust accuracy seen in training"
        )
    unbroken = torch.tensor([name is None for name in broken_by]) & clean_correct
    missed = int((signs.pgd & unbroken).sum())
    if _is_many(missed, n):
        found.append(f"too weak: PGD-20 broke {missed} of {n} images that {', '.join(attacks)} left unbroken")
    if len(attacks) > 1 and _is_many(by[SQUARE], n):
        found.append(
            f"masked gradients: Square broke {by['square']} of {n} images that attacks with gradients had left; more "
            "queries, or an attack made for this network, may break more"
        )
    return found


def _is_many(images: int, n: int) -> bool:
    """More than one, because one of few images is a large share."""
    return images > 1 and images > UNEXPECTED * n
