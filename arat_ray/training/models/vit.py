"""A small Vision Transformer for small images.

https://arxiv.org/abs/2010.11929, but the classifier reads the mean over tokens, as in
https://arxiv.org/abs/2205.01580, and there is no class token. Tokens are [N, T, C]: batch, position, width.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError
from torch import Tensor, nn

from arat_ray.spec import Spec
from arat_ray.training.data.images import Shape


class Vit(Spec):
    """A ViT of 4.0 million parameters on CIFAR (64 tokens); patch 2 suits 8x8 digits.

    `patch` [pixels] divides the image's height and width; `heads` divides `width`.
    """

    representation: ClassVar[str] = "avgpool"
    paper_layers: ClassVar[tuple[str, ...]] = ()

    name: Literal["vit"] = "vit"
    patch: int = Field(4, ge=1, le=64)
    """Height and width of a patch, in pixels."""
    width: int = Field(192, ge=1, le=4096)
    """Of a token."""
    depth: int = Field(9, ge=1, le=100)
    """Blocks."""
    heads: int = Field(3, ge=1, le=128)
    """Of the attention; they share the width out."""
    mlp_ratio: float = Field(4.0, gt=0, le=64)
    """Hidden width of a block's MLP over the width of a token."""
    norm: Literal["layer"] = "layer"
    """The norm layers."""

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        if self.width % self.heads:
            fitting = [heads for heads in range(1, min(self.width, 128) + 1) if self.width % heads == 0]
            raise PydanticCustomError(
                "heads",
                "heads must divide width, and {heads} does not divide {width}; choose one of {fitting}",
                {"heads": self.heads, "width": self.width, "fitting": ", ".join(map(str, fitting))},
            )
        return self

    def build(self, shape: Shape, num_classes: int) -> nn.Module:
        """Raises ValueError for a patch that does not tile images of `shape` [C, H, W]."""
        _, height, width = shape
        if height % self.patch or width % self.patch:
            fitting = [patch for patch in range(1, 65) if math.gcd(height, width) % patch == 0]
            raise ValueError(
                f"model.patch is {self.patch}, which does not divide images of {height}x{width} pixels; "
                f"choose one of {', '.join(map(str, fitting))}"
            )
        return VisionTransformer(self, shape, num_classes)


class VisionTransformer(nn.Module):
    """Patches to tokens, pre-norm blocks, a norm, the mean over tokens, a classifier."""

    def __init__(self, spec: Vit, shape: Shape, num_classes: int) -> None:
        super().__init__()
        channels, height, width = shape
        self.patches = nn.Conv2d(channels, spec.width, spec.patch, stride=spec.patch)
        self.position = nn.Parameter(torch.empty(1, (height // spec.patch) * (width // spec.patch), spec.width))
        hidden = max(1, round(spec.mlp_ratio * spec.width))
        self.blocks = nn.Sequential(*(TransformerBlock(spec.width, spec.heads, hidden) for _ in range(spec.depth)))
        self.norm = nn.LayerNorm(spec.width)
        self.avgpool = MeanOverTokens()
        self.linear = nn.Linear(spec.width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                _initialise(module, 0.02)
        _initialise(self.patches, (channels * spec.patch**2) ** -0.5)
        _truncated_normal(self.position, 0.02)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.position
        logits: Tensor = self.linear(self.avgpool(self.norm(self.blocks(tokens))))
        return logits


class TransformerBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class Attention(nn.Module):
    """Each token takes from all tokens, by softmax(q k^T / sqrt(C / heads)) v in each head."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # [N, heads, T, C / heads]
        out: Tensor = self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return out


class MeanOverTokens(nn.Module):
    """[N, T, C] -> [N, C]."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


def _initialise(layer: nn.Linear | nn.Conv2d, deviation: float) -> None:
    _truncated_normal(layer.weight, deviation)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)


def _truncated_normal(values: Tensor, deviation: float) -> None:
    """Normal, without what lies beyond two standard deviations."""
    nn.init.trunc_normal_(values, std=deviation, a=-2 * deviation, b=2 * deviation)
