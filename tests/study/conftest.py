"""A small experiment on real digits, for tests of a study's bookkeeping."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from arat_ray.experiment.spec import Experiment

PGD = {"name": "pgd", "norm": "linf", "epsilon": 0.2, "step_size": 0.1, "steps": 1}
TRAIN = {
    "dataset": {"name": "digits"},
    "model": {"name": "tiny", "width": 2},
    "method": {"name": "arat", "invariance_weight": 1, "layers": ["bn3"]},
    "attack": PGD,
    "epochs": 2,
    "batch_size": 64,
    "seed": 0,
}
EXPERIMENT: dict[str, Any] = {
    "name": "small",
    "train": TRAIN,
    "validate": {"every": 1, "images": 1000, "attack": PGD},
    "search": {
        "method.invariance_weight": {"loguniform": [0.1, 10]},
        "method.layers": {"choice": {"last": ["bn3"], "two": ["bn2", "bn3"]}},
    },
    "sampler": {"name": "tpe", "seed": 0},
    "budget": {"trials": 4},
}


@pytest.fixture
def make() -> Callable[..., Experiment]:
    """The small experiment with some top-level keys changed."""
    return lambda **fields: Experiment.model_validate(EXPERIMENT | fields)
