"""Networks and plans small enough to be attacked in a test."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from arat_ray.attack_names import EnsembleName
from arat_ray.evaluation.attack_classes import Step
from arat_ray.evaluation.ensembles import AttackPlan, Ensemble
from arat_ray.training import checkpoint
from arat_ray.training.context import Context
from arat_ray.training.data import splits
from arat_ray.training.data.splits import Digits, ImageSet
from arat_ray.training.loop import fit
from arat_ray.training.run import Train, Validate


def digits(images: int, *, classes: int = 10) -> ImageSet:
    """The first test digits of the first so many classes."""
    whole = splits.read(Digits(), "test")
    rows = (whole.labels < classes).nonzero().squeeze(1)[:images]
    return whole._replace(images=whole.images[rows], labels=whole.labels[rows])


def nearest_mean(*, classes: int = 10) -> nn.Module:
    """The network whose class is the one of the nearest mean digit: linear, without training about 90 % right."""
    whole = splits.read(Digits(), "train")
    x = whole.images.flatten(1) / 255
    means = torch.stack([x[whole.labels == label].mean(0) for label in range(classes)])
    linear = nn.Linear(64, classes)
    linear.load_state_dict({"weight": means, "bias": -(means**2).sum(1) / 2})
    return nn.Sequential(nn.Flatten(), linear)


def trained_in(folder: Path) -> nn.Module:
    """A convolutional network trained for seconds by the real loop against PGD."""
    attack = {"name": "pgd", "norm": "linf", "epsilon": 0.2, "step_size": 0.1, "steps": 2}
    train = {
        "dataset": {"name": "digits"},
        "model": {"name": "tiny", "width": 4},
        "method": {"name": "pgd_at"},
        "attack": attack,
        "epochs": 8,
        "batch_size": 64,
        "seed": 0,
    }
    validate = {"every": 8, "images": 300, "attack": attack}
    fit(Train.model_validate(train), Validate.model_validate(validate), Context(folder, lambda row, replayed: False))
    return checkpoint.network(checkpoint.load(folder / checkpoint.LAST))


def plan(
    name: EnsembleName, epsilon: float, *, norm: str = "linf", classes: int = 10, steps: int | None = None
) -> AttackPlan:
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
        for each in steps_of(full)
    ]
    return full.model_copy(update={"steps": tuple(short)})


def steps_of(plan: AttackPlan) -> list[Step]:
    return [step for step in plan.steps if isinstance(step, Step)]


def with_queries(plan: AttackPlan, queries: int) -> AttackPlan:
    """The plan with so many queries of Square, whose loop takes longest where few images are attacked."""
    steps = [step.model_copy(update={"steps": queries}) if step.name == "square" else step for step in steps_of(plan)]
    return plan.model_copy(update={"steps": tuple(steps)})


def unit(data: ImageSet) -> Tensor:
    return data.images.float() / 255
