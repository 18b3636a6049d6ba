"""The goal `dial_hypervolume`: how good the whole curve between the two branches is, as one number of a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from arat_ray.frontier.dominance import hypervolume
from arat_ray.results.rows import EpochRow
from arat_ray.training.accuracy_counts import Counts, Reduce
from arat_ray.training.dial import dialled, domain

REFERENCE = (0.0, 0.0)
"""Clean and robust accuracy that a setting must be above to add anything."""


def dial_row(
    model: nn.Module, dials: Sequence[float], deployed: Counts, *, count: Callable[[nn.Module], Counts], reduce: Reduce
) -> EpochRow:
    """The area above (0, 0) that a split network dominates at these settings and as `deployed`, which is setting 0.

    `count` measures a network, over all workers. A setting at which the network is not defined, for any worker, adds
    nothing.
    """
    defined = domain(model.state_dict())
    assert defined is not None
    device = next(model.parameters()).device
    missing = reduce(torch.tensor([int(t not in defined) for t in dials], device=device)).tolist()
    curve = {0.0: deployed} | {
        t: count(dialled(model, t)) for t, lacking in zip(dials, missing, strict=True) if not lacking
    }
    points = [(each.clean_accuracy, each.robust_accuracy) for each in curve.values()]
    return {
        "validation_dial_hypervolume": hypervolume(points, REFERENCE),
        "validation_dial_clean_accuracy": {f"{t:g}": curve[t].clean_accuracy for t in sorted(curve)},
        "validation_dial_robust_accuracy": {f"{t:g}": curve[t].robust_accuracy for t in sorted(curve)},
    }
