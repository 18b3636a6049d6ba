"""A study does not wait in silence: workers that hang are killed and replaced, and what it waits for is told.

A worker says at every step that it is alive. A process that was stopped, a collective whose other end is gone and a
disk that does not answer have in common that nothing more is heard.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import ray

from arat_ray.cluster.node_affinity import task_on
from arat_ray.cluster.trials import heartbeat
from arat_ray.cluster.trials.heartbeat import Beat
from arat_ray.cluster.trials.stranded import remove_stranded
from arat_ray.experiment.spec import Resources
from arat_ray.units import duration

SILENCE_S = 600.0
"""How long nothing may be heard of a trial, at least."""
LONGEST_STEPS = 10
"""And in how many of the longest steps that were heard of."""
WAIT_S = 120.0
"""When a trial that has not begun is first told of; then after twice that, and so on."""


@dataclass
class Watched:
    """A trial that was given to workers."""

    heard_at: float
    beats: list[Beat] = field(default_factory=list)
    trouble: str | None = None

    @property
    def is_at_work(self) -> bool:
        """Whether it got beyond its preparations: reading data, building the network."""
        return any(beat.times for beat in self.beats)


class Watchdog:
    """Told of each trial that starts and ends; `tick` looks after them, and after those that wait for room."""

    def __init__(
        self,
        study: str,
        resources: Resources,
        *,
        log: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        read: Callable[[str, int], list[Beat]] = heartbeat.beats,
        kill: Callable[[Iterable[Beat]], None] | None = None,
        make_room: Callable[[], None] = remove_stranded,
    ) -> None:
        self.study, self.resources, self.log = study, resources, log
        self._clock, self._read, self._kill, self._make_room = clock, read, kill or kill_workers, make_room
        self._watched: dict[int, Watched] = {}
        self._killed: dict[int, str] = {}
        self._longest = 0.0
        self._ticked_at = clock()
        self._waits_since: float | None = None
        self._tell_after = WAIT_S

    @property
    def limit_s(self) -> float:
        """How long nothing may be heard of a trial: what the file says, or what the steps seen so far suggest."""
        if self.resources.timeout_minutes is not None:
            return 60 * self.resources.timeout_minutes
        return max(SILENCE_S, LONGEST_STEPS * self._longest)

    @property
    def every_s(self) -> float:
        """How often to look."""
        return min(5.0, self.limit_s / 4)

    def start(self, number: int) -> None:
        self._watched[number] = Watched(self._clock())
        self._killed.pop(number, None)

    def end(self, number: int) -> str | None:
        """The trial is not at its workers any more; why, if that was because they were killed here."""
        self._watched.pop(number, None)
        heartbeat.forget(self.study, number)
        return self._killed.pop(number, None)

    def tick(self, pending: Callable[[], list[int]], *, room: int) -> None:
        """Call often. `pending` are trials that have no workers yet, though there was room for `room` at a time."""
        now = self._clock()
        if (away := now - self._ticked_at) < self.every_s:
            return
        self._ticked_at = now
        waiting = pending() if len(self._watched) < room else []
        for number, watched in self._watched.items():
            if away > 2 * self.every_s:
                watched.heard_at += away  # it is this process that was busy, or stopped
            self._listen(number, watched, now)
            limit_s = self.limit_s if watched.is_at_work else max(SILENCE_S, self.limit_s)
            if not watched.beats:
                waiting.append(number)
            elif now - watched.heard_at > limit_s:
                self._put_down(number, watched, now)
        if waiting:
            self._make_room()
        self._tell_of(waiting, now)

    def _listen(self, number: int, watched: Watched, now: float) -> None:
        beats = self._read(self.study, number)
        if beats == watched.beats:
            return
        if watched.is_at_work:
            self._longest = max(self._longest, now - watched.heard_at)
        watched.heard_at, watched.beats = now, beats
        trouble = next((beat.trouble for beat in beats if beat.trouble), None)
        if trouble != watched.trouble:
            self.log(f"trial {number}: {trouble or 'its checkpoint is written again'}")
        watched.trouble = trouble

    def _put_down(self, number: int, watched: Watched, now: float) -> None:
        reason = f"nothing was heard of it for {duration(now - watched.heard_at)}"
        self.log(f"trial {number}: {reason}; its workers are killed, and it goes on from its last checkpoint")
        self._killed[number] = f"stalled: {reason}, so its workers were killed"
        self._kill(watched.beats)
        watched.heard_at = now

    def _tell_of(self, waiting: Sequence[int], now: float) -> None:
        if not waiting:
            self._waits_since, self._tell_after = None, WAIT_S
            return
        self._waits_since = self._waits_since or now
        if now - self._waits_since >= self._tell_after:
            self._tell_after *= 2
            numbers = ", ".join(map(str, sorted(waiting)))
            self.log(f"trial {numbers}: waiting since {duration(now - self._waits_since)} for {wanted(self.resources)}")


def wanted(resources: Resources) -> str:
    """What a trial waits for, and what the cluster has."""
    nodes = ray.nodes()
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    there = "; ".join(f"{node.get('CPU', 0):g} CPU, {node.get('GPU', 0):g} GPU" for node in alive)
    lost = len(nodes) - len(alive)
    return (
        f"{resources.workers} worker(s) with {resources.cpus_per_worker:g} CPU and {resources.gpus_per_worker:g} GPU; "
        f"the cluster has {len(alive)} node(s) ({there})" + (f" and has lost {lost}" if lost else "")
    )


def kill_workers(workers: Iterable[Beat]) -> None:
    """End these processes, stopped ones too, each by a task on its node; Ray replaces them."""
    for beat in workers:
        task_on(beat.node, _kill, beat.pid)


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
