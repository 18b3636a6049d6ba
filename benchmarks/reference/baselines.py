"""TRADES, MART and LBGAT by their authors' loss functions, each of which also attacks; run unchanged on the CPU.

Networks and optimiser are copies of this project's, because the functions take any. `.cuda()` stays on the CPU.
"""

from __future__ import annotations

import copy
import importlib.util
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from arat_ray.training.attacks import Pgd
from arat_ray.training.methods import LbgatSpec, MartSpec, Method, TradesSpec
from arat_ray.training.optimizers import Sgd
from arat_ray.training.run import Train
from reference.records import Batch, Record, state

Loss = Callable[..., Tensor]


@dataclass(frozen=True)
class Baseline:
    """A method, where its authors' code is, and the weights beta to compare it with."""

    repository: str
    betas: tuple[float, ...]

    def load(self, name: str, checkout: Path) -> Loss:
        """Their `<name>_loss`. ValueError where `checkout` is not of their repository."""
        file = checkout / f"{name}.py"
        found = importlib.util.spec_from_file_location(f"authors_{name}", file)
        if not file.is_file() or found is None or found.loader is None:
            raise ValueError(
                f"--{name} {checkout}: no {name}.py there; give a checkout: "
                f"git clone https://github.com/{self.repository}"
            )
        module = importlib.util.module_from_spec(found)
        found.loader.exec_module(module)
        loss: Loss = getattr(module, f"{name}_loss")
        return loss


BASELINES = {
    "trades": Baseline("yaodongyu/TRADES", (6.0,)),
    "mart": Baseline("YisenWang/MART", (5.0,)),
    "lbgat": Baseline("dvlab-research/LBGAT", (0.0, 6.0)),
}


def run(loss: Loss, train: Train, method: Method, batches: Sequence[Batch], *, noise_seed: int) -> list[Record]:
    """As `ours.run`, with what such a function lets be seen: a step on each batch from the weights of `method`."""
    optimizer, attack = train.optimizer, train.attack
    assert isinstance(optimizer, Sgd)
    assert isinstance(attack, Pgd)
    assert isinstance(train.method, TradesSpec | MartSpec | LbgatSpec)
    theirs: Method = copy.deepcopy(method).to(memory_format=torch.contiguous_format)
    steps = torch.optim.SGD(
        theirs.parameters(), optimizer.learning_rate, momentum=optimizer.momentum, weight_decay=optimizer.weight_decay
    )
    record: Record = {}
    records = list[Record]()
    with _on_the_cpu_in_float64():
        torch.manual_seed(noise_seed)
        for x, y in batches:
            record.clear()
            with _heard(theirs.model, x, record):
                total = loss(
                    *theirs.networks,
                    x_natural=x,
                    y=y,
                    optimizer=steps,
                    step_size=attack.step_size,
                    epsilon=attack.epsilon,
                    perturb_steps=attack.steps,
                    beta=train.method.beta,
                )
            total.backward()
            steps.step()
            record["loss, total"] = {"": total.detach()}
            records.append({**record, **state(theirs.state_dict(keep_vars=True), steps)})
    return records


@contextmanager
def _heard(model: nn.Module, x: Tensor, record: Record) -> Iterator[None]:
    """Put what the network gets and gives in train mode, which is when the loss is computed, into `record`."""

    def hook(network: nn.Module, inputs: tuple[Tensor], logits: Tensor) -> None:
        if network.training:
            of_x = inputs[0] is x
            record.setdefault("logits", {})["clean" if of_x else "adversarial"] = logits.detach()
            if not of_x:
                record["adversarial images"] = {"": inputs[0].detach()}

    handle = model.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _on_the_cpu_in_float64() -> Iterator[None]:
    before: Any = torch.get_default_dtype()
    with ExitStack() as during:
        during.callback(torch.set_default_dtype, before)
        torch.set_default_dtype(torch.float64)  # of the noise that they start from
        during.enter_context(patch.object(Tensor, "cuda", lambda tensor: tensor))
        during.enter_context(warnings.catch_warnings(action="ignore"))
        yield
