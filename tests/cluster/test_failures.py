"""Faults that are really injected into studies on Ray, and what becomes of their trials."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from arat_ray.cluster.ray_internals import psutil
from arat_ray.exit_codes import RAY_GONE
from arat_ray.results import reader
from tests.cluster import nodes
from tests.cluster.nodes import Nodes
from tests.cluster.studies import EXPERIMENT, ray_processes, tune_command, wait_until

pytestmark = pytest.mark.ray
Write = Callable[..., Path]
SLOW = EXPERIMENT["train"] | {"attack": EXPERIMENT["train"]["attack"] | {"steps": 10}}


def rows(file: Path, table: str) -> list[dict[str, Any]]:
    study = file.parent / "results" / "small"
    return list(reader.read(study, table).to_pylist()) if reader.part_files(study / table) else []


def start(file: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(tune_command(file, *options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def workers(name: bytes) -> list[int]:
    return [pid for pid in ray_processes() if name in Path(f"/proc/{pid}/cmdline").read_bytes()]


def assert_goes_on(file: Path, *whys: str, epochs: int) -> None:
    """Lost attempts, then a complete one; nothing is trained again that was checkpointed."""
    *lost, done = sorted(rows(file, "trials"), key=lambda row: row["attempt"])
    assert [(row["attempt"], row["status"]) for row in lost] == [(n, "failed") for n in range(1, len(whys) + 1)]
    for row, why in zip(lost, whys, strict=True):
        assert why in row["error"]
    assert (done["attempt"], done["status"], done["epochs_done"]) == (len(whys) + 1, "complete", epochs)
    attempts = {row["epoch"]: row["attempt"] for row in rows(file, "epochs")}
    assert len(rows(file, "epochs")) == epochs
    assert list(attempts) == list(range(1, epochs + 1))
    assert (attempts[1], attempts[epochs]) == (1, len(whys) + 1)


def has_epoch_of(attempt: int, file: Path) -> bool:
    return any(row["attempt"] == attempt for row in rows(file, "epochs"))


def test_a_trial_goes_on_when_its_worker_dies_and_when_it_stops(write: Write) -> None:
    resources = {"cpus_per_worker": 1, "timeout_minutes": 0.3}
    file = write(train=SLOW | {"epochs": 12}, resources=resources, budget={"trials": 1})
    driver = start(file)
    wait_until(lambda: len(rows(file, "epochs")) >= 2, 240, "some epochs")
    priorities = {os.getpriority(os.PRIO_PROCESS, pid) for pid in [driver.pid, *workers(b"ImplicitFunc")]}
    assert len(priorities) == 1, "a trial gives no way to the other programs of the machine"
    for attempt, blow in ((1, signal.SIGKILL), (2, signal.SIGSTOP)):
        wait_until(partial(has_epoch_of, attempt, file), 240, "an epoch of the attempt")
        (worker,) = workers(b"ImplicitFunc")
        os.kill(worker, blow)
    stdout, stderr = driver.communicate(timeout=300)
    assert driver.returncode == 0, stdout + stderr
    assert "trial 0: nothing was heard of it for" in stdout
    assert_goes_on(file, "its worker was lost", "stalled: nothing was heard of it for", epochs=12)


def test_a_trial_goes_on_when_one_of_its_two_workers_stops(write: Write) -> None:
    resources = {"workers": 2, "cpus_per_worker": 1, "timeout_minutes": 0.3}
    steps = 2  # of the attack: two workers wait for each other at every layer
    train = SLOW | {"attack": SLOW["attack"] | {"steps": steps}, "epochs": 8}
    file = write(train=train, resources=resources, budget={"trials": 1})
    driver = start(file)
    wait_until(lambda: len(rows(file, "epochs")) >= 2, 240, "some epochs")
    group = workers(b"RayTrainWorker")
    priorities = {os.getpriority(os.PRIO_PROCESS, pid) for pid in [driver.pid, *group]}
    assert len(priorities) == 1, "a trial gives no way to the other programs of the machine"
    os.kill(group[0], signal.SIGSTOP)
    stdout, stderr = driver.communicate(timeout=300)
    assert driver.returncode == 0, stdout + stderr
    assert "trial 0: nothing was heard of it for" in stdout
    assert_goes_on(file, "stalled: nothing was heard of it for", epochs=8)


def test_a_study_whose_own_ray_has_ended_says_so_and_ends(write: Write) -> None:
    file = write(train=SLOW | {"epochs": 1000}, budget={"trials": 1})
    driver = start(file)
    wait_until(lambda: len(rows(file, "epochs")) >= 2, 240, "some epochs")
    (raylet,), (worker,) = workers(b"raylet/raylet"), workers(b"ImplicitFunc")
    (forker,) = (
        child.pid for child in psutil.Process(driver.pid).children() if child.pid == psutil.Process(worker).ppid()
    )
    os.kill(raylet, signal.SIGKILL)
    stdout, stderr = driver.communicate(timeout=300)
    assert driver.returncode == RAY_GONE, stdout + stderr
    wait_until(lambda: not {worker, forker} & set(psutil.pids()), 60, "the worker, no child of the raylet, to end")
    assert "Ray on this machine has ended: its raylet was ended by SIGKILL" in stdout + stderr
    assert "--resume" in stdout + stderr
    assert "Traceback" not in stdout + stderr
    latest = {row["trial_id"]: row["status"] for row in rows(file, "trials")}
    assert set(latest.values()) == {"stopped"}


@pytest.mark.parametrize("count", [1, 2], ids=["one worker", "two workers"])
def test_a_trial_that_has_no_memory_fails_at_once_and_the_others_run(write: Write, count: int) -> None:
    """One layer of its predictor would take 16 GiB, of 8 that each process may have."""
    method = EXPERIMENT["train"]["method"] | {"predictor": {"ratio": 64, "depth": 3}}
    resources = {"workers": count, "cpus_per_worker": 1, "concurrent_trials": 1}
    search = {"model.width": {"choice": [256, 2]}}
    train = EXPERIMENT["train"] | {"method": method, "epochs": 1}
    sampler = {"name": "grid", "seed": 0}
    file = write(train=train, search=search, resources=resources, sampler=sampler, budget={})

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (8 << 30, 8 << 30))

    command = tune_command(file)
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False, preexec_fn=limit)
    assert done.returncode == 0, done.stdout + done.stderr
    bad, good = sorted(rows(file, "trials"), key=lambda row: row["number"])
    assert (bad["status"], bad["attempt"], good["status"]) == ("failed", 1, "complete")
    assert "DefaultCPUAllocator: can't allocate memory" in bad["error"]
    assert bad["error"].endswith("(batch_size 64)")


@pytest.fixture
def cluster() -> Iterator[Nodes]:
    """A head that computes nothing and a node of one CPU, with workers and agents as on users' clusters."""
    with nodes.started(0, 1, workers="own") as found:
        yield found


def test_a_trial_whose_node_was_taken_away_waits_for_another_and_goes_on(write: Write, cluster: Nodes) -> None:
    file = write(train=SLOW | {"epochs": 12}, budget={"trials": 1}, resources={"cpus_per_worker": 1})
    driver = start(file, "--address", cluster.address)
    wait_until(lambda: len(rows(file, "epochs")) >= 2, 240, "some epochs")
    cluster.tell("lose")
    wait_until(lambda: len(rows(file, "trials")) == 2, 120, "the loss to be noticed")
    time.sleep(1)
    assert driver.poll() is None
    cluster.tell("add")
    stdout, stderr = driver.communicate(timeout=240)
    assert driver.returncode == 0, stdout + stderr
    joined = rf"^joined the Ray at {cluster.address}, session_\S+: 2 node\(s\), 1 CPU, 0 GPU$"
    assert re.search(joined, stderr, re.MULTILINE)
    assert workers(b"raylet/raylet"), "a cluster that is joined is left running"
    assert_goes_on(file, "its worker was lost", epochs=12)
