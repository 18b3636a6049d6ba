"""How many workers a trial gets: all that it wants, or fewer for a while where `resources.min_workers` allows it.

Ray Train has an elasticity of its own, which knows nothing of batches that must be shared out equally and resizes
within a run, whose failures Tune would not count. Here the number is settled whenever workers come together: when a
trial starts, starts again, or when the next one finds a worker group that is smaller than it could be.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from arat_ray.cluster import autoscaler
from arat_ray.cluster.nodes import per_worker
from arat_ray.experiment.spec import Resources

PATIENCE_S = 30.0
"""How long all workers are waited for before fewer do."""
AGAIN_S = 10.0
"""How long they are waited for in each further round, when there were not even few."""
LOOK_S = 2.0
"""How long Ray may take to find room that is there."""

Room = Callable[[int, float], bool]


def settle(resources: Resources, batch_size: int, *, room: Room | None = None) -> int:
    """The number of workers to start now. Waits as long as there is no room for the fewest; the watchdog tells of it.

    `room(n, seconds)`: whether there is room for n workers at once within so many seconds.
    """
    bundle = per_worker(resources)
    room = room or (lambda n, seconds: autoscaler.wake([bundle] * n, limit_s=seconds))
    most, *fewer = resources.counts(batch_size)
    if not fewer:
        return most
    patience = PATIENCE_S
    while True:
        if room(most, patience):
            return most
        for count in fewer:
            if room(count, LOOK_S):
                return count
        patience = AGAIN_S
        time.sleep(LOOK_S)


def could_grow(resources: Resources, batch_size: int, *, workers: int, room: Room | None = None) -> bool:
    """Whether a worker group of so many workers could be replaced by one of all: there is room for those it lacks."""
    bundle = per_worker(resources)
    room = room or (lambda n, seconds: autoscaler.wake([bundle] * n, limit_s=seconds))
    missing = resources.counts(batch_size)[0] - workers
    return missing > 0 and room(missing, LOOK_S)
