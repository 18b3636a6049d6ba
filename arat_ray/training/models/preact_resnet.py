"""PreActResNet-18 as robust overfitting and the papers after it train it; its state names are the field's.

Blocks of https://arxiv.org/abs/1603.05027; a 3x3 stem without norm, and one norm and ReLU before pooling, as in
https://github.com/locuslab/robust_overfitting.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from arat_ray.spec import Spec
from arat_ray.training.data.images import Shape
from arat_ray.training.models.blocks import NORMS, Norm, NormName, PreActivationBlock, conv, stage


class PreactResnet18(Spec):
    """Pre-activation ResNet-18 for small images; width 64 is the standard one."""

    representation: ClassVar[str] = "avgpool"
    paper_layers: ClassVar[tuple[str, ...]] = ()

    name: Literal["preact_resnet18"] = "preact_resnet18"
    width: int = Field(64, ge=1, le=1024)
    """Channels of the first stage; 64 is the standard."""
    norm: NormName = "batch"
    """The norm layers."""

    def build(self, shape: Shape, num_classes: int) -> nn.Module:
        return PreActResNet(self.width, NORMS[self.norm], channels=shape[0], num_classes=num_classes)


class PreActResNet(nn.Module):
    """Four stages of two pre-activation blocks at widths w, 2w, 4w, 8w; resolutions 1, 1/2, 1/4, 1/8."""

    def __init__(self, width: int, norm: Norm, *, channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv1 = conv(channels, width, 3)
        self.layer1 = stage(_block, 2, width, width, 1, norm)
        self.layer2 = stage(_block, 2, width, 2 * width, 2, norm)
        self.layer3 = stage(_block, 2, 2 * width, 4 * width, 2, norm)
        self.layer4 = stage(_block, 2, 4 * width, 8 * width, 2, norm)
        self.bn = norm(8 * width)
        self.relu = nn.ReLU()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(8 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        out = self.layer4(self.layer3(self.layer2(self.layer1(self.conv1(x)))))
        logits: Tensor = self.linear(self.avgpool(self.relu(self.bn(out))).flatten(1))
        return logits


def _block(inputs: int, outputs: int, stride: int, norm: Norm) -> nn.Module:
    block = PreActivationBlock(inputs, outputs, stride, norm)
    if block.shortcut is not None:
        block.shortcut = nn.Sequential(block.shortcut)  # its weight is `shortcut.0.weight` in the field's checkpoints
    return block
