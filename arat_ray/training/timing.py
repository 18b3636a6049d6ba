"""Seconds and memory: what a run costs."""

from __future__ import annotations

import platform
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from arat_ray.units import duration as duration


class Stopwatch:
    """Seconds spent within `running()` blocks; on a GPU measured there, without waiting for it at every step."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.elapsed = 0.0
        self.events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        if self.cuda:
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            yield
            end.record()
            self.events.append((begin, end))
        else:
            began = time.perf_counter()
            yield
            self.elapsed += time.perf_counter() - began

    def seconds(self) -> float:
        return self.elapsed + float(sum(begin.elapsed_time(end) for begin, end in self.events)) / 1000


def describe(device: torch.device) -> dict[str, Any]:
    """The device's name, and the most memory held so far: on a GPU by tensors, otherwise by the process."""
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
        return {"device": torch.cuda.get_device_name(device), "peak_memory_gib": peak / 2**30}
    unit = 1 if platform.system() == "Darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return {"device": "cpu", "peak_memory_gib": peak / 2**30}
