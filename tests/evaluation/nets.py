"""Networks and plans small enough to be attacked in a test."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from arat_ray.evaluation.ensembles import Ensemble, EnsembleName, Plan
from arat_ray.training import data
from arat_ray.training.data import Digits, ImageSet


def digits(images: int, *, classes: int = 10) -> ImageSet:
    """The first test digits of the first so many classes."""
    whole = data.read(Digits(), "test")
    rows = (whole.labels < classes).nonzero().squeeze(1)[:images]
    return whole._replace(images=whole.images[rows], labels=whole.labels[rows])


def nearest_mean(*, classes: int = 10) -> nn.Module:
    """The network whose class is the one of the nearest mean digit: linear, without training about 90 % right."""
    whole = data.read(Digits(), "train")
    x = whole.images.flatten(1) / 255
    means = torch.stack([x[whole.labels == label].mean(0) for label in range(classes)])
    linear = nn.Linear(64, classes)
    linear.load_state_dict({"weight": means, "bias": -(means**2).sum(1) / 2})
    return nn.Sequential(nn.Flatten(), linear)


def plan(
    name: EnsembleName, epsilon: float, *, norm: str = "linf", classes: int = 10, steps: int | None = None
) -> Plan:
    """The plan of an ensemble; with `steps`, shortened to so many (Square to five times as many), and two targets."""
    full = Ensemble.model_validate({"name": name, "norm": norm, "epsilon": epsilon}).plan(classes)
    if steps is None:
        return full
    short = [
        each.model_copy(
            update={
                "steps": 5 * steps if each.name == "square" else steps,
                "targets": each.targets and min(2, each.targets),
            }
        )
        for each in full.steps
    ]
    return full.model_copy(update={"steps": tuple(short)})


def with_queries(plan: Plan, queries: int) -> Plan:
    """The plan with so many queries of Square, whose loop takes longest where few images are attacked."""
    steps = [step.model_copy(update={"steps": queries}) if step.name == "square" else step for step in plan.steps]
    return plan.model_copy(update={"steps": tuple(steps)})


def unit(data: ImageSet) -> Tensor:
    return data.images.float() / 255
