"""Where a training run runs, and whom it reports to: what a launcher hands to the loop."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from arat_ray.results.rows import EpochRow


def _warn(trouble: str | None) -> None:
    if trouble:
        warnings.warn(trouble, stacklevel=4)  # Python shows a warning once


def no_part(name: str) -> AbstractContextManager[None]:
    """Parts of a run that nobody measures."""
    return nullcontext()


@dataclass(frozen=True)
class Context:
    """Where a loop runs and whom it reports to.

    `report(row, replayed)` is called on every worker after each epoch, and first for the epochs of a restored
    checkpoint (`replayed`); it returns True where the run shall stop. Only rank 0 writes to `folder`.

    `alive(trouble)` is called when the data is read, and at every step of training and of measuring: a worker from
    which no call comes for long hangs. `trouble` is what keeps the run from being saved, else None.

    `leaves()` is asked on every worker before each step. Where it is True, which must be on all of them at once, the
    state is saved in the middle of the epoch and `fit` raises PreemptedError.

    `part(name)` is entered around each epoch, each step in it and each part of a step (`profiling.PARTS`).
    """

    folder: Path
    report: Callable[[EpochRow, bool], bool]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    rank: int = 0
    world_size: int = 1
    alive: Callable[[str | None], None] = _warn
    leaves: Callable[[], bool] = lambda: False
    part: Callable[[str], AbstractContextManager[None]] = no_part

    @property
    def rows(self) -> slice:
        """Which rows of a global batch this worker keeps."""
        return slice(self.rank, None, self.world_size)

    def sum(self, values: Tensor) -> Tensor:
        """Sum over all workers."""
        if self.world_size > 1:
            dist.all_reduce(values)
        return values
