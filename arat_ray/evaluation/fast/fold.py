"""A network for inference and input gradients: without copies, and with batch norms folded into convolutions."""

from __future__ import annotations

import copy
from contextlib import suppress
from typing import cast

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.fx.experimental.optimization import fuse


def fold(model: nn.Module) -> nn.Module:
    """A frozen copy in eval mode that computes the same up to rounding; x may have any memory format.

    A network that cannot be traced is copied as it is.
    """
    folded = copy.deepcopy(model).eval().requires_grad_(False)
    with suppress(fx.proxy.TraceError, TypeError):  # its path depends on its input
        folded = relu_in_place(cast(fx.GraphModule, fuse(folded)))
    return folded.to(memory_format=torch.channels_last)


def lean(model: nn.Module) -> nn.Module:
    """A frozen copy in eval mode that computes the same bit for bit, on less memory."""
    copied = copy.deepcopy(model).eval().requires_grad_(False)
    with suppress(fx.proxy.TraceError, TypeError):
        copied = relu_in_place(fx.symbolic_trace(copied))
    return copied


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
