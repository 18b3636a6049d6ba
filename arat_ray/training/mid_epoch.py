"""The middle of an epoch: what a checkpoint needs beyond an epoch's end, when a machine is about to be taken away.

At the end of an epoch all random streams are functions of the seed and the epoch. Within one they have advanced, so
their states are kept, with the sums measured so far. On the CPU a run that goes on from here with one worker equals an
uninterrupted one bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from arat_ray.training.methods import Method
from arat_ray.training.randomness import derive_seed

MEANS = 3
"""The first of the sums are of each worker's means, and grow with the number of workers; the others count images."""


class PreemptedError(RuntimeError):
    """The machine is about to be taken away; the state is saved."""


@dataclass(frozen=True)
class Partway:
    """Before step `step` (from 0) of epoch `epoch`."""

    epoch: int
    step: int
    totals: Tensor
    """Sums over the steps and the workers, of float64; those of means divided by the number of workers."""
    epoch_s: float
    attack_s: float
    augment: Tensor
    noise: Tensor
    torch: Tensor
    """States of the random streams; torch's own is that of the first worker."""
    method: dict[str, Any]
    """What the method settled when the epoch began."""


def capture(
    epoch: int,
    step: int,
    *,
    totals: Tensor,
    seconds: Callable[[], tuple[float, float]],
    augment: torch.Generator,
    noise: torch.Generator,
    method: Method,
    world_size: int,
    sum: Callable[[Tensor], Tensor],
) -> dict[str, Any]:
    """The fields of a `Partway`, to be stored. All workers must call it; `sum` adds up over them.

    `seconds()` of the epoch and of its attacks is called when a GPU has done its work.
    """
    totals = totals.clone()
    totals[:MEANS] /= world_size
    totals = sum(totals).cpu()
    epoch_s, attack_s = seconds()
    return vars(
        Partway(
            epoch=epoch,
            step=step,
            totals=totals,
            epoch_s=epoch_s,
            attack_s=attack_s,
            augment=augment.get_state(),
            noise=noise.get_state(),
            torch=torch.get_rng_state(),
            method=method.epoch_state(),
        )
    )


def resume(
    partway: Partway, *, augment: torch.Generator, noise: torch.Generator, method: Method, seed: int, rank: int
) -> None:
    """Put the random streams and the method where they were. Torch's own stream is another one on all workers but the
    first, and on a GPU: nothing but dropout draws from it."""
    torch.manual_seed(derive_seed(seed, "torch", partway.epoch, rank, partway.step))
    if rank == 0:
        torch.set_rng_state(partway.torch.cpu())
    augment.set_state(partway.augment.cpu())
    noise.set_state(partway.noise.cpu())
    method.resume_epoch(partway.method)


def totals_of(partway: Partway, like: Tensor, *, rank: int, world_size: int) -> Tensor:
    """The first worker goes on from all sums, the others from nothing."""
    totals = torch.zeros_like(like)
    if rank == 0:
        totals.copy_(partway.totals)
        totals[:MEANS] *= world_size
    return totals
