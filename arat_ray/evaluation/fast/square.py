"""Square Attack: random squares, kept where they lower the margin; no gradients.

Andriushchenko et al., https://arxiv.org/abs/1912.00049, algorithms 1 to 3, on the margin loss. The squares are the same
for all images of a batch, as in the reference code; in L2 their signs are not.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from arat_ray.evaluation.fast.unbroken import Unbroken, length
from arat_ray.training.accuracy_counts import margins

SHARE = 0.8
"""Of the pixels in the first squares."""
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Of 10,000 queries, those after which the share halves."""


def attack(
    search: nn.Module,
    unbroken: Unbroken,
    rows: Tensor,
    *,
    queries: int,
    rescaled: bool,
    norm: str,
    epsilon: float,
    draw: torch.Generator,
) -> None:
    """One run on the images `rows` [n]; `rescaled` shrinks the squares along `queries` instead of along 10,000."""
    x, y = unbroken.x[rows], unbroken.y[rows]
    attempt = _linf if norm == "linf" else _l2
    height, width = x.shape[2:]
    with torch.no_grad():
        best = (_stripes if norm == "linf" else _tiles)(x, epsilon, draw)
        margin = margins(search(best), y)
        fallen = unbroken.take(rows, best, margin <= 0)
        for query in range(queries):
            if fallen.any():
                rows, x, y, best, margin = (each[~fallen] for each in (rows, x, y, best, margin))
                if not len(rows):
                    return
            at = int(query / queries * 10000) if rescaled else query
            share = SHARE / 2 ** sum(at > each for each in HALVINGS)
            side = round(math.sqrt(share * height * width))
            trial = attempt(x, best, side, epsilon, draw)
            found = margins(search(trial), y)
            fallen = unbroken.take(rows, trial, found <= 0)
            better = found < margin
            margin = torch.where(better, found, margin)
            best = torch.where(better.view(-1, 1, 1, 1), trial, best)


def _signs(shape: tuple[int, ...], draw: torch.Generator, like: Tensor) -> Tensor:
    return (2 * torch.rand(shape, generator=draw) - 1).sign().to(like.device)


def _corner(x: Tensor, side: int, draw: torch.Generator) -> tuple[slice, slice]:
    """A window of this side somewhere in the image."""
    height, width = x.shape[2:]
    top = int((height - side) * torch.rand(1, generator=draw))
    left = int((width - side) * torch.rand(1, generator=draw))
    return slice(top, top + side), slice(left, left + side)


def _stripes(x: Tensor, epsilon: float, draw: torch.Generator) -> Tensor:
    """The start in Linf: vertical lines of one pixel."""
    n, channels, _, width = x.shape
    return (x + epsilon * _signs((n, channels, 1, width), draw, x)).clamp_(0, 1)


def _linf(x: Tensor, best: Tensor, side: int, epsilon: float, draw: torch.Generator) -> Tensor:
    """A square of one colour; each value in it goes to one end of what epsilon allows."""
    side = min(max(side, 1), *x.shape[2:])
    rows, columns = _corner(x, side, draw)
    colour = 2 * epsilon * _signs((x.shape[1], 1, 1), draw, x)
    inside, trial = x[:, :, rows, columns], best.clone()
    moved = best[:, :, rows, columns] + colour
    trial[:, :, rows, columns] = torch.minimum(torch.maximum(moved, inside - epsilon), inside + epsilon).clamp_(0, 1)
    return trial


def _tiles(x: Tensor, epsilon: float, draw: torch.Generator) -> Tensor:
    """The start in L2: a grid of bumps, five a side."""
    n, channels, height, width = x.shape
    side, start = torch.zeros_like(x), (height - height // 5 * 5) // 2
    edge = height // 5
    for top in range(start, start + edge * (height // edge), edge):
        for left in range(start, start + edge * (width // edge), edge):
            bump = _bump(edge, draw).to(x.device)
            side[:, :, top : top + edge, left : left + edge] += bump * _signs((n, channels, 1, 1), draw, x)
    return (x + _unit(side) * epsilon).clamp_(0, 1)


def _l2(x: Tensor, best: Tensor, side: int, epsilon: float, draw: torch.Generator) -> Tensor:
    """Move the budget of one square into another, whose perturbation gets a new bump."""
    n, channels, height, width = x.shape
    side = max(side, 3)
    side = min(side + (side % 2 == 0), height, width)
    to, source = _corner(x, side, draw), _corner(x, side, draw)
    delta = best - x
    here = (slice(None), slice(None), *to)
    there = (slice(None), slice(None), *source)
    either = torch.zeros_like(x[:1])
    either[here] = either[there] = 1
    whole = delta.square().sum((1, 2, 3), keepdim=True)
    freed = (delta * either).square().sum((2, 3), keepdim=True)
    bump = _bump(side, draw).to(x.device) * _signs((n, channels, 1, 1), draw, x)
    old = delta[here]
    bump = bump + old / (1e-12 + old.square().sum((2, 3), keepdim=True).sqrt())
    spare = (epsilon**2 - whole).clamp(min=0) / channels + freed
    bump = bump / (1e-12 + bump.square().sum((2, 3), keepdim=True).sqrt()) * spare.sqrt()
    delta[there] = 0
    delta[here] = bump
    return (x + _unit(delta) * epsilon).clamp_(0, 1)


def _bump(side: int, draw: torch.Generator) -> Tensor:
    """[side, side] of length 1: one half up, one half down, split along a random axis."""
    half = side // 2
    bump = torch.cat([_pyramid(half, side), -_pyramid(side - half, side)])
    bump /= bump.square().sum().sqrt()
    return bump.T if torch.rand(1, generator=draw) > 0.5 else bump


def _pyramid(height: int, width: int) -> Tensor:
    """[height, width] of length 1: rectangles around the middle, each one larger adding 1 / rank^2."""
    pyramid = torch.zeros(height, width)
    top, left = height // 2, width // 2
    for rank in range(max(height, width) // 2 + 1):
        reach = 2 * rank + 1
        rows = slice(max(top - rank, 0), min(top - rank + reach, height))
        pyramid[rows, max(left - rank, 0) : min(left - rank + reach, width)] += 1 / (rank + 1) ** 2
    return pyramid / pyramid.square().sum().sqrt()


def _unit(z: Tensor) -> Tensor:
    return z / (length(z, "l2") + 1e-12)
