"""A tiny convolutional net, for tests and laptops."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from arat_ray.spec import Spec
from arat_ray.training.data.images import Shape
from arat_ray.training.models.blocks import NORMS, Norm, NormName, conv


class Tiny(Spec):
    """Three convolutions, for images of about 8x8: minutes on a laptop."""

    representation: ClassVar[str] = "avgpool"
    paper_layers: ClassVar[tuple[str, ...]] = ()

    name: Literal["tiny"] = "tiny"
    width: int = Field(16, ge=1, le=1024)
    """Channels of the first convolution."""
    norm: Literal[NormName, "none"] = "batch"
    """The norm layers."""

    def build(self, shape: Shape, num_classes: int) -> nn.Module:
        return TinyNet(self.width, NORMS[self.norm], channels=shape[0], num_classes=num_classes)


class TinyNet(nn.Module):
    """conv-norm-relu three times (the second and third halve the resolution), then pool and classify."""

    def __init__(self, width: int, norm: Norm, *, channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv1 = conv(channels, width, 3)
        self.bn1 = norm(width)
        self.conv2 = conv(width, 2 * width, 3, 2)
        self.bn2 = norm(2 * width)
        self.conv3 = conv(2 * width, 4 * width, 3, 2)
        self.bn3 = norm(4 * width)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(4 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = F.relu(self.bn3(self.conv3(out)))
        logits: Tensor = self.linear(self.avgpool(out).flatten(1))
        return logits
