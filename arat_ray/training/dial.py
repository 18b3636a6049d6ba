"""The dial: plain networks between the two branches of a split one, and beyond them, without any training.

At setting t every number of each norm layer (scale, shift, running mean and variance) is (1 - t) x adversarial +
t x clean; all other weights are shared as they are. t = 0 is the deployed network and t = 1 the clean branch, bit for
bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor, nn

from arat_ray.training.split_norm import SplitNorm, folded

ONE_BRANCH = "has no clean branch: its norm layers are not split, as method arat splits them"


@dataclass(frozen=True)
class DialRange:
    """The settings at which a network is defined: all above `low` and below `high`, and those from 0 to 1."""

    low: float
    high: float

    def __contains__(self, t: float) -> bool:
        return self.low < t < self.high or 0 <= t <= 1

    def __str__(self) -> str:
        start = f"above {self.low:.6g}" if self.low < 0 else "from 0"
        return f"{start} and " + (f"below {self.high:.6g}" if self.high > 1 else "up to 1")


def domain(weights: Mapping[str, Tensor]) -> DialRange | None:
    """Where the norm layers' numbers stay finite and their variances above zero, by the state of a split network.

    None where there is one branch only. A number that is equal in both, such as the variance 0 of a dead channel,
    bounds nothing.
    """
    low, high, is_split = -inf, inf, False
    for name, clean in weights.items():
        head, branch, tail = name.rpartition("clean.")
        adversarial = weights.get(f"{head}adversarial.{tail}") if branch else None
        if adversarial is None or not clean.is_floating_point():
            continue
        is_split = True
        largest = torch.finfo(clean.dtype).max
        start, slope = adversarial.double(), clean.double() - adversarial.double()
        start, slope = start[slope != 0], slope[slope != 0]
        if len(slope):
            floor = ((0.0 if tail == "running_var" else -largest) - start) / slope
            ceiling = (largest - start) / slope
            low = max(low, torch.minimum(floor, ceiling).max().item())
            high = min(high, torch.maximum(floor, ceiling).min().item())
    return DialRange(low, high) if is_split else None


def dialled(model: nn.Module, t: float) -> nn.Module:
    """A plain copy of a split network at setting t.

    Raises ValueError where it has one branch only, and where it is not defined at t.
    """
    defined = domain(model.state_dict())
    if defined is None:
        raise ValueError(f"dial {t:g}: the network {ONE_BRANCH}")
    if t not in defined:
        raise ValueError(f"dial {t:g}: the network is defined {defined}")
    return folded(model, lambda split: _between(split, t))


@torch.no_grad()
def _between(split: SplitNorm, t: float) -> nn.Module:
    """The norm layer at t; at 0 and 1 a branch as it is, because a sum would lose the sign of a zero."""
    if t in (0, 1):
        return split.clean if t else split.adversarial
    norm = split.adversarial
    for mine, clean in zip(norm.state_dict().values(), split.clean.state_dict().values(), strict=True):
        if mine.is_floating_point():  # the number of batches counts nothing in eval mode
            mine.copy_((1 - t) * mine.double() + t * clean.double())
    return norm
