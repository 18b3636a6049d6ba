"""Two real processes that train together, forked from one that has imported torch: that takes each seconds of CPU."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

START = multiprocessing.get_context("forkserver")
START.set_forkserver_preload(["arat_ray.training.loop", "arat_ray.training.rehearsal", "tests.training.runs"])


@contextmanager
def group(rank: int, folder: Path) -> Iterator[None]:
    """In one of the two: the block within their process group, whose store is a file of the folder."""
    torch.set_num_threads(1)
    store = f"file://{folder / 'rendezvous'}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2, timeout=timedelta(minutes=3))
    try:
        yield
    finally:
        dist.destroy_process_group()


def started(work: Callable[..., Any], *arguments: Any) -> BaseProcess:
    """`work(*arguments)` in a process of its own; the function must be one of a module."""
    process = START.Process(target=work, args=arguments, daemon=True)
    process.start()
    return process


def both(work: Callable[..., Any], *arguments: Any) -> list[int | None]:
    """The exit codes of two processes that do `work(rank, *arguments)`."""
    workers = [started(work, rank, *arguments) for rank in range(2)]
    for worker in workers:
        worker.join(240)
    return [worker.exitcode for worker in workers]
