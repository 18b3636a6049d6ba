"""Diagnostics: the three mechanisms that ARAT's paper argues with, measured on any method while it trains.

https://arxiv.org/abs/2402.14648, section 4: the gradients of classification and invariance loss conflict
(stop-gradient), one norm layer serves two distributions (split norm), adversarial representations wander from epoch to
epoch (predictor). All is measured on a copy of the method, in train mode, on the same augmented training images each
time, in batches of the size trained with; every worker computes the same, so workers need not agree on anything.
"""

from __future__ import annotations

import copy
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, cast, get_args

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from arat_ray.results.rows import EpochRow
from arat_ray.spec import Spec
from arat_ray.training import layers, split_norm
from arat_ray.training.attacks import Attack
from arat_ray.training.methods import Arat, Method
from arat_ray.training.methods.base import Losses
from arat_ray.training.randomness import Noise
from arat_ray.training.split_norm import Branch, SplitNorm

Features = dict[str, Tensor]
"""Layer -> pooled adversarial features [N, d]."""

Batch = tuple[Tensor, Tensor]
"""x [B, C, H, W] and y [B]."""

Moments = tuple[Tensor, Tensor]
"""Mean and variance of each channel, [C] and [C]."""


class Diagnostics(Spec):
    """What YAML says under `diagnostics:`. `layers` are those whose representation is followed: by default those that
    the method regularises, or else the penultimate one."""

    every: int = Field(1, ge=1)
    """Epochs between two measurements."""
    images: int = Field(512, ge=2)
    """Training images measured on."""
    layers: tuple[str, ...] | None = Field(None, min_length=1)
    """Patterns of those whose representation is followed; by default those that the method regularises, or else the
    penultimate one."""

    def is_due(self, epoch: int, epochs: int) -> bool:
        return epoch % self.every == 0 or epoch == epochs

    def watched(self, method: Method, penultimate: str) -> list[str]:
        """Names of the layers followed; ValueError for a pattern that matches none."""
        if self.layers is not None:
            return layers.select(method.model, self.layers)
        return list(method.layers) if isinstance(method, Arat) else [penultimate]


def measure(
    method: Method,
    batches: Iterable[Batch],
    *,
    attack: Attack | None,
    noise: torch.Generator,
    watched: Sequence[str],
    previous: Features,
) -> tuple[EpochRow, Features]:
    """Columns of the `epochs` table, and the adversarial features to compare with at the next measurement.

    `previous` are the features of the last measurement, empty at the first. What a method does not have is absent.
    """
    began = time.perf_counter()
    probe = copy.deepcopy(method).train()
    predictors = dict(zip(probe.layers, probe.predictors, strict=True)) if isinstance(probe, Arat) else {}
    meter = _Meter(method.model)
    adversarial: dict[str, list[Tensor]] = defaultdict(list)
    row = 0
    for x, y in batches:
        x, x_adv = (x, x) if attack is None else probe.perturb(x, y, attack, Noise(noise, len(y)))
        meter.gradients(probe.model, probe(x, x_adv, y))
        with torch.no_grad():
            z = _through(probe, "clean", x, watched, meter)
            z_adv = _through(probe, "adversarial", x_adv, watched, meter)
            meter.norms()
            for layer in watched:
                rows = slice(row, row + len(y))
                meter.add("representation_distance", layer, _apart(z_adv[layer], z[layer]))
                if layer in predictors:
                    predicted = predictors[layer](z_adv[layer])
                    meter.add("predicted_distance", layer, _apart(predicted, z[layer]))
                    adversarial[f"{layer}{PREDICTED}"].append(predicted)
                adversarial[layer].append(z_adv[layer])
                for name, column in ((layer, "representation_drift"), (f"{layer}{PREDICTED}", "predicted_drift")):
                    if name in previous and adversarial[name]:
                        meter.add(column, layer, _apart(adversarial[name][-1], previous[name][rows]))
        row += len(y)
    features = {name: torch.cat(parts) for name, parts in adversarial.items()}
    return meter.columns() | {"diagnostics_s": time.perf_counter() - began}, features


PREDICTED = ":predicted"
"""Added to a layer's name: the predictor's output for it."""


class _Meter:
    """Means over the batches, by column and by layer (or group of layers)."""

    def __init__(self, model: nn.Module) -> None:
        self.values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        self.totals: dict[str, list[float]] = defaultdict(list)
        self.moments: dict[str, dict[str, Moments]] = {}
        self.running = {branch: dict(_running(model, branch)) for branch in get_args(Branch)}

    def add(self, column: str, part: str, value: float) -> None:
        self.values[column][part].append(value)

    def gradients(self, model: nn.Module, losses: Losses) -> None:
        """Norms of both gradients, their cosine, and the share of weights where their signs differ.

        Over the weights of convolutions and linear layers, as the authors measure; the last two over those that both
        losses reach.
        """
        weights = {
            f"{name}.weight": module.weight
            for name, module in model.named_modules()
            if isinstance(module, nn.Conv2d | nn.Linear) and module.weight.requires_grad
        }
        classification = _gradients(losses.classification, list(weights.values()))
        invariance = _gradients(losses.invariance, list(weights.values()))
        groups: dict[str, list[int]] = defaultdict(list)
        for index, name in enumerate(weights):
            groups[group_of(name)].append(index)
        for part, indices in {"": range(len(weights)), **groups}.items():
            both = [i for i in indices if classification[i] is not None and invariance[i] is not None]
            self._compare(part, _flat(classification, both), _flat(invariance, both))
            self._scalar("gradient_norm_classification", part, _flat(classification, indices).norm())
            self._scalar("gradient_norm_invariance", part, _flat(invariance, indices).norm())
        everything = [_sum(a, b) for a, b in zip(classification, invariance, strict=True)]
        self._scalar("gradient_norm", "", _flat(everything, range(len(weights))).norm())

    def _compare(self, part: str, classification: Tensor, invariance: Tensor) -> None:
        if not len(classification) or not bool(invariance.any()):
            return
        self._scalar("gradient_cosine", part, torch.cosine_similarity(classification, invariance, dim=0))
        self._scalar("conflict_fraction", part, (classification * invariance < 0).to(classification.dtype).mean())

    def _scalar(self, column: str, part: str, value: Tensor) -> None:
        if part:
            self.add(column, part, float(value))
        else:
            self.totals[column].append(float(value))

    @contextmanager
    def watching(self, model: nn.Module, branch: Branch) -> Iterator[None]:
        """Note mean and variance of what enters each norm layer on its way through `branch`."""
        self.moments[branch] = {}
        with ExitStack() as hooks:
            for name, norm in _norms(model):
                hooks.callback(norm.register_forward_pre_hook(self._note(branch, name)).remove)
            yield

    def _note(self, branch: Branch, name: str) -> Callable[[nn.Module, tuple[Tensor]], None]:
        def hook(norm: nn.Module, inputs: tuple[Tensor]) -> None:
            x = inputs[0].to(torch.promote_types(inputs[0].dtype, torch.float32))
            channel = x.dim() - 1 if isinstance(_serving(norm, branch), nn.LayerNorm) else 1
            dims = [dim for dim in range(x.dim()) if dim != channel]
            self.moments[branch][name] = x.mean(dims), x.var(dims, correction=0)

        return hook

    def norms(self) -> None:
        """Compare what both branches noted of one batch."""
        for name, clean in self.moments["clean"].items():
            self.add("bn_divergence", name, divergence(clean, self.moments["adversarial"][name]))
        for branch, running in self.running.items():
            for name, statistics in running.items():
                self.add("bn_mismatch", name, divergence(statistics, self.moments[branch][name]))

    def columns(self) -> EpochRow:
        """Mean of each column, and `<column>_by_layer` with the mean of each part."""
        columns: dict[str, Any] = {}
        for column, parts in self.values.items():
            means = {part: _mean(values) for part, values in parts.items()}
            columns[column] = _mean(list(means.values()))
            columns[f"{column}_by_layer"] = means
        columns |= {column: _mean(values) for column, values in self.totals.items()}
        return cast(EpochRow, columns)


def _norms(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Norm layers by name; a split one counts once."""
    modules = dict(model.named_modules())
    for name in layers.names(model):
        if isinstance(modules[name], SplitNorm) or split_norm.is_norm(modules[name]):
            yield name, modules[name]


def _serving(norm: nn.Module, branch: Branch) -> nn.Module:
    """The norm layer proper that serves a branch."""
    return norm.clean if isinstance(norm, SplitNorm) and branch == "clean" else getattr(norm, "adversarial", norm)


def _running(model: nn.Module, branch: Branch) -> Iterator[tuple[str, Moments]]:
    """Running statistics of the batch norms that serve a branch."""
    for name, norm in _norms(model):
        serving = _serving(norm, branch)
        if isinstance(serving, _BatchNorm) and serving.running_mean is not None and serving.running_var is not None:
            yield name, (serving.running_mean, serving.running_var)


def divergence(a: Moments, b: Moments, *, eps: float = 1e-5) -> float:
    """Symmetrised KL of two normal distributions per channel, (KL(a || b) + KL(b || a)) / 2, mean over channels.

    Each is (mean [C], variance [C]); `eps` is added to the variances, as norm layers do.
    """
    (mean_a, var_a), (mean_b, var_b) = a, b
    var_a, var_b = var_a + eps, var_b + eps
    apart = (mean_a - mean_b).square()
    return float((((var_a + apart) / var_b + (var_b + apart) / var_a - 2) / 4).mean())


def group_of(parameter: str) -> str:
    """The layer group of a parameter: its first name, or of a chain of blocks the block's."""
    parts = parameter.split(".")
    return ".".join(parts[:2]) if parts[0] == "blocks" else parts[0]


def _through(method: Method, branch: Branch, x: Tensor, watched: Sequence[str], meter: _Meter) -> Features:
    model = method.model
    with split_norm.branch(model, branch), meter.watching(model, branch), layers.capture(model, watched) as features:
        model(x)
    return features


def _gradients(loss: Tensor, weights: list[Tensor]) -> Sequence[Tensor | None]:
    if not loss.requires_grad:
        return [None] * len(weights)
    return torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)


def _flat(gradients: Sequence[Tensor | None], indices: Iterable[int]) -> Tensor:
    found = [gradient.flatten() for i in indices if (gradient := gradients[i]) is not None]
    return torch.cat(found) if found else torch.zeros(0)


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    if a is None or b is None:
        return b if a is None else a
    return a + b


def _apart(a: Tensor, b: Tensor) -> float:
    """Mean cosine distance of rows [N, d]."""
    return float(1 - torch.cosine_similarity(a, b.to(a)).mean())


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
