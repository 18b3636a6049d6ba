"""Checkpoints to export, and the networks that others would load them into."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from arat_ray.training import checkpoint
from arat_ray.training.checkpoint import Checkpoint
from arat_ray.training.run import Train
from tests.training.runs import make, validate

ARAT = {"name": "arat", "invariance_weight": 3, "layers": ["avgpool"]}


def untrained(path: Path, **fields: Any) -> Checkpoint:
    """The checkpoint of a network at its start, but that each norm of each branch has statistics of its own."""
    train = make(**({"dataset": {"name": "digits"}, "method": ARAT} | fields))
    state = Checkpoint(
        train=train.model_dump(mode="json"),
        validate=validate(100).model_dump(mode="json"),
        validation_sha256="",
        epoch=1,
        method=_scattered(train, seed=1),
        optimizer={},
        average={"method": _scattered(train, seed=2)} if train.averaging else None,
        features={},
        history=[{"epoch": 1}],
    )
    checkpoint.save(state, path)
    return state


def _scattered(train: Train, *, seed: int) -> dict[str, Tensor]:
    draws = torch.Generator().manual_seed(seed)
    state = train.build().state_dict()
    for name, value in state.items():
        if name.endswith("running_mean"):
            value.normal_(0, 0.1, generator=draws)
        elif name.endswith("running_var"):
            value.uniform_(0.5, 2, generator=draws)
        elif value.is_floating_point():
            value.mul_(torch.empty_like(value).uniform_(0.5, 1.5, generator=draws))
    return state


def split_logits(state: Checkpoint, x: Tensor) -> Tensor:
    """What the network of the method itself, split norms and all, computes on its adversarial branch."""
    method = state.train_spec.build()
    method.load_state_dict(state.average["method"] if state.average else state.method)
    with torch.no_grad():
        logits: Tensor = method.model.eval()(x)
    return logits


class PlainBlock(nn.Module):
    """The basic block of https://github.com/kuangliu/pytorch-cifar, which RobustBench's is a copy of."""

    def __init__(self, in_planes: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_planes, planes, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, kernel_size=3, stride=1, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_planes != planes:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_planes, planes, kernel_size=1, stride=stride, bias=False), nn.BatchNorm2d(planes)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        return F.relu(out)


class PlainResNet18(nn.Module):
    """ResNet-18 of the same place, whose width is 64 there; for RGB images of 32x32."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.in_planes = width
        self.conv1 = nn.Conv2d(3, width, kernel_size=3, stride=1, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = self._make_layer(width, 2, stride=1)
        self.layer2 = self._make_layer(2 * width, 2, stride=2)
        self.layer3 = self._make_layer(4 * width, 2, stride=2)
        self.layer4 = self._make_layer(8 * width, 2, stride=2)
        self.linear = nn.Linear(8 * width, num_classes)

    def _make_layer(self, planes: int, num_blocks: int, stride: int) -> nn.Sequential:
        layers = []
        for each in [stride] + [1] * (num_blocks - 1):
            layers.append(PlainBlock(self.in_planes, planes, each))
            self.in_planes = planes
        return nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer4(self.layer3(self.layer2(self.layer1(out))))
        out = F.avg_pool2d(out, 4)
        out = out.view(out.size(0), -1)
        logits: Tensor = self.linear(out)
        return logits
