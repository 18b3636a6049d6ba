"""One step of training, on its own: what it asks of a device that computes behind the program's back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from arat_ray.training.context import Context
from arat_ray.training.methods import METHODS
from arat_ray.training.randomness import Noise
from arat_ray.training.step import TrainingStep
from arat_ray.training.timing import Stopwatch
from tests.training.methods.formulas import NEEDED
from tests.training.runs import make

CPU = torch.device("cpu")
WAITING = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::_unique2", "aten::equal"}
"""What needs values on the host: `.item()`, `bool()` and `float()` of a tensor, and results whose size depends on
values. On a GPU the program waits there until everything before has been computed."""


class Waits(TorchDispatchMode):
    """The operations within the block that wait, those of the backward pass included."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[str] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = function.name().split(".")[0]
        indices = [index for given in args if isinstance(given, list | tuple) for index in given]
        by_mask = any(isinstance(index, Tensor) and index.dtype == torch.bool for index in indices)
        if name in WAITING or (by_mask and name.startswith("aten::index")):
            self.seen.append(name)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("operation", [lambda x: x.sum().item(), lambda x: bool(x.any()), lambda x: x[x > 0]])
def test_what_waits_is_noticed(operation: Any) -> None:
    with Waits() as waits:
        operation(torch.ones(2))
    assert waits.seen


@pytest.mark.parametrize("awp", [None, {"gamma": 0.01}], ids=["plain", "awp"])
@pytest.mark.parametrize("name", METHODS)
def test_a_step_asks_for_no_value_of_a_tensor(name: str, awp: dict[str, float] | None) -> None:
    needed = dict(NEEDED.get(name, {}))
    start = {"start": "normal"} if name in ("trades", "lbgat") else {}
    attack = {"name": "pgd", "norm": "linf", "epsilon": 0.2, "step_size": 0.1, "steps": 1, **start}
    train = make(
        method={"name": name, **needed},
        attack=None if name == "standard" else attack,
        weight_perturbation=awp,
        gradient_clipping=1.0,
        epochs=3,
    )
    method = train.build()
    method.start_epoch(3, lambda model, images, fresh: 0.5)
    optimizer = train.optimizer.build([value for value in method.parameters() if value.requires_grad])
    step = TrainingStep(train, method, optimizer, Context(Path(), lambda row, replayed: False))
    x, y = torch.rand(4, *train.dataset.shape), torch.arange(4)
    noise, watch = Noise(torch.Generator(), 4), Stopwatch(CPU)
    step(x, y, noise, watch, perturbs_weights=awp is not None)  # an optimiser's first step makes its state
    with Waits() as waits:
        step(x, y, noise, watch, perturbs_weights=awp is not None)
    assert waits.seen == []
