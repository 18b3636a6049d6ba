"""Networks for small images: CIFAR ResNet-18, WideResNet and a tiny convolutional net.

x [N, C, H, W] in [0, 1] -> logits [N, K]. Every activation that a method may regularise is a module with a name, and
nothing works in place. ResNet: https://arxiv.org/abs/1512.03385, with the 3x3 stem usual for 32x32 images;
WideResNet: https://arxiv.org/abs/1605.07146.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import torch.nn.functional as F
from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError
from torch import Tensor, nn

from arat_ray.spec import Spec

Norm = Callable[[int], nn.Module]
"""Makes the normalisation layer for so many channels."""


class Resnet18(Spec):
    """ResNet-18 for small images; width 64 is the standard one, 16 a narrow one for small machines."""

    name: Literal["resnet18"] = "resnet18"
    width: int = Field(64, ge=1, le=1024)

    def build(self, channels: int, num_classes: int) -> nn.Module:
        return ResNet((2, 2, 2, 2), width=self.width, channels=channels, num_classes=num_classes)


def _is_wide_resnet_depth(depth: int) -> int:
    if not 10 <= depth <= 1000 or (depth - 4) % 6:
        raise PydanticCustomError(
            "depth",
            "a WideResNet's depth is 6n + 4 (10, 16, 22, 28, 34, 40, ...), not {depth}",
            {"depth": depth},
        )
    return depth


class WideResnet(Spec):
    """WRN-depth-width: {depth: 34, width: 10} is the field's WRN-34-10."""

    name: Literal["wide_resnet"] = "wide_resnet"
    depth: Annotated[int, AfterValidator(_is_wide_resnet_depth)] = 34
    width: int = Field(10, ge=1, le=64)

    def build(self, channels: int, num_classes: int) -> nn.Module:
        return WideResNet(self.depth, self.width, channels=channels, num_classes=num_classes)


class Tiny(Spec):
    """Three convolutions, for images of about 8x8: minutes on a laptop."""

    name: Literal["tiny"] = "tiny"
    width: int = Field(16, ge=1, le=1024)
    norm: Literal["batch", "none"] = "batch"

    def build(self, channels: int, num_classes: int) -> nn.Module:
        norm: Norm = nn.BatchNorm2d if self.norm == "batch" else lambda _: nn.Identity()
        return TinyNet(self.width, norm, channels=channels, num_classes=num_classes)


MODELS = {"resnet18": Resnet18, "wide_resnet": WideResnet, "tiny": Tiny}
Model = Annotated[Resnet18 | WideResnet | Tiny, Field(discriminator="name")]


def _conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)


class _BasicBlock(nn.Module):
    """conv-norm-relu-conv-norm plus a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(inputs, outputs, 3, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = _conv(outputs, outputs, 3)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(_conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class ResNet(nn.Module):
    """Four stages of basic blocks at widths w, 2w, 4w, 8w; resolutions 1, 1/2, 1/4, 1/8."""

    def __init__(self, blocks: tuple[int, int, int, int], *, width: int, channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv1 = _conv(channels, width, 3)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(_BasicBlock, blocks[0], width, width, 1)
        self.layer2 = _stage(_BasicBlock, blocks[1], width, 2 * width, 2)
        self.layer3 = _stage(_BasicBlock, blocks[2], 2 * width, 4 * width, 2)
        self.layer4 = _stage(_BasicBlock, blocks[3], 4 * width, 8 * width, 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(8 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer4(self.layer3(self.layer2(self.layer1(out))))
        logits: Tensor = self.linear(self.avgpool(out).flatten(1))
        return logits


class _PreActivationBlock(nn.Module):
    """norm-relu-conv-norm-relu-conv plus a shortcut taken after the first activation where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.relu1 = nn.ReLU()
        self.conv1 = _conv(inputs, outputs, 3, stride)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu2 = nn.ReLU()
        self.conv2 = _conv(outputs, outputs, 3)
        self.shortcut = _conv(inputs, outputs, 1, stride) if stride != 1 or inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        activated = self.relu1(self.bn1(x))
        skipped = x if self.shortcut is None else self.shortcut(activated)
        out: Tensor = self.conv2(self.relu2(self.bn2(self.conv1(activated))))
        return out + skipped


class _Stage(nn.Module):
    """Blocks under the name `layer`, so that names read block3.layer.0.relu1 as in the field's WideResNets."""

    def __init__(self, layer: nn.Sequential) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        return out


class WideResNet(nn.Module):
    """Three stages of pre-activation blocks at widths 16k, 32k, 64k."""

    def __init__(self, depth: int, width: int, *, channels: int, num_classes: int) -> None:
        super().__init__()
        blocks = (depth - 4) // 6
        self.conv1 = _conv(channels, 16, 3)
        self.block1 = _Stage(_stage(_PreActivationBlock, blocks, 16, 16 * width, 1))
        self.block2 = _Stage(_stage(_PreActivationBlock, blocks, 16 * width, 32 * width, 2))
        self.block3 = _Stage(_stage(_PreActivationBlock, blocks, 32 * width, 64 * width, 2))
        self.bn1 = nn.BatchNorm2d(64 * width)
        self.relu = nn.ReLU()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64 * width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        out = self.block3(self.block2(self.block1(self.conv1(x))))
        logits: Tensor = self.fc(self.avgpool(self.relu(self.bn1(out))).flatten(1))
        return logits


def _stage(block: Callable[[int, int, int], nn.Module], count: int, inputs: int, outputs: int, stride: int) -> Any:
    first = block(inputs, outputs, stride)
    return nn.Sequential(first, *(block(outputs, outputs, 1) for _ in range(count - 1)))


class TinyNet(nn.Module):
    """conv-norm-relu three times (the second and third halve the resolution), then pool and classify."""

    def __init__(self, width: int, norm: Norm, *, channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv1 = _conv(channels, width, 3)
        self.bn1 = norm(width)
        self.conv2 = _conv(width, 2 * width, 3, 2)
        self.bn2 = norm(2 * width)
        self.conv3 = _conv(2 * width, 4 * width, 3, 2)
        self.bn3 = norm(4 * width)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(4 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = F.relu(self.bn3(self.conv3(out)))
        logits: Tensor = self.linear(self.avgpool(out).flatten(1))
        return logits
