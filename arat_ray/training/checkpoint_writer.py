"""Writing the checkpoints of a run to a disk that may fail: training goes on, and the next one tries again."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from arat_ray import disk
from arat_ray.training import checkpoint
from arat_ray.training.checkpoint import Checkpoint

RETRY_S = (1.0, 30.0)
"""How long to wait for a disk that fails: at first, and at most, before it is tried again."""


class NeverSavedError(ValueError):
    """The run's checkpoint could never be written; only rank 0 knows."""


def try_out(folder: Path) -> None:
    """NeverSavedError where `folder` will never take a checkpoint; a failure that may pass is waited for later."""
    try:
        checkpoint.check(folder)
    except OSError as error:
        _raise_if_lasting(error)


class CheckpointWriter:
    """Keeps `last.pt` and `best.pt` of one run in `folder`; `alive(trouble)` is called while a disk is waited for."""

    def __init__(self, folder: Path, *, alive: Callable[[str | None], None]) -> None:
        self.folder, self._alive = folder, alive
        self.trouble: str | None = None
        """Why the last checkpoint is not on disk."""
        self._best: Checkpoint | None = None  # until it is on disk

    def save(self, state: Checkpoint, *, is_best: bool, is_final: bool) -> None:
        """Replace the last checkpoint, and before it the best one where this is better.

        Where the disk fails, training goes on from the state in memory and the next call tries again. After the last
        epoch nothing is left to do but to wait for the disk: results without their network are none. NeverSavedError
        where waiting is of no use.
        """
        if is_best:
            self._best = replace(state, optimizer={}, features={})
        meanwhile = "the run has ended and waits for the disk" if is_final else "training goes on without"
        delay, longest = RETRY_S
        while not self._write(state, meanwhile) and is_final:
            self._alive(self.trouble)
            time.sleep(delay)
            delay = min(2 * delay, longest)

    def _write(self, state: Checkpoint, meanwhile: str) -> bool:
        """Write the checkpoints that are due; whether they are on disk."""
        try:
            if self._best is not None:
                checkpoint.save(self._best, self.folder / checkpoint.BEST)
                self._best = None
            checkpoint.save(state, self.folder / checkpoint.LAST)
        except OSError as error:
            _raise_if_lasting(error)
            if self._best is not None:
                self._best = checkpoint.detached(self._best)
            self.trouble = f"its checkpoint cannot be written ({error.strerror}); {meanwhile}"
            return False
        self.trouble = None
        return True


def _raise_if_lasting(error: OSError) -> None:
    if disk.is_lasting(error):
        raise NeverSavedError(f"its checkpoint can never be written: {disk.reason(error)}") from error
