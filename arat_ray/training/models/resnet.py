"""ResNet-18 as the field has it for 32x32 images: a 3x3 stem in place of the 7x7 one and its pooling.

https://arxiv.org/abs/1512.03385
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from arat_ray.spec import Spec
from arat_ray.training.data.images import Shape
from arat_ray.training.models.blocks import NORMS, Norm, NormName, conv, stage

Stride = Literal[1, 2]


class Resnet18(Spec):
    """ResNet-18 for small images; width 64 is the standard one, 16 a narrow one for small machines.

    `strides` are those of the four stages. LBGAT's natural network has 1, 1, 2, 2: the same weights on larger maps.
    """

    representation: ClassVar[str] = "avgpool"
    paper_layers: ClassVar[tuple[str, ...]] = ("layer4.*.bn?",)

    name: Literal["resnet18"] = "resnet18"
    width: int = Field(64, ge=1, le=1024)
    """Channels of the first stage; 64 is the standard."""
    norm: NormName = "batch"
    """The norm layers."""
    strides: tuple[Stride, Stride, Stride, Stride] = (1, 2, 2, 2)
    """Of the four stages."""

    def build(self, shape: Shape, num_classes: int) -> nn.Module:
        norm = NORMS[self.norm]
        return ResNet(self.width, self.strides, norm, channels=shape[0], num_classes=num_classes)


class BasicBlock(nn.Module):
    """conv-norm-relu-conv-norm plus a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.conv1 = conv(inputs, outputs, 3, stride)
        self.bn1 = norm(outputs)
        self.conv2 = conv(outputs, outputs, 3)
        self.bn2 = norm(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(conv(inputs, outputs, 1, stride), norm(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class ResNet(nn.Module):
    """Four stages of two basic blocks at widths w, 2w, 4w, 8w, each first block with its stage's stride."""

    def __init__(self, width: int, strides: tuple[int, ...], norm: Norm, *, channels: int, num_classes: int) -> None:
        super().__init__()
        first, second, third, fourth = strides
        self.conv1 = conv(channels, width, 3)
        self.bn1 = norm(width)
        self.layer1 = stage(BasicBlock, 2, width, width, first, norm)
        self.layer2 = stage(BasicBlock, 2, width, 2 * width, second, norm)
        self.layer3 = stage(BasicBlock, 2, 2 * width, 4 * width, third, norm)
        self.layer4 = stage(BasicBlock, 2, 4 * width, 8 * width, fourth, norm)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(8 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer4(self.layer3(self.layer2(self.layer1(out))))
        logits: Tensor = self.linear(self.avgpool(out).flatten(1))
        return logits
