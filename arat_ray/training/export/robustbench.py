"""Which class of RobustBench has a network's architecture, and what it calls the weights.

https://github.com/RobustBench/robustbench, `robustbench/model_zoo/architectures`. Its classes take three channels, and
pool so that images of 32x32 are needed.
"""

from __future__ import annotations

from typing import Any

from arat_ray.training.data.images import Shape
from arat_ray.training.models import AnyModel, PreactResnet18, Resnet18, WideResnet


def counterpart(model: AnyModel, shape: Shape, num_classes: int) -> dict[str, Any] | None:
    """The module and class, how to make it, and the part of each weight's name to replace; None where there is none."""
    if model.norm != "batch" or shape != (3, 32, 32):
        return None
    folder, renamed = "robustbench.model_zoo.architectures", dict[str, str]()
    match model:
        case Resnet18(width=64, strides=(1, 2, 2, 2)):
            module, make = "resnet", f"ResNet(BasicBlock, [2, 2, 2, 2], num_classes={num_classes})"
        case PreactResnet18(width=64):
            settings = f"num_classes={num_classes}, bn_before_fc=True, out_shortcut=True"
            module, make = "resnet", f"PreActResNet(PreActBlock, [2, 2, 2, 2], {settings})"
        case WideResnet(depth=depth, width=width):
            settings = f"depth={depth}, widen_factor={width}, num_classes={num_classes}"
            module, make = "wide_resnet", f"WideResNet({settings})"
            renamed = {".shortcut.": ".convShortcut."}
        case _:
            return None
    return {"module": f"{folder}.{module}", "make": make, "rename": renamed}
