"""What the convolutional networks are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

NormName = Literal["batch", "group"]
Norm = Callable[[int], nn.Module]
"""Makes the normalisation layer for so many channels."""
Block = Callable[[int, int, int, Norm], nn.Module]
"""Makes a residual block: channels in, channels out, stride, norm."""


def conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    """A convolution that keeps the resolution up to its stride; the norm after it stands in for the bias."""
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)


def group_norm(channels: int) -> nn.Module:
    """GroupNorm with the most groups, up to the usual 32, that hold equally many channels and at least four.

    https://arxiv.org/abs/1803.08494. With fewer than four, the last stages' few positions would hardly leave a group
    anything to vary by. A network narrower than four channels has one group.
    """
    fitting = (g for g in range(1, 33) if channels % g == 0 and channels // g >= min(4, channels))
    return nn.GroupNorm(max(fitting), channels)


NORMS: dict[str, Norm] = {"batch": nn.BatchNorm2d, "group": group_norm, "none": lambda _: nn.Identity()}


def stage(block: Block, count: int, inputs: int, outputs: int, stride: int, norm: Norm) -> nn.Sequential:
    """So many blocks, of which the first changes width and resolution."""
    first = block(inputs, outputs, stride, norm)
    return nn.Sequential(first, *(block(outputs, outputs, 1, norm) for _ in range(count - 1)))


class PreActivationBlock(nn.Module):
    """norm-relu-conv-norm-relu-conv plus a shortcut taken after the first activation where the shape changes.

    https://arxiv.org/abs/1603.05027
    """

    def __init__(self, inputs: int, outputs: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.bn1 = norm(inputs)
        self.relu1 = nn.ReLU()
        self.conv1 = conv(inputs, outputs, 3, stride)
        self.bn2 = norm(outputs)
        self.relu2 = nn.ReLU()
        self.conv2 = conv(outputs, outputs, 3)
        self.shortcut: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.shortcut = conv(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        activated = self.relu1(self.bn1(x))
        skipped = x if self.shortcut is None else self.shortcut(activated)
        out: Tensor = self.conv2(self.relu2(self.bn2(self.conv1(activated))))
        return out + skipped
