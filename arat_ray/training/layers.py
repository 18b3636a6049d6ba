"""Which layers a method regularises: module names by pattern, and their pooled features.

A pattern is matched part by part between the dots, so `*` and `?` never cross one: `layer4.*.bn?` is layer4.0.bn1,
layer4.0.bn2, layer4.1.bn1, layer4.1.bn2.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase

import torch.nn.functional as F
from torch import Tensor, nn

from arat_ray.training.branches import SplitNorm


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
    near = difflib.get_close_matches(pattern, known, n=1, cutoff=0.75)
    meant = f"; did you mean {near[0]!r}?" if near else ""
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

        handles.append(modules[name].register_forward_hook(hook))

    handles: list[object] = []
    try:
        for name in layers:
            keep(name)
        yield features
    finally:
        for handle in handles:
            handle.remove()  # type: ignore[attr-defined]


def pool(output: Tensor) -> Tensor:
    """ReLU, then the mean over positions: [N, C, H, W] or [N, C] -> [N, C]; tokens [N, T, C] -> [N, C]."""
    activated = F.relu(output)
    if activated.dim() == 4:
        return activated.mean((2, 3))
    return activated.mean(1) if activated.dim() == 3 else activated
