"""A network for inference and input gradients: without copies, and with batch norms folded into convolutions.

Both come from tracing its `forward` (torch.fx), which not every network survives: random numbers are drawn once for
good, hooks of the whole network are lost. So what was traced is compared with the network on some images.
"""

from __future__ import annotations

import copy
import pickle
import random
from collections.abc import Callable
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.experimental.optimization import fuse

from arat_ray.training.precision import exact_convolutions

ROUNDING = 1e-3
"""Difference of the logits, over their largest, that folding explains."""


def fold(model: nn.Module, x: Tensor) -> nn.Module:
    """A frozen copy in eval mode that computes the same up to rounding, as some images x [N, C, H, W] show.

    Its images may have any memory format. A network that tracing changes is copied as it is.
    """
    folded = _traced(model, x, fuse, within=ROUNDING)
    return folded.to(memory_format=torch.channels_last)


def lean(model: nn.Module, x: Tensor) -> nn.Module:
    """A frozen copy in eval mode that computes the same bit for bit, as some images x [N, C, H, W] show, on less
    memory; a plain copy of a network that tracing changes."""
    return _traced(model, x, fx.symbolic_trace, within=0.0)


def _traced(model: nn.Module, x: Tensor, trace: Callable[[nn.Module], nn.Module], *, within: float) -> nn.Module:
    plain = copy.deepcopy(model).eval().requires_grad_(False)
    before = _random_states(x.device)
    with torch.no_grad(), exact_convolutions():
        logits = plain(x)
    if _random_states(x.device) != before:
        return plain
    try:
        traced = relu_in_place(cast(fx.GraphModule, trace(copy.deepcopy(plain))))
        with torch.no_grad(), exact_convolutions():
            off = (traced(x) - logits).abs().max()
    except Exception:  # noqa: BLE001, of the network's own code, which met what stands for an image in tracing
        return plain
    return traced if off <= within * logits.abs().max() else plain


def _random_states(device: torch.device) -> bytes:
    """Of all that a network may draw from."""
    of_device = torch.cuda.get_rng_state(device).numpy() if device.type == "cuda" else None
    return pickle.dumps((torch.get_rng_state().numpy(), of_device, random.getstate(), np.random.get_state()))


def relu_in_place(graph: fx.GraphModule) -> fx.GraphModule:
    """Where nothing else reads the input, and what made it (convolution, batch norm, sum) needs it for no gradient."""
    modules = dict(graph.named_modules())
    for node in graph.graph.nodes:
        is_module = node.op == "call_module" and isinstance(modules[node.target], nn.ReLU)
        if not is_module and not (node.op == "call_function" and node.target in (F.relu, torch.relu)):
            continue
        source = node.args[0]
        is_layer = source.op == "call_module" and isinstance(modules[source.target], (nn.Conv2d, nn.BatchNorm2d))
        is_sum = source.op == "call_function" and getattr(source.target, "__name__", "") == "add"
        if len(source.users) == 1 and (is_layer or is_sum):
            with graph.graph.inserting_before(node):
                node.replace_all_uses_with(graph.graph.call_function(F.relu, (source,), {"inplace": True}))
            graph.graph.erase_node(node)
    graph.recompile()
    return graph
