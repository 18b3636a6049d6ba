"""Exponential back-off: how long to wait before something that failed is tried again, and whom to tell only once."""

from __future__ import annotations


class Backoff:
    """A row of failures: `delay_s` is `retry_s[0]` after the first one, then twice that, up to `retry_s[1]`."""

    def __init__(self, retry_s: tuple[float, float]) -> None:
        self.shortest_s, self.longest_s = retry_s
        self.failing = False
        """Whether the last attempt failed."""
        self.delay_s = 0.0
        """How long to wait now."""

    def fail(self) -> bool:
        """An attempt failed; whether it is the first of the row, of which to warn."""
        is_first, self.failing = not self.failing, True
        self.delay_s = self.shortest_s if is_first else min(2 * self.delay_s, self.longest_s)
        return is_first

    def succeed(self) -> bool:
        """An attempt succeeded; whether one had failed before, so that to say it is over."""
        was_failing, self.failing, self.delay_s = self.failing, False, 0.0
        return was_failing
