"""WideResNet, https://arxiv.org/abs/1605.07146."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError
from torch import Tensor, nn

from arat_ray.spec import Spec
from arat_ray.training.data.images import Shape
from arat_ray.training.models.blocks import NORMS, Norm, NormName, PreActivationBlock, conv, stage


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

    representation: ClassVar[str] = "avgpool"
    paper_layers: ClassVar[tuple[str, ...]] = ("block3.layer.*.relu?", "avgpool")

    name: Literal["wide_resnet"] = "wide_resnet"
    depth: Annotated[int, Field(le=1000), AfterValidator(_is_wide_resnet_depth)] = 34
    """Layers: 6 n + 4."""
    width: int = Field(10, ge=1, le=64)
    """Factor on the channels."""
    norm: NormName = "batch"
    """The norm layers."""

    def build(self, shape: Shape, num_classes: int) -> nn.Module:
        return WideResNet(self.depth, self.width, NORMS[self.norm], channels=shape[0], num_classes=num_classes)


class Stage(nn.Module):
    """Blocks under the name `layer`, so that names read block3.layer.0.relu1 as in the field's WideResNets."""

    def __init__(self, layer: nn.Sequential) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        return out


class WideResNet(nn.Module):
    """Three stages of pre-activation blocks at widths 16k, 32k, 64k."""

    def __init__(self, depth: int, width: int, norm: Norm, *, channels: int, num_classes: int) -> None:
        super().__init__()
        blocks = (depth - 4) // 6
        self.conv1 = conv(channels, 16, 3)
        self.block1 = Stage(stage(PreActivationBlock, blocks, 16, 16 * width, 1, norm))
        self.block2 = Stage(stage(PreActivationBlock, blocks, 16 * width, 32 * width, 2, norm))
        self.block3 = Stage(stage(PreActivationBlock, blocks, 32 * width, 64 * width, 2, norm))
        self.bn1 = norm(64 * width)
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
