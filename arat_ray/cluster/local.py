"""The Ray that this process started for itself: where one of its processes is gone, no other node can come.

Ray's own calls wait for ever then, or end the process from within after a minute. So a thread looks at the processes
themselves.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from arat_ray.cluster import ray_internals

ESSENTIAL = ("raylet", "gcs_server")
LOOK_S = 1.0


def gone() -> str | None:
    """How a process without which Ray does not work has ended; None where all live, or others have started Ray."""
    node = ray_internals.own_node() if ray_internals.is_connected() else None  # one that starts may try again
    for kind, process in node.dead_processes() if node else ():
        if kind in ESSENTIAL:
            return f"Ray on this machine has ended: its {kind} {_ended(process.poll())}"
    return None


@contextmanager
def watched(end: Callable[[str, threading.Event], None], *, look: Callable[[], str | None] = gone) -> Iterator[None]:
    """Where Ray has ended within the block, call `end(how, over)` once, in a thread; `over` is set after the block."""
    over = threading.Event()

    def watch() -> None:
        before: str | None = None
        while not over.wait(LOOK_S):
            now = look()
            if now and now == before:  # seen twice: a Ray that is being shut down is gone after the first time
                end(now, over)
                return
            before = now

    threading.Thread(target=watch, daemon=True, name="watch Ray").start()
    try:
        yield
    finally:
        over.set()


def _ended(code: int | None) -> str:
    if code is None or code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    oom = ", as the kernel does where memory runs out" if name == "SIGKILL" else ""
    return f"was ended by {name}{oom}"
