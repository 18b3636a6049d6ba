"""Actors of trials: each trains one trial after another for as long as the search asks for trials.

Ray Tune keeps an actor whose trial has ended only if another trial waits for one at that moment, and a trial that waits
for an actor to start gives it up for any other that becomes free. So where trials end sooner than a process starts, an
actor that is gone never comes back: it is begun again and again. Here those that are free are kept, and one that
starts is of use when it is there.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import partial
from typing import Any

from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial

Actor = Any
"""Ray's `TrackedActor`."""
Room = Any
"""The resources that an actor holds: Tune's `PlacementGroupFactory`."""


class IdleActors:
    """Actors without a trial, by the room that they take, under the names of Tune's own cache.

    How many trials wait for an actor is counted, as Tune asks for it, and limits nothing.
    """

    def __init__(self) -> None:
        self._idle = defaultdict[Room, list[Actor]](list)
        self._waiting = Counter[Room]()

    @property
    def num_cached_objects(self) -> int:
        return sum(map(len, self._idle.values()))

    @property
    def total_max_objects(self) -> int:
        return self._waiting.total()

    def increase_max(self, key: Room, by: int = 1) -> None:
        self._waiting[key] += by

    def decrease_max(self, key: Room, by: int = 1) -> None:
        self._waiting[key] -= by

    def has_cached_object(self, key: Room) -> bool:
        return bool(self._idle[key])

    def cache_object(self, key: Room, obj: Actor) -> bool:
        self._idle[key].append(obj)
        return True

    def pop_cached_object(self, key: Room) -> Actor | None:
        return self._idle[key].pop(0) if self._idle[key] else None

    def flush_cached_objects(self, force_all: bool = False) -> Iterator[Actor]:
        """Those that have to go: none before the search is over, when all do."""
        for actors in self._idle.values():
            while force_all and actors:
                yield actors.pop(0)

    def forget(self, actor: Actor) -> None:
        for actors in self._idle.values():
            if actor in actors:
                actors.remove(actor)


class KeepingController(TuneController):
    """Tune's controller with actors that are kept."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._actor_cache = IdleActors()
        self._unclaimed = set[Actor]()
        """Actors that start, and whose trial has got another one in the meantime."""

    def _maybe_reuse_cached_actor(self, trial: Any) -> bool:
        room, own = trial.placement_group_factory, self._trial_to_actor.get(trial)
        starts = own is not None and self._actor_manager.is_actor_started(own) and own not in self._started_actors
        if starts and trial not in self._resetting_trials and self._actor_cache.has_cached_object(room):
            del self._trial_to_actor[trial], self._actor_to_trial[own]
            self._unclaimed.add(own)
            own._on_start = partial(self._unclaimed_started, room)
        return bool(super()._maybe_reuse_cached_actor(trial))

    def _unclaimed_started(self, room: Room, actor: Actor) -> None:
        self._unclaimed.discard(actor)
        self._started_actors.add(actor)
        self._actor_cache.cache_object(room, actor)

    def _actor_failed(self, tracked_actor: Actor, exception: Exception) -> None:
        trial = self._actor_to_trial.get(tracked_actor)
        if trial is not None and trial not in self._resetting_trials:
            super()._actor_failed(tracked_actor, exception)
            return
        if trial is not None:  # its reset fails as well, and says so: told twice, Tune would give the trial up
            self._resetting_trials.discard(trial)
            self._set_trial_status(trial, Trial.RUNNING)
            self._unstage_trial_with_resources(trial)
        self._unclaimed.discard(tracked_actor)
        self._actor_cache.forget(tracked_actor)
        self._actor_manager.clear_actor_task_futures(tracked_actor)
        tracked_actor.set_on_stop(None)
        tracked_actor.set_on_error(None)
        self._actor_manager.remove_actor(tracked_actor, kill=False)
        self._actor_stopped(tracked_actor)

    def _cleanup_trials(self) -> None:
        for actor in self._unclaimed:
            actor._on_start = None
            self._remove_actor(actor)
        self._unclaimed.clear()
        super()._cleanup_trials()
