"""A clock that only moves when it is told to, or when somebody sleeps."""

from __future__ import annotations

import time


class Clock:
    """Seconds since it was made; in the place of the process's own once it is `installed`."""

    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += max(seconds, 0.001)

    def installed(self) -> Clock:
        time.monotonic = lambda: self.now
        time.sleep = self.sleep  # type: ignore[assignment]
        return self
