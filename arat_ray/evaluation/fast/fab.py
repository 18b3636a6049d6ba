"""Targeted FAB: walk along the decision boundary to an adversarial image near x.

Croce and Hein, https://arxiv.org/abs/1907.02044, algorithm 1 with one target class, as in AutoAttack: no random start.
An image that has one within epsilon has fallen and walks no further.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from arat_ray.evaluation.fast.unbroken import Unbroken, length

ALPHA_MAX, OVERSHOOT, BACKWARD = 0.1, 1.05, 0.9


def attack(
    search: nn.Module, unbroken: Unbroken, rows: Tensor, target: Tensor, *, steps: int, norm: str, epsilon: float
) -> None:
    """Walk on from the images `rows` [n] towards the classes `target` [n]."""
    x, y = unbroken.x[rows], unbroken.y[rows]
    z = x
    for _ in range(steps):
        difference, gradient = _difference(search, z, y, target)
        to_z = step_to_plane(z, gradient, difference, norm)
        to_x = step_to_plane(x, gradient, difference + (gradient * (x - z)).sum((1, 2, 3)), norm)
        far_z, far_x = (length(step, norm).clamp(min=1e-8) for step in (to_z, to_x))
        alpha = (far_z / (far_z + far_x)).clamp(0, ALPHA_MAX)
        z = ((z + OVERSHOOT * to_z) * (1 - alpha) + (x + OVERSHOOT * to_x) * alpha).clamp_(0, 1)
        with torch.no_grad():
            is_adversarial = search(z).max(1).indices != y
        if not is_adversarial.any():
            continue
        within = is_adversarial & (length(z - x, norm).flatten() <= epsilon)
        fallen = unbroken.take(rows, z, within)
        z = torch.where(is_adversarial.view(-1, 1, 1, 1), x + BACKWARD * (z - x), z)
        if fallen.any():
            rows, x, y, target, z = (each[~fallen] for each in (rows, x, y, target, z))
            if not len(rows):
                return


def _difference(search: nn.Module, z: Tensor, y: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Logit of the target class less that of the true one [n], and its gradient [n, C, H, W]."""
    z = z.detach().requires_grad_()
    with torch.enable_grad():
        logits = search(z)
        difference = (logits.gather(1, target[:, None]) - logits.gather(1, y[:, None])).squeeze(1)
    (gradient,) = torch.autograd.grad(difference.sum(), z)
    return difference.detach(), gradient


def step_to_plane(z: Tensor, normal: Tensor, height: Tensor, norm: str) -> Tensor:
    """The shortest step from z within [0, 1] to the plane <normal, .> = <normal, z> - height; [n, C, H, W].

    Each coordinate moves against the plane's side in proportion to a common lambda (by lambda in Linf, lambda times
    its normal in L2) until it meets the box. The height thus lost is concave and piecewise linear in lambda, so that
    Newton's method from 0 never overshoots and ends in finitely many steps. Where the box does not reach the plane, the
    step ends in the corner nearest to it.
    """
    down = torch.where(height >= 0, -1.0, 1.0).view(-1, 1, 1, 1) * normal  # the direction that lowers |height|
    size = normal.abs()
    room = torch.where(down > 0, 1 - z, z)
    if norm == "linf":
        gain, most = size, room
    else:
        gain, most = size.square(), torch.where(size > 1e-8, room / size, 0.0)
    wanted = height.abs().view(-1, 1, 1, 1)
    amount = torch.zeros_like(wanted)
    for _ in range(30):
        slope = torch.where(most > amount, gain, 0.0).sum((1, 2, 3), keepdim=True)
        missing = wanted - (gain * torch.minimum(most, amount)).sum((1, 2, 3), keepdim=True)
        short = (missing > 1e-5 * wanted) & (slope > 0)
        if not short.any():
            break
        amount = torch.where(short, amount + missing / slope.clamp(min=torch.finfo(slope.dtype).tiny), amount)
    reached = torch.minimum(most, amount)
    return down.sign() * reached if norm == "linf" else down * reached
