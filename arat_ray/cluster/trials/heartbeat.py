"""Signs of life of a trial's workers, through the key-value store that each Ray cluster has.

No message of a trial could do it: those of several workers arrive only when all of them have sent one.
"""

from __future__ import annotations

import json
import math
import os
import time
from typing import NamedTuple

import ray

from arat_ray.cluster import ray_internals

NAMESPACE = "arat-ray"
EVERY_S = 10.0


class Beat(NamedTuple):
    """What a worker said last: how often it did so (0: it has begun), where it runs, and what keeps its run from being
    saved."""

    times: int
    node: str
    pid: int
    trouble: str | None


class Heart:
    """In a worker: call it at every step, and it is heard from every `every_s` seconds, or when its trouble changes."""

    def __init__(self, study: str, number: int, rank: int, *, every_s: float) -> None:
        self.key, self.every_s = f"{_of(study, number)}{rank}", every_s
        self.node, self.times = ray.get_runtime_context().get_node_id(), 0
        self.trouble: str | None = None
        self.at = -math.inf
        self._beat()

    def __call__(self, trouble: str | None) -> None:
        now = time.monotonic()
        if now - self.at < self.every_s and trouble == self.trouble:
            return
        self.at, self.trouble, self.times = now, trouble, self.times + 1
        self._beat()

    def _beat(self) -> None:
        beat = Beat(self.times, self.node, os.getpid(), self.trouble)
        ray_internals.put(self.key, json.dumps(beat), namespace=NAMESPACE)


def beats(study: str, number: int) -> list[Beat]:
    """The last ones of a trial's workers."""
    return [Beat(*json.loads(value)) for value in ray_internals.values(_of(study, number), namespace=NAMESPACE)]


def forget(study: str, number: int) -> None:
    """The workers of this attempt are gone."""
    ray_internals.delete(_of(study, number), namespace=NAMESPACE)


def _of(study: str, number: int) -> str:
    return f"{study}/{number}/"
