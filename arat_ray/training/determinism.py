"""Determinism: on a GPU the same run gives the same bits only where that is asked for; on the CPU it always does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

WORKSPACE, BUFFERS = "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
"""What cuBLAS wants to be told before a process first multiplies matrices on a GPU, and torch asks after only then."""
FILLING: Any = torch.utils.deterministic
"""Torch's module with the switch `fill_uninitialized_memory`, of which its type stubs know nothing."""


@contextmanager
def algorithms(device: torch.device, *, deterministic: bool) -> Iterator[None]:
    """Which algorithms a GPU takes within the block; without effect elsewhere.

    The fastest convolutions, found by trying them out, for shapes never change from step to step; or, `deterministic`,
    those that always give the same bits. What has none then raises torch's RuntimeError, which names it.
    """
    if device.type != "cuda":
        yield
        return
    os.environ.setdefault(WORKSPACE, BUFFERS)  # in any case: a later run in this process may be deterministic
    cudnn, mode = torch.backends.cudnn, torch.get_deterministic_debug_mode()
    before = cudnn.benchmark, cudnn.deterministic, FILLING.fill_uninitialized_memory
    cudnn.benchmark, cudnn.deterministic = not deterministic, deterministic
    if deterministic:
        FILLING.fill_uninitialized_memory = False  # nothing reads what it has not written
        torch.set_deterministic_debug_mode("error")  # as use_deterministic_algorithms, without importing a compiler
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.deterministic, FILLING.fill_uninitialized_memory = before
        torch.set_deterministic_debug_mode(mode)
