"""This project's side: its own training step, listened to from outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from arat_ray.training import split_norm
from arat_ray.training.averaging import Average, Swa
from arat_ray.training.context import Context
from arat_ray.training.methods import Arat, Losses, Method
from arat_ray.training.randomness import Noise
from arat_ray.training.run import Train
from arat_ray.training.step import TrainingStep
from arat_ray.training.timing import Stopwatch
from reference.records import Batch, Record, state


def spec(preset: str, *, batch_size: int, method: Mapping[str, Any], model: Mapping[str, Any]) -> Train:
    """A published run with another network's width, another method's switches or both."""
    given = {"preset": preset, "dataset": {"name": "cifar10"}, "batch_size": batch_size, "seed": 0}
    return Train.model_validate({**given, "model": model, "method": method})


def built(train: Train, dtype: torch.dtype) -> Method:
    """The method of a run with weights and statistics of every norm layer, so that no two branches are alike."""
    method = train.build()
    draws = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for norm in filter(split_norm.is_norm, method.modules()):
            for name, value in [*norm.named_parameters(), *norm.named_buffers()]:
                if name in ("weight", "running_var"):
                    value.uniform_(0.5, 1.5, generator=draws)
                elif value.is_floating_point():
                    value.normal_(0, 0.1, generator=draws)
    layout = torch.channels_last if train.channels_last else torch.contiguous_format
    placed: Method = method.to(dtype=dtype, memory_format=layout)  # type: ignore[call-overload]
    return placed.train()


def half_right(method: Method, batches: Sequence[Batch]) -> list[Batch]:
    """The same images, every other one labelled as the clean branch has it, for a balance that is neither 0 nor 1."""
    labelled = list[Batch]()
    method.eval()
    for x, y in batches:
        with torch.no_grad(), split_norm.branch(method.model, "clean"):
            answer = method.model(x).argmax(1)
        labelled.append((x, torch.where(torch.arange(len(y)) % 2 == 0, answer, y)))
    method.train()
    return labelled


def accuracy(model: nn.Module, batches: Sequence[Batch]) -> float:
    """In eval mode."""
    model.eval()
    with torch.no_grad():
        right = sum(int((model(x).argmax(1) == y).sum()) for x, y in batches)
    model.train()
    return right / sum(len(y) for _, y in batches)


def run(train: Train, method: Method, batches: Sequence[Batch], *, noise_seed: int) -> list[Record]:
    """A step on each batch; what each computed and left behind. Before the first, the balance of the epoch."""
    record: Record = {}
    records = list[Record]()
    _listen(method, record)
    optimizer = train.optimizer.build(list(method.parameters()))
    step = TrainingStep(train, method, optimizer, Context(Path(), lambda row, replayed: False))
    average = Average(Swa(start=0, every=1), method, steps_per_epoch=len(batches), epochs=1)
    noise = Noise(torch.Generator().manual_seed(noise_seed), train.batch_size)
    measured = list[float]()

    def sample_accuracy(model: nn.Module, images: int, fresh: bool) -> float:
        measured.append(accuracy(model, batches))
        return measured[-1]

    method.start_epoch(1, sample_accuracy)
    for number, (x, y) in enumerate(batches, 1):
        record.clear()
        if measured:
            record["accuracy for the balance"] = {"": torch.tensor(measured[0], dtype=torch.float64)}
        laid = x.contiguous(memory_format=torch.channels_last) if train.channels_last else x
        step(laid, y, noise, Stopwatch(torch.device("cpu")), perturbs_weights=False)
        average.update(method, step=number)
        parts = method.state_dict(keep_vars=True)
        averaged = {name: value.clone() for name, value in average.method.model.named_parameters(prefix="model")}
        records.append({**record, **state(parts, optimizer), "average of the weights": averaged})
    return records


def _listen(method: Method, record: Record) -> None:
    """Have what the loss sees and computes put into `record`; of ARAT also its features and the terms of its layers."""
    layers = _Layers(method) if isinstance(method, Arat) else None

    def computed(_method: nn.Module, inputs: tuple[Tensor, ...], losses: Losses) -> None:
        x, x_adv, _ = inputs
        assert losses.logits_adv is not None
        assert losses.logits_clean is not None
        record["clean input"] = {"": x.detach()}
        record["adversarial images"] = {"": x_adv.detach()}
        record["logits"] = {"adversarial": losses.logits_adv.detach(), "clean": losses.logits_clean.detach()}
        if layers is not None:
            record.update(layers.seen())
        record["loss, adversarial cross-entropy"] = {"": losses.adversarial.detach()}
        record["loss, clean cross-entropy"] = {"": losses.clean.detach()}
        record["loss, total"] = {"": losses.total.detach()}

    method.register_forward_hook(computed)


class _Layers:
    """Features, predictions and weighted terms of the layers that ARAT regularises, of its last forward."""

    def __init__(self, method: Arat) -> None:
        self.method, self.inner = method, method.invariance
        self.calls = list[tuple[Tensor, Tensor, Tensor]]()
        self.predictions = dict[str, Tensor]()
        method.invariance = self._invariance
        for layer, predictor in zip(method.layers, method.predictors, strict=True):
            if not isinstance(predictor, nn.Identity):
                predictor.register_forward_hook(partial(self._predicted, layer))

    def seen(self) -> Record:
        share = self.method.invariance_weight / len(self.method.layers)
        by_layer = dict(zip(self.method.layers, self.calls, strict=True))
        record: Record = {
            "features, adversarial": {layer: z_adv for layer, (z_adv, _, _) in by_layer.items()},
            "features, clean": {layer: z for layer, (_, z, _) in by_layer.items()},
            "loss, invariance": {layer: share * term for layer, (_, _, term) in by_layer.items()},
        }
        if self.predictions:
            record["predictions"] = dict(self.predictions)
        self.calls.clear()
        return record

    def _invariance(self, h: nn.Module, z_adv: Tensor, z: Tensor) -> Tensor:
        term = self.inner(h, z_adv, z)
        self.calls.append((z_adv.detach(), z.detach(), term.detach()))
        return term

    def _predicted(self, layer: str, _predictor: nn.Module, _inputs: object, output: Tensor) -> None:
        self.predictions[layer] = output.detach()
