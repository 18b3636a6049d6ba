"""The lock of a study in a bucket: an object that says who writes to the study and when it was last heard of.

It is between drivers on any machines; `arat_ray.locks` are those between processes that share a file system.

A bucket knows no locks, so this one keeps apart drivers that begin seconds apart, not ones that begin in the same
instant; those find out at the next heartbeat, and the one whose lock it is not any more pushes nothing from then on.
"""

from __future__ import annotations

import io
import json
import os
import socket
import time
import uuid
from collections.abc import Callable
from typing import Any

from arat_ray.json_files import parse_json
from arat_ray.locks import machine, started
from arat_ray.storage import objects
from arat_ray.storage.address import Address

BEAT_S, STALE_S = 20.0, 120.0
LOOK_S = 2.0


class TakenError(ValueError):
    """Somebody else writes there."""


class Lock:
    """One lock, `.lock-<what>` at an address."""

    def __init__(self, address: Address, what: str = "study") -> None:
        self.address, self.name = address, f".lock-{what}"
        self.token = uuid.uuid4().hex
        self._beat = 0.0

    def acquire(self, *, wait_s: float = 0.0) -> None:
        """Take it where it is free, or its holder has died; TakenError where it is not within `wait_s`."""
        deadline = time.monotonic() + wait_s
        while (holder := self._holder()) is not None:
            if time.monotonic() >= deadline:
                raise TakenError(
                    f"{self.address.uri} is being written to by process {holder['pid']} of {holder['host']}; wait for "
                    f"it or stop it (a driver that is not heard of for {STALE_S:.0f} s counts as dead)"
                )
            time.sleep(0.2)
        self._write(self.token)
        self._check_mine()

    def wait_for_sign(self, log: Callable[[str], None]) -> None:
        """Where a driver of another machine has it: wait until it is heard of again, or may be counted as dead.

        So a study whose machine is lost goes on by itself, and a second driver is refused within a beat.
        """
        holder = self._holder()
        if holder is None or holder["machine"] == machine():
            return
        log(
            f"{self.address.uri} was being written to by process {holder['pid']} of {holder['host']}; "
            f"waiting until it is heard of, or has been silent for {STALE_S:.0f} s and counts as dead"
        )
        before = self._last_beat()
        while self._last_beat() == before and self._holder() is not None:
            time.sleep(LOOK_S)

    def refresh(self) -> None:
        """Say that its holder is alive, if that is due; TakenError where another one has taken it."""
        if time.monotonic() - self._beat >= BEAT_S:
            self._check_mine()
            self._write(self.token)

    def doubt(self) -> None:
        """The bucket was gone: make sure at the next `refresh`."""
        self._beat = 0.0

    def release(self) -> None:
        """Give it back; nothing where it is another's."""
        if (self._read() or {}).get("token") == self.token:
            self._write(None)

    def _holder(self) -> dict[str, Any] | None:
        """Who holds it and is alive, as far as one can know."""
        held = self._read()
        if held is None or held["token"] is None:
            return None
        if held["machine"] == machine():
            return held if started(held["pid"]) == held["started"] else None
        now = objects.put(self.address, f"{self.name}-clock", io.BytesIO(b"-")).mtime_ns  # the bucket's own clock
        beat = self._last_beat()
        return held if beat is not None and (now - beat) / 1e9 < STALE_S else None

    def _last_beat(self) -> int | None:
        """When its holder was last heard of, in ns of the bucket's own clock."""
        beat = objects.stats(self.address, self.name).get(self.name)
        return beat.mtime_ns if beat else None

    def _check_mine(self) -> None:
        held = self._read()
        if held is None or held["token"] != self.token:
            who = f"process {held['pid']} of {held['host']}" if held else "somebody"
            raise TakenError(f"{self.address.uri} was taken over by {who}")

    def _read(self) -> dict[str, Any] | None:
        content = objects.read(self.address, self.name)
        fix = "where no driver is running, remove it from the bucket"
        shape = {"token?": str, "host": str, "pid": int, "machine": str}
        held: dict[str, Any] | None = None
        if content:
            held = parse_json(content, f"{self.address.uri}/{self.name}", fix=fix, shape=shape)
        return held

    def _write(self, token: str | None) -> None:
        pid = os.getpid()
        held = {
            "token": token,
            "host": socket.gethostname(),
            "pid": pid,
            "started": started(pid),
            "machine": machine(),
        }
        objects.put(self.address, self.name, io.BytesIO(json.dumps(held).encode()))
        self._beat = time.monotonic()
