"""Trial queue: the actor between a Tune actor and its worker group, with a trial one way and its messages the other."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, NamedTuple

Message = dict[str, Any]


class QueuedTrial(NamedTuple):
    """A trial in the queue; without a configuration it is the word that there will be none."""

    number: int
    config: Any


class TrialQueue:
    """The trial that the workers of a group are to train, and their messages about it. An actor."""

    def __init__(self) -> None:
        self.trial: QueuedTrial | None = None
        self.ended = 0
        self.outbox: deque[Message | None] = deque()
        self.changed = asyncio.Condition()

    async def put(self, config: Any) -> None:
        """The next trial; whatever was left of the one before is dropped."""
        async with self.changed:
            self.trial = QueuedTrial(self.trial.number + 1 if self.trial else 1, config)
            self.outbox.clear()
            self.changed.notify_all()

    async def get(self) -> QueuedTrial:
        """The next trial, as soon as there is one."""
        async with self.changed:
            await self.changed.wait_for(lambda: self.trial is not None and self.trial.number > self.ended)
            assert self.trial is not None
            return self.trial

    async def send(self, number: int, message: Message) -> None:
        async with self.changed:
            if self.trial is not None and self.trial.number == number:
                self._send(message)

    async def end(self, number: int, message: Message | None = None) -> None:
        """The trial has ended, with a last message or without."""
        async with self.changed:
            self._end(number, message)

    async def receive(self) -> Message | None:
        """The next message about the present trial; None after the last one."""
        async with self.changed:
            await self.changed.wait_for(lambda: bool(self.outbox))
            return self.outbox.popleft()

    def _send(self, message: Message | None) -> None:
        self.outbox.append(message)
        self.changed.notify_all()

    def _end(self, number: int, message: Message | None) -> None:
        if self.trial is None or self.trial.number != number or self.ended >= number:
            return
        self.ended = number
        if message is not None:
            self._send(message)
        self._send(None)
