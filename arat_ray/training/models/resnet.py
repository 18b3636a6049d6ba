"""ResNet-18 as the field has it for 32x32 images: a 3x3 stem in place of the 7x7 one and its pooling.

https://arxiv.org/abs/1512.03385
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from arat_ray.spec import Spec
from arat_ray.training.images import Shape
from arat_ray.training.models.blocks import NORMS, Norm, NormName, conv, stage


class Resnet18(Spec):
    """ResNet-18 for small images; width 64 is the standard one, 16 a narrow one for small machines."""

    representation: ClassVar[str] = "avgpool"
    paper_layers: ClassVar[tuple[str, ...]] = ("layer4.*.bn?",)

    name: Literal["resnet18"] = "resnet18"
    width: int = Field(64, ge=1, le=1024)
    norm: NormName = "batch"

    def build(self, shape: Shape, num_classes: int) -> nn.Module:
        return ResNet((2, 2, 2, 2), width=self.width, norm=NORMS[self.norm], channels=shape[0], num_classes=num_classes)


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
    """Four stages of basic blocks at widths w, 2w, 4w, 8w; resolutions 1, 1/2, 1/4, 1/8."""

    def __init__(
        self, blocks: tuple[int, int, int, int], *, width: int, norm: Norm, channels: int, num_classes: int
    ) -> None:
        super().__init__()
        self.conv1 = conv(channels, width, 3)
        self.bn1 = norm(width)
        self.layer1 = stage(BasicBlock, blocks[0], width, width, 1, norm)
        self.layer2 = stage(BasicBlock, blocks[1], width, 2 * width, 2, norm)
        self.layer3 = stage(BasicBlock, blocks[2], 2 * width, 4 * width, 2, norm)
        self.layer4 = stage(BasicBlock, blocks[3], 4 * width, 8 * width, 2, norm)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(8 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer4(self.layer3(self.layer2(self.layer1(out))))
        logits: Tensor = self.linear(self.avgpool(out).flatten(1))
        return logits
