"""Split normalisation: every norm layer doubled, one branch for clean and one for adversarial inputs.

`convert` turns any plain network into a split one, as torch's `convert_sync_batchnorm` does; convolutions and
classifier stay shared. The adversarial branch is the deployed network. ARAT, https://arxiv.org/abs/2402.14648,
section 4.2; the idea of an auxiliary norm is AdvProp's, https://arxiv.org/abs/1911.09665.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Branch = Literal["adversarial", "clean"]
AttackNorm = Literal["train", "train_frozen_stats", "eval"]
"""How norm layers behave while an attack runs: batch statistics, moving the running ones; batch statistics, leaving
them alone; running statistics."""


def is_norm(module: nn.Module) -> bool:
    """Whether a module is a norm layer: batch norm of any kind (synchronised, too), layer norm or group norm."""
    return isinstance(module, (_BatchNorm, nn.LayerNorm, nn.GroupNorm))


def has_norm(model: nn.Module) -> bool:
    """Whether there is a norm layer to split; a network without one has the same weights in both branches."""
    return any(map(is_norm, model.modules()))


class SplitNorm(nn.Module):
    """Two copies of a norm layer, of which `active` serves the current input."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.adversarial = norm
        self.clean = copy.deepcopy(norm)
        self.active: Branch = "adversarial"

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.clean(x) if self.active == "clean" else self.adversarial(x)
        return out


def convert(model: nn.Module) -> nn.Module:
    """The same network with every norm layer in it replaced by a SplitNorm, both branches starting equal.

    What is split already stays as it is. A network without a norm layer comes back unchanged: see `has_norm`.
    """
    if isinstance(model, SplitNorm):
        return model
    if is_norm(model):
        return SplitNorm(model)
    for name, child in model.named_children():
        setattr(model, name, convert(child))
    return model


def choose(model: nn.Module, branch: Branch) -> None:
    """Send inputs through `branch` from now on; without effect on a network that is not split."""
    for module in model.modules():
        if isinstance(module, SplitNorm):
            module.active = branch


@contextmanager
def branch(model: nn.Module, name: Branch) -> Iterator[None]:
    """Send inputs through branch `name` within the block; the adversarial branch serves outside of it."""
    choose(model, name)
    try:
        yield
    finally:
        choose(model, "adversarial")


def deployed(model: nn.Module) -> nn.Module:
    """A plain copy of the network with the adversarial branch folded in, for use without this package."""
    return folded(model, lambda split: split.adversarial)


def folded(model: nn.Module, one: Callable[[SplitNorm], nn.Module]) -> nn.Module:
    """A plain copy of the network, with the norm layer that `one` makes of it in the place of every SplitNorm."""
    return _fold(copy.deepcopy(model), one)


def _fold(model: nn.Module, one: Callable[[SplitNorm], nn.Module]) -> nn.Module:
    if isinstance(model, SplitNorm):
        return one(model)
    for name, child in model.named_children():
        setattr(model, name, _fold(child, one))
    return model


@contextmanager
def attack_norm(model: nn.Module, mode: AttackNorm) -> Iterator[None]:
    """Put a network in train mode into the norm mode `mode` while an attack runs on it.

    Only batch norms have statistics; layer and group norms compute the same in all modes.
    """
    if mode == "train":
        yield
        return
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if mode == "eval":
        model.eval()
    else:
        for norm in norms:
            norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
        model.train()


def synchronize(model: nn.Module, device: torch.device) -> nn.Module:
    """The same network with every BatchNorm taking its statistics over all workers' images."""
    if device.type != "cpu":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return converted
    if isinstance(model, _BatchNorm):
        return SyncBatchNorm.of(model)
    for name, child in model.named_children():
        setattr(model, name, synchronize(child, device))
    return model


class SyncBatchNorm(_BatchNorm):
    """torch.nn.SyncBatchNorm's formula for the CPU, where torch has none, by differentiable all-reduce.

    With momentum None the running statistics are the plain average over all batches, as in torch.
    """

    @classmethod
    def of(cls, norm: _BatchNorm) -> SyncBatchNorm:
        synced = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        synced._parameters, synced._buffers = norm._parameters, norm._buffers  # of its type, on its device
        return synced.train(norm.training)

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of dimensions will do."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not dist.is_initialized():
            out: Tensor = super().forward(x)
            return out
        dims = [0, *range(2, x.dim())]
        count = x.new_tensor([x.numel() / x.shape[1]])
        sums: Tensor = _SumOverWorkers.apply(torch.cat([x.sum(dims), x.square().sum(dims), count]))
        total = sums[-1]
        mean, square = (sums[:-1] / total).chunk(2)
        variance = (square - mean.square()).clamp_min(0)  # which rounding can make negative
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            with torch.no_grad():
                assert self.num_batches_tracked is not None
                self.num_batches_tracked.add_(1)
                momentum = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
                self.running_mean.lerp_(mean, momentum)
                self.running_var.lerp_(variance * (total / (total - 1)), momentum)
        shape = [1, -1] + [1] * (x.dim() - 2)
        out = (x - mean.view(shape)) * torch.rsqrt(variance.view(shape) + self.eps)
        return out * self.weight.view(shape) + self.bias.view(shape) if self.affine else out


class _SumOverWorkers(torch.autograd.Function):
    """All-reduce whose gradient is the sum of all workers' gradients."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        summed = values.clone()
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        summed = gradient.clone()
        dist.all_reduce(summed)
        return summed
