"""The menu of networks for small images.

x [N, C, H, W] in [0, 1] -> logits [N, K]. Every activation that a method may regularise is a module with a name, and
nothing works in place. Each spec says which module's pooled output its classifier reads (`representation`) and which
layers the ARAT paper regularises in it (`paper_layers`, none where the paper has no such network).
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from arat_ray.training.models.preact_resnet import PreactResnet18
from arat_ray.training.models.resnet import Resnet18
from arat_ray.training.models.tiny import Tiny
from arat_ray.training.models.vit import Vit
from arat_ray.training.models.wide_resnet import WideResnet

AnyModel = Resnet18 | PreactResnet18 | WideResnet | Vit | Tiny
Model = Annotated[AnyModel, Field(discriminator="name")]
MODELS: dict[str, type[AnyModel]] = {
    "resnet18": Resnet18,
    "preact_resnet18": PreactResnet18,
    "wide_resnet": WideResnet,
    "vit": Vit,
    "tiny": Tiny,
}

__all__ = ["MODELS", "Model", "PreactResnet18", "Resnet18", "Tiny", "Vit", "WideResnet"]
