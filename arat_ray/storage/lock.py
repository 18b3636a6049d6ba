"""The lock of a study in a bucket: an object that says who writes to the study and when it was last heard of.

It is between drivers on any machines; `arat_ray.locks` are those between processes that share a file system.

It is taken where there is none, and renewed and taken over where it is still the version that was seen, by conditional
writes: of two drivers that begin in the same instant one has it, and one that was taken over finds that out at its next
renewal. What only its holder may overwrite is put likewise, see `Mirror`.
"""

from __future__ import annotations

import io
import json
import os
import socket
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from arat_ray.json_files import parse_json
from arat_ray.locks import machine, started
from arat_ray.storage import objects
from arat_ray.storage.address import Address
from arat_ray.storage.faults import ConflictError, NoConditionsError
from arat_ray.storage.objects import Stat

BEAT_S, STALE_S = 20.0, 120.0
LOOK_S = 2.0


class TakenError(ValueError):
    """Somebody else writes there."""


class _Held(NamedTuple):
    """What the lock says, and which version of it that is."""

    says: dict[str, Any]
    version: Stat


class Lock:
    """One lock, `.lock-<what>` at an address."""

    def __init__(self, address: Address, what: str = "study") -> None:
        self.address, self.name = address, f".lock-{what}"
        self.token = uuid.uuid4().hex
        self._version: Stat | None = None
        self._beats, self._beat = 0, 0.0

    def acquire(self, *, wait_s: float = 0.0, log: Callable[[str], None] = lambda text: None) -> None:
        """Take it where it is free, or its holder has died; TakenError where it is not within `wait_s`."""
        deadline = time.monotonic() + wait_s
        while True:
            held = self._read()
            if held is None or not self._is_alive(held):
                with suppress(ConflictError):  # somebody was faster: look again
                    self._write(self.token, held and held.version)
                    self._probe(log)
                    return
            elif time.monotonic() >= deadline:
                raise TakenError(
                    f"{self.address.uri} is being written to by {_who(held)}; wait for it or stop it (a driver that is "
                    f"not heard of for {STALE_S:.0f} s counts as dead)"
                )
            else:
                time.sleep(0.2)

    def wait_for_sign(self, log: Callable[[str], None]) -> None:
        """Where a driver of another machine has it: wait until it is heard of again, or may be counted as dead.

        So a study whose machine is lost goes on by itself, and a second driver is refused within a beat.
        """
        held = self._read()
        if held is None or held.says.get("machine") == machine() or not self._is_alive(held):
            return
        log(
            f"{self.address.uri} was being written to by {_who(held)}; waiting until it is heard of, or has been "
            f"silent for {STALE_S:.0f} s and counts as dead"
        )
        before = held.version
        while held is not None and held.version == before and self._is_alive(held):
            time.sleep(LOOK_S)
            held = self._read()

    def refresh(self) -> None:
        """Say that its holder is alive, if that is due; TakenError where another one has taken it."""
        if time.monotonic() - self._beat >= BEAT_S:
            self.renew()

    def renew(self) -> None:
        """Say so now, which also proves that it is still ours. Where it was removed it is taken again."""
        try:
            self._write(self.token, self._version)
        except ConflictError:
            held = self._read()
            if held is not None and held.says["token"] != self.token:
                raise TakenError(f"{self.address.uri} was taken over by {_who(held)}") from None
            self._write(self.token, held and held.version)  # ours, but for an answer that was lost; or removed

    def doubt(self) -> None:
        """The bucket was gone: make sure at the next `refresh`."""
        self._beat = 0.0

    def release(self) -> None:
        """Give it back; nothing where it is another's, or was never taken."""
        if self._version is not None:
            with suppress(ConflictError):
                self._write(None, self._version)

    def _is_alive(self, held: _Held) -> bool:
        """Whether somebody holds it, as far as one can know."""
        if held.says["token"] is None:
            return False
        if held.says["machine"] == machine():
            return bool(started(held.says["pid"]) == held.says.get("started"))
        objects.put(self.address, f"{self.name}-clock", io.BytesIO(b"-"))  # the bucket's own clock
        now, beat = (objects.time_of(self.address, name) for name in (f"{self.name}-clock", self.name))
        return now is not None and beat is not None and now - beat < STALE_S

    def _read(self) -> _Held | None:
        found = objects.read_version(self.address, self.name)
        if found is None:
            return None
        if not found[0]:
            return _Held({"token": None}, found[1])
        fix = "where no driver is running, remove it from the bucket"
        shape = {"token?": str, "host": str, "pid": int, "machine": str}
        return _Held(parse_json(found[0], f"{self.address.uri}/{self.name}", fix=fix, shape=shape), found[1])

    def _write(self, token: str | None, before: Stat | None) -> None:
        pid = os.getpid()
        self._beats += 1  # no two contents are alike, so that no two versions are
        says = {
            "token": token,
            "host": socket.gethostname(),
            "pid": pid,
            "started": started(pid),
            "machine": machine(),
            "beat": f"{self.token} {self._beats}",
        }
        content = json.dumps(says).encode()
        try:
            self._version = objects.put_over(self.address, self.name, content, before)
        except NoConditionsError:
            objects.without_conditions(self.address)
            self._version = objects.put_over(self.address, self.name, content, before)
        self._beat = time.monotonic()

    def _probe(self, log: Callable[[str], None]) -> None:
        """Say so where the server does not know conditional writes: it lets us make what is there already."""
        if objects.has_conditions(self.address):
            try:
                self._write(self.token, None)
            except ConflictError:
                return
            objects.without_conditions(self.address)
        log(
            f"{self.address.endpoint or self.address.uri} does not know conditional writes (If-None-Match, If-Match), "
            "so that two drivers of one study that begin in the same second are not kept apart; start one at a time"
        )


def _who(held: _Held) -> str:
    return f"process {held.says['pid']} of {held.says['host']}"
