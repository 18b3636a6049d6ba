"""APGD: projected gradient ascent with momentum, whose step size halves where it stops to help.

Croce and Hein, https://arxiv.org/abs/2003.01690, algorithm 1. x, x_adv [n, C, H, W] in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from arat_ray.evaluation.fast.unbroken import Unbroken, length

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""logits [n, K], y [n], target class [n] -> what to climb [n]."""

MOMENTUM = 0.75
OSCILLATING = 0.75
"""The step size halves where the loss grew in at most this share of the steps since the last check."""
WORTHWHILE = 1 / 8
"""Fallen images are left out of the batch once they are this share of it: leaving one out copies the others."""


def cross_entropy(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """[n]."""
    return F.cross_entropy(logits, y, reduction="none")


def dlr(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """[n]: the difference of logits ratio, which no rescaling of the logits changes; three classes at least."""
    ordered = logits.sort(dim=1).values
    true = logits.gather(1, y[:, None]).squeeze(1)
    other = torch.where(logits.argmax(1) == y, ordered[:, -2], ordered[:, -1])
    return -(true - other) / (ordered[:, -1] - ordered[:, -3] + 1e-12)


def targeted_dlr(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """[n]: the same towards one class; four classes at least."""
    ordered = logits.sort(dim=1).values
    true, wanted = logits.gather(1, y[:, None]).squeeze(1), logits.gather(1, target[:, None]).squeeze(1)
    return -(true - wanted) / (ordered[:, -1] - 0.5 * (ordered[:, -3] + ordered[:, -4]) + 1e-12)


@dataclass
class _Climb:
    """The state of each image."""

    rows: Tensor
    x: Tensor
    y: Tensor
    target: Tensor
    x_adv: Tensor
    x_before: Tensor
    gradient: Tensor
    x_best: Tensor
    gradient_best: Tensor
    loss: Tensor
    loss_best: Tensor
    loss_at_check: Tensor
    was_halved: Tensor
    rises: Tensor
    step_size: Tensor  # [n, 1, 1, 1]

    def keep(self, mask: Tensor) -> None:
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name)[mask])


def attack(
    search: nn.Module,
    unbroken: Unbroken,
    rows: Tensor,
    target: Tensor,
    loss: Loss,
    *,
    steps: int,
    norm: str,
    epsilon: float,
    draw: torch.Generator,
) -> None:
    """One run from a random start on the images `rows` [n], towards the classes `target` [n] where the loss has one."""
    x, y = unbroken.x[rows], unbroken.y[rows]
    x_adv = _start(x, norm, epsilon, draw)
    logits, height, gradient = _climbing(search, x_adv, y, target, loss)
    ones = torch.ones_like(height)
    now = _Climb(
        rows=rows,
        x=x,
        y=y,
        target=target,
        x_adv=x_adv,
        x_before=x_adv,
        gradient=gradient,
        x_best=x_adv,
        gradient_best=gradient,
        loss=0 * ones,  # of a step before the first, in the reference code
        loss_best=height,
        loss_at_check=height,
        was_halved=ones.bool(),
        rises=0 * ones,
        step_size=2 * epsilon * ones.view(-1, 1, 1, 1),
    )
    fallen = unbroken.take(rows, x_adv, logits.max(1).indices != y)
    until_check = max(int(0.22 * steps), 1)
    interval, since = until_check, 0
    for step in range(steps):
        if fallen.sum() >= max(WORTHWHILE * len(fallen), 1):
            now.keep(~fallen)
            if not len(now.rows):
                return
        now.x_before, now.x_adv = now.x_adv, _step(now, norm, epsilon, momentum=step > 0)
        if step == steps - 1:
            with torch.no_grad():
                wrong = search(now.x_adv).max(1).indices != now.y
            unbroken.take(now.rows, now.x_adv, wrong)
            return
        logits, height, now.gradient = _climbing(search, now.x_adv, now.y, now.target, loss)
        fallen = unbroken.take(now.rows, now.x_adv, logits.max(1).indices != now.y)
        now.rises += height > now.loss
        now.loss = height
        better = height > now.loss_best
        wide = better.view(-1, 1, 1, 1)
        now.x_best = torch.where(wide, now.x_adv, now.x_best)
        now.gradient_best = torch.where(wide, now.gradient, now.gradient_best)
        now.loss_best = torch.where(better, height, now.loss_best)
        since += 1
        if since == interval:
            _check(now, interval)
            interval, since = max(interval - max(int(0.03 * steps), 1), max(int(0.06 * steps), 1)), 0


def _check(now: _Climb, interval: int) -> None:
    """Halve the step size, and go back to the best point, where the loss oscillates or has stopped to grow."""
    halve = (now.rises <= OSCILLATING * interval) | (~now.was_halved & (now.loss_at_check >= now.loss_best))
    now.was_halved, now.loss_at_check = halve, now.loss_best
    wide = halve.view(-1, 1, 1, 1)
    now.step_size = torch.where(wide, now.step_size / 2, now.step_size)
    now.x_adv = torch.where(wide, now.x_best, now.x_adv)
    now.gradient = torch.where(wide, now.gradient_best, now.gradient)
    now.rises = torch.zeros_like(now.rises)


def _climbing(search: nn.Module, x_adv: Tensor, y: Tensor, target: Tensor, loss: Loss) -> tuple[Tensor, Tensor, Tensor]:
    """Logits [n, K], losses [n] and their gradients [n, C, H, W]."""
    x_adv = x_adv.detach().requires_grad_()
    with torch.enable_grad():
        logits = search(x_adv)
        height = loss(logits, y, target)
    (gradient,) = torch.autograd.grad(height.sum(), x_adv)
    return logits.detach(), height.detach(), gradient


def _start(x: Tensor, norm: str, epsilon: float, draw: torch.Generator) -> Tensor:
    """Uniform noise, or normal in L2, rescaled to reach the boundary of the ball; drawn on the CPU, image by image."""
    is_linf = norm == "linf"
    noise = 2 * torch.rand(x.shape, generator=draw) - 1 if is_linf else torch.randn(x.shape, generator=draw)
    noise = noise.to(x.device).contiguous(memory_format=torch.channels_last)
    return (x + epsilon * _normalized(noise, norm)).clamp_(0, 1)


def _step(now: _Climb, norm: str, epsilon: float, *, momentum: bool) -> Tensor:
    ahead = MOMENTUM if momentum else 1.0
    direction = now.gradient.sign() if norm == "linf" else _normalized(now.gradient, norm)
    z = _project(now.x_adv + now.step_size * direction, now.x, norm, epsilon)
    z = now.x_adv + (z - now.x_adv) * ahead + (now.x_adv - now.x_before) * (1 - ahead)
    return _project(z, now.x, norm, epsilon)


def _project(z: Tensor, x: Tensor, norm: str, epsilon: float) -> Tensor:
    if norm == "linf":
        return torch.minimum(torch.maximum(z, x - epsilon), x + epsilon).clamp_(0, 1)
    delta = z - x
    return (x + _normalized(delta, norm) * length(delta, norm).clamp(max=epsilon)).clamp_(0, 1)


def _normalized(z: Tensor, norm: str) -> Tensor:
    return z / (length(z, norm) + 1e-12)
