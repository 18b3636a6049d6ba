"""Which layers a method regularises: module names by pattern, and their pooled features.

A pattern is matched part by part between the dots, so `*` and `?` never cross one: `layer4.*.bn?` is layer4.0.bn1,
layer4.0.bn2, layer4.1.bn1, layer4.1.bn2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from itertools import chain
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from arat_ray.text import nearest
from arat_ray.training.split_norm import SplitNorm


def names(model: nn.Module) -> list[str]:
    """The dotted names of all modules, in the order in which the network declares them; a split norm is one module."""
    found = []

    def walk(module: nn.Module, prefix: str) -> None:
        for name, child in module.named_children():
            found.append(prefix + name)
            if not isinstance(child, SplitNorm):
                walk(child, f"{prefix}{name}.")

    walk(model, "")
    return found


def select(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Names of the modules that any of the patterns matches, in the network's order.

    Raises ValueError for a pattern that matches nothing, with the names that exist.
    """
    known = names(model)
    for pattern in patterns:
        if not any(_matches(name, pattern) for name in known):
            raise ValueError(f"layer pattern {pattern!r} matches no layer of this model{_hint(pattern, known)}")
    return [name for name in known if any(_matches(name, pattern) for pattern in patterns)]


def _matches(name: str, pattern: str) -> bool:
    parts, wanted = name.split("."), pattern.split(".")
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))


def _hint(pattern: str, known: Sequence[str]) -> str:
    near = nearest(pattern, known)
    meant = f"; did you mean {near!r}?" if near else ""
    shown = known if len(known) <= 40 else [name for name in known if name.count(".") < 2 or ".0." in name]
    return f"{meant}; its layers: {', '.join(shown)}"


@contextmanager
def capture(model: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Collect phi_l = GAP(ReLU(output of l)) [N, d_l] of each layer named, for forwards within the block.

    ReLU and pooling come before the loss in the authors' code as well. The hooks exist within the block alone, so an
    attack's many forwards pay nothing for them.
    """
    features: dict[str, Tensor] = {}
    modules = dict(model.named_modules())

    def keep(name: str) -> None:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            features[name] = pool(output)

        handle = modules[name].register_forward_hook(hook)
        hooks.callback(handle.remove)

    with ExitStack() as hooks:
        for name in layers:
            keep(name)
        yield features


def pool(output: Tensor) -> Tensor:
    """ReLU, then the mean over positions: [N, C, H, W] or [N, C] -> [N, C]; tokens [N, T, C] -> [N, C]."""
    activated = F.relu(output.to(torch.promote_types(output.dtype, torch.float32)))  # which autocast may have narrowed
    if activated.dim() == 4:
        return activated.mean((2, 3))
    return activated.mean(1) if activated.dim() == 3 else activated


class Layer(NamedTuple):
    """What a module gives for one image: its output's shape, and the width d_l of its pooled feature.

    `width` is None where there is no feature to regularise; `output` is None, too, where there is not even a tensor.
    """

    name: str
    kind: str
    output: tuple[int, ...] | None
    width: int | None


def survey(model: nn.Module, shape: tuple[int, int, int]) -> list[Layer]:
    """All modules of a network for images of `shape` [C, H, W], by a forward of two zero images on its own device.

    A feature can be pooled from [N, C], from tokens [N, T, C] and from maps [N, C, H, W]. A network on the meta device
    is laid out on the CPU without values, and N is 0: torch's meta kernels import its compiler, which takes seconds.
    """
    modules, known = dict(model.named_modules()), names(model)
    outputs: dict[str, object] = {}

    def keep(name: str) -> None:
        handle = modules[name].register_forward_hook(lambda _module, _inputs, output: outputs.update({name: output}))
        hooks.callback(handle.remove)

    parameter, training = next(model.parameters()), model.training
    images = 0 if parameter.is_meta else 2
    device = torch.device("cpu") if parameter.is_meta else parameter.device
    values = {
        name: torch.empty(each.shape, dtype=each.dtype, device=device)
        for name, each in chain(model.named_parameters(), model.named_buffers())
        if each.is_meta
    }
    with ExitStack() as hooks, torch.no_grad():
        for name in known:
            keep(name)
        functional_call(model.eval(), values, torch.zeros(images, *shape, device=device, dtype=parameter.dtype))
    model.train(training)
    return [_layer(name, modules[name], outputs.get(name), images) for name in known]


def _layer(name: str, module: nn.Module, output: object, images: int) -> Layer:
    kind = type(module).__name__
    if not isinstance(output, Tensor):
        return Layer(name, kind, None, None)
    has_feature = output.dim() in (2, 3, 4) and output.shape[0] == images and output.is_floating_point()
    features = 2 if output.dim() == 3 else 1  # the dimension that `pool` keeps
    return Layer(name, kind, tuple(output.shape[1:]), output.shape[features] if has_feature else None)


def widths(model: nn.Module, names: Sequence[str], shape: tuple[int, int, int]) -> list[int]:
    """d_l of each layer named, for images of `shape` [C, H, W].

    Raises ValueError for a layer from whose output no feature can be pooled.
    """
    surveyed = {layer.name: layer for layer in survey(model, shape)}
    found = []
    for name in names:
        layer = surveyed[name]
        if layer.width is None:
            gives = "gives no tensor" if layer.output is None else f"gives {list(layer.output)} for an image"
            raise ValueError(
                f"layer {name!r} ({layer.kind}) {gives} and cannot be regularised; choose one that gives [N, C], "
                "[N, T, C] or [N, C, H, W], a batch first"
            )
        found.append(layer.width)
    return found
