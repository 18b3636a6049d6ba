"""Actors that train one trial after another: which are kept, and what becomes of one that is lost between two."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from arat_ray.cluster.trials.actors import IdleActors
from arat_ray.results import reader
from tests.cluster.studies import EXPERIMENT, tune_words

TRIALS = 16

LOSING_ONE = """
import sys, time
from contextlib import contextmanager
from pathlib import Path
from arat_ray.cluster import fork_server

become, started = fork_server._become, fork_server.started

def slowly(request, files):
    with Path({starts!r}).open("a") as starts:
        starts.write("a worker\\n")
    time.sleep(2)  # several trials long
    become(request, files)

@contextmanager
def losing_one(*arguments, **options):
    with started(*arguments, **options):
        import ray
        from arat_ray.cluster.trials import actors

        class Losing(actors.KeepingController):
            lost = []

            def _schedule_trial_reset(self, trial, *more):
                if not self.lost and trial.config["number"] >= 4:
                    self.lost.append(trial)
                    ray.kill(trial.temporary_state.ray_actor)
                super()._schedule_trial_reset(trial, *more)

        actors.KeepingController = Losing
        yield

fork_server._become, fork_server.started = slowly, losing_one
from arat_ray.cli import main
main()
"""


def test_idle_actors_are_kept_until_the_search_is_over() -> None:
    idle = IdleActors()
    assert not idle.has_cached_object("room")
    assert idle.pop_cached_object("room") is None
    for actor in "abc":
        assert idle.cache_object("room", actor), "though no trial waits for it"
    assert idle.cache_object("other room", "d")
    assert list(idle.flush_cached_objects()) == []
    assert (idle.num_cached_objects, idle.pop_cached_object("room")) == (4, "a")
    idle.forget("c")
    assert list(idle.flush_cached_objects(force_all=True)) == ["b", "d"]
    assert (idle.num_cached_objects, idle.has_cached_object("room")) == (0, False)


def test_waiting_trials_are_counted() -> None:
    idle = IdleActors()
    idle.increase_max("room")
    idle.increase_max("other room", by=2)
    idle.decrease_max("room")
    assert idle.total_max_objects == 2


@pytest.mark.ray
def test_an_actor_that_is_lost_between_two_trials_costs_no_trial_and_is_begun_once(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    starts = tmp_path / "starts"
    file = write(train=EXPERIMENT["train"] | {"epochs": 1}, budget={"trials": TRIALS})
    program = LOSING_ONE.format(starts=str(starts))
    command = [sys.executable, "-c", program, *tune_words(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    trials = reader.read(file.parent / "results" / "small", "trials").to_pylist()
    *others, lost = sorted(trials, key=lambda row: row["status"])
    assert (lost["status"], lost["attempt"]) == ("failed", 1)
    assert "its worker was lost" in lost["error"]
    assert {row["number"] for row in others} == set(range(TRIALS))
    assert {row["status"] for row in others} == {"complete"}
    assert starts.read_text().splitlines() == ["a worker"] * 3
