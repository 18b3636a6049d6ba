"""Pushing while something is written: a thread that keeps the bucket up to date, and sits out where it is gone."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from arat_ray.backoff import Backoff
from arat_ray.storage.aside import Log
from arat_ray.storage.lock import Lock, TakenError
from arat_ray.storage.mirror import Mirror

EVERY_S = 2.0
RETRY_S = (2.0, 60.0)
PATIENCE_S = 30.0
"""How long an ending command tries to push what is left."""

_running: list[Pushing] = []


class Pushing:
    """Pushes what changes below some names of a mirror, from `start` to `close`.

    While the bucket fails, the mirror is the buffer: pushing is tried again after `retry_s[0]` seconds, then twice
    that, up to `retry_s[1]`, and `log` is called once when it begins and once when it is over. Where the lock was
    taken over by another driver, nothing is pushed any more.
    """

    def __init__(
        self,
        mirror: Mirror,
        names: Sequence[str],
        *,
        log: Log,
        lock: Lock | None = None,
        every_s: float = EVERY_S,
        retry_s: tuple[float, float] = RETRY_S,
    ) -> None:
        self.mirror, self.names, self.lock = mirror, names, lock
        self.every_s, self.backoff = every_s, Backoff(retry_s)
        self.is_lost = False
        self._log = log
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"push {mirror.address.uri}", daemon=True)

    def start(self) -> None:
        _running.append(self)
        self._thread.start()

    def flush(self) -> bool:
        """Push now; whether everything is in the bucket."""
        return self._push()

    def close(self, *, patience_s: float = PATIENCE_S, all_of_it: bool = True) -> list[str]:
        """Push what is left, of the whole mirror or below its names alone, and end; what could not be pushed."""
        self.stop()
        deadline = time.monotonic() + patience_s
        while not self._push(all_of_it=all_of_it) and not self.is_lost and time.monotonic() < deadline:
            time.sleep(1)
        return self.mirror.unpushed([""] if all_of_it else self.names)

    def stop(self) -> None:
        """End without pushing more."""
        if self in _running:
            _running.remove(self)
            self._end.set()
            self._thread.join()

    def _run(self) -> None:
        wait = self.every_s
        while not self._end.wait(wait):
            began = time.monotonic()
            self._push()
            slowly = 2 * (time.monotonic() - began)  # a slow bucket is not kept busy
            wait = max(self.every_s, self.backoff.delay_s, slowly)

    def _push(self, *, all_of_it: bool = False) -> bool:
        if self.is_lost:
            return False
        folder = self.mirror.folder
        try:
            if self.lock:
                self.lock.refresh()
            if all_of_it:
                self.mirror.push_all(log=self._log, lock=self.lock)
            else:
                self.mirror.push(self.names, lock=self.lock)
        except TakenError as error:
            self.is_lost = True
            self._log(f"{error}; from here on nothing is pushed, and what is measured stays in {folder!s}")
            return False
        except OSError as error:
            if self.backoff.fail():
                self._log(f"cannot push to {folder} ({error}); everything is kept in {folder!s}, and pushed later")
            if self.lock:
                self.lock.doubt()
            return False
        if self.backoff.succeed():
            self._log(f"{folder} is up to date again")
        return True


def close_all(*, patience_s: float = PATIENCE_S) -> bool:
    """For a process that is about to end without unwinding: push what is left; whether all is in the buckets."""
    left = [pushing.close(patience_s=patience_s) for pushing in list(_running)]
    return not any(left)
