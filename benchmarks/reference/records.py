"""What a training step computes, recorded by name, and how far two sides are apart.

A record is one step: {quantity: {part: values}}. Parts are named as this project names its layers and parameters.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Batch = tuple[Tensor, Tensor]
"""x [N, 3, 32, 32] in [0, 1] and y [N]."""

Record = dict[str, dict[str, Tensor]]

TOLERANCE = 1e-8
"""Of a difference over the largest entry of its tensor, in float64; float32 would give some 1e-5 after five steps, and
an attack that steps elsewhere in a single pixel 0.01."""


@dataclass(frozen=True)
class Finding:
    """The largest difference of a quantity: in which step (from 1) and part."""

    quantity: str
    difference: float
    step: int
    part: str

    @property
    def exceeds(self) -> bool:
        return not self.difference <= TOLERANCE


def compare(ours: Sequence[Record], theirs: Sequence[Record]) -> list[Finding]:
    """The largest difference of each quantity over all steps and parts; infinite where a side lacks one."""
    assert len(ours) == len(theirs), "as many steps on both sides"
    found = list[Finding]()
    for quantity in dict.fromkeys(name for record in (*ours, *theirs) for name in record):
        largest = Finding(quantity, -1.0, 0, "")
        for step, (mine, other) in enumerate(zip(ours, theirs, strict=True), 1):
            a, b = mine.get(quantity, {}), other.get(quantity, {})
            for part in dict.fromkeys((*a, *b)):
                apart = difference(a[part], b[part]) if part in a and part in b else math.inf
                if apart > largest.difference:
                    largest = Finding(quantity, apart, step, part)
        found.append(largest)
    return found


def difference(a: Tensor, b: Tensor) -> float:
    """The largest |a - b| over the largest |b|; infinite where shapes differ or a value is not finite."""
    if a.shape != b.shape or not (a.isfinite().all() and b.isfinite().all()):
        return math.inf
    scale = b.abs().max().item()
    return (a - b).abs().max().item() / (scale or 1.0)


def state(parts: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> Record:
    """What a step leaves behind: gradients, momentum, weights, norm statistics.

    `parts` are all parameters and buffers, live, by this project's names.
    """
    record: Record = defaultdict(dict)
    for name, value in parts.items():
        where = "predictors" if name.startswith("predictors.") else "network"
        if isinstance(value, nn.Parameter):
            gradient = torch.zeros_like(value) if value.grad is None else value.grad
            record[f"gradients, {where}"][name] = gradient.detach().clone()
            record[f"weights, {where}"][name] = value.detach().clone()
            record["momentum"][name] = optimizer.state[value]["momentum_buffer"].clone()
        else:
            branches = [branch for branch in ("clean", "adversarial") if f".{branch}." in name]
            of = f"{branches[0]} branch" if branches else where
            record[f"norm statistics, {of}"][name] = value.double().clone()
    return dict(record)
