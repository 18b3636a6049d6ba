"""Waiting that is seen and can be ended: a line on the screen that tells for what and how long, and Ctrl-C or SIGTERM.

Ray starts in C++ code for a long time, in which Python runs no handlers of signals. A thread hears of them all the
same, and where the main thread does not come back it ends the process.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType

from arat_ray.exit_codes import INTERRUPTED

GRACE_S = 3.0
"""How long the main thread may take to come back after a signal."""
TOLD_AFTER_S = (0, 10, 30, 60, 120)
"""When a line is written where there is no terminal; then once in so many seconds as the last of them."""
STOPS = {signal.SIGINT, signal.SIGTERM}


class Waiting:
    """A block that may take long. Raises KeyboardInterrupt at its end where the process was told to stop meanwhile.

    `give_up` ends what the block has started, for an end of the process without the main thread.
    """

    def __init__(self, what: str, *, give_up: Callable[[], None]) -> None:
        self.what, self.give_up = what, give_up
        self.told_to_stop = False
        self.over = threading.Event()

    def __enter__(self) -> Waiting:
        self.is_main = threading.current_thread() is threading.main_thread()
        self.signals, self.written_to = os.pipe()
        os.set_blocking(self.written_to, False)  # as `set_wakeup_fd` wants it
        if self.is_main:
            self.handlers = {number: signal.getsignal(number) for number in STOPS}
            self.wakeup = signal.set_wakeup_fd(self.written_to, warn_on_full_buffer=False)
        self.began = time.monotonic()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over.set()
        if self.is_main:
            signal.set_wakeup_fd(self.wakeup)
            for number, handler in self.handlers.items():  # Ray puts its own in their place
                signal.signal(number, handler)
        os.write(self.written_to, b"\0")
        self.thread.join()
        self._hear()
        os.close(self.signals)
        os.close(self.written_to)
        if self.told_to_stop:
            raise KeyboardInterrupt from None

    def _watch(self) -> None:
        live = sys.stderr.isatty()
        due, stopped_at = list(TOLD_AFTER_S), None
        while not self.over.is_set():
            waited = time.monotonic() - self.began
            if live:
                _write(f"\r{self.what}, {waited:.0f} s\x1b[K")
            elif waited >= due[0]:
                _write(f"{self.what}{f', {waited:.0f} s' if due[0] else ''}\n")
                due = due[1:] or [due[0] + TOLD_AFTER_S[-1]]
            self._hear(wait_s=1 if stopped_at is None else 0.2)
            if self.told_to_stop:
                stopped_at = stopped_at or time.monotonic()
            if stopped_at and time.monotonic() - stopped_at > GRACE_S and not self.over.is_set():
                self.give_up()
                _write("\r\x1b[K" if live else "")
                _write("interrupted\n")
                os._exit(INTERRUPTED)
        if live:
            _write("\r\x1b[K")

    def _hear(self, *, wait_s: float = 0) -> None:
        if select.select([self.signals], [], [], wait_s)[0] and STOPS & {*os.read(self.signals, 100)}:
            self.told_to_stop = True


def tell(text: str) -> None:
    """A line for the user, beside the results."""
    _write(f"{text}\n")


def _write(text: str) -> None:
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError):  # nobody reads it any more
        return
