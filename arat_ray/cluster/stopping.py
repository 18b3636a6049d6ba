"""Stopping a study before its last trial: a budget, Ctrl-C, a full disk, and a Ray that has ended under it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from ray import tune
from rich.console import Console

from arat_ray.cluster import local
from arat_ray.disk import Disk
from arat_ray.exit_codes import INTERRUPTED, NOT_SAVED, RAY_GONE
from arat_ray.storage.pushing import close_all
from arat_ray.study.budget import Over, Watch
from arat_ray.terminal import report

PATIENCE_S = 20.0
"""How long Ray Tune may take to end; then the process ends without it."""

Save = Callable[[str], bool]
"""Writes what was measured, and why it ended; whether all of it is on disk."""


class Stop(tune.Stopper):
    """Ends the study, its running trials too, when a budget is spent, it was interrupted, Ray has ended, or one of the
    `disks` will never take its results."""

    def __init__(self, watch: Watch, *disks: Disk) -> None:
        self.watch, self.disks = watch, disks
        self.over: Over | None = None
        self.interrupted = False
        self.gone: str | None = None
        """How Ray on this machine has ended."""

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self.reason is not None

    @property
    def reason(self) -> str | None:
        if self.gone:
            return self.gone
        if self.interrupted:
            return "interrupted"
        if broken := next((disk.broken for disk in self.disks if disk.broken), None):
            return broken
        self.over = self.over or self.watch.over()
        return f"budget.{self.over.budget}: {self.over.reason}" if self.over else None

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its stopper along; there is nothing in it to keep


@contextmanager
def ending_with_ray(stop: Stop, save: Save, warn: Callable[[str], None]) -> Iterator[None]:
    """Where the Ray that this process started has ended, so does the study, within PATIENCE_S even if Tune does not."""

    def end(how: str, over: threading.Event) -> None:
        stop.gone = how
        warn(f"{how}; the study ends")
        if over.wait(PATIENCE_S):
            return
        saved = save("interrupted")
        close_all()
        what = "everything measured is saved" if saved else "some rows could not be written"
        warn(f"{what}; go on with --resume")
        os._exit(RAY_GONE if saved else NOT_SAVED)

    with local.watched(end):
        yield


@contextmanager
def interruptible(stop: Stop, save: Save, console: Console) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM) ends the study cleanly, the second one at once.

    A signal to the whole process group may take Ray's processes along, and then Tune waits for them for ever; so after
    PATIENCE_S the rows are saved and the process ends without it.
    """

    def give_up() -> None:
        saved = save("interrupted")
        close_all()
        what = "everything measured is saved" if saved else "some rows could not be written"
        report(console, f"Ray did not answer any more; {what}; go on with --resume")
        os._exit(INTERRUPTED if saved else NOT_SAVED)

    impatient = threading.Timer(PATIENCE_S, give_up)
    impatient.daemon = True

    def ask_to_stop(number: int, frame: FrameType | None) -> None:
        stop.interrupted = True
        signal.signal(signal.SIGINT, before[signal.SIGINT])
        report(console, "stopping; what was measured is being saved (Ctrl-C again ends at once)")
        if not impatient.is_alive():
            impatient.start()

    before = {}
    if threading.current_thread() is threading.main_thread():  # of a program of the user's own it may be another one
        before = {number: signal.signal(number, ask_to_stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        impatient.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)
