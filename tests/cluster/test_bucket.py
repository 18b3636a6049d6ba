"""A study in a bucket on Ray: its driver is killed, its machine is lost, and it ends as if nothing had happened."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from arat_ray.cluster.trials.checkpoints import are_left
from arat_ray.results import reader
from arat_ray.storage import objects
from arat_ray.storage.address import Mirrored, mirror_of, parse, root
from arat_ray.storage.mirror import TABLES, Mirror
from tests.cluster.studies import (
    COMMAND,
    EXPERIMENT,
    WRITING_AT_ONCE,
    ray_processes,
    state_of,
    tune,
    wait_until,
    without_ray,
)
from tests.storage.conftest import Server, _server, address, server, there

__all__ = ["_server", "address", "server"]

pytestmark = pytest.mark.ray
TIMES = {"train_s", "device_s", "epoch_s", "attack_s", "images_per_s", "started_at", "ended_at", "peak_memory_gib"}


def rows(study: Path, table: str, key: tuple[str, ...]) -> dict[tuple[Any, ...], dict[str, Any]]:
    """The rows of a table by their key, without what differs from run to run."""
    found = reader.read(study, table).to_pylist()
    by_key = {tuple(row[name] for name in key): {k: v for k, v in row.items() if k not in TIMES} for row in found}
    assert len(by_key) == len(found)
    return by_key


def lose_machine() -> None:
    """What it had of the study is gone; a worker whose driver was killed lives on for a moment, and writes."""
    wait_until(lambda: not ray_processes(), 90, "Ray's processes to end")
    shutil.rmtree(root())


def epochs_there(study: Mirrored) -> int:
    """How many epochs the bucket knows, as another machine would see it; asked for not too often."""
    time.sleep(0.2)
    part = objects.read(parse(f"{study}"), "epochs/part-00000.parquet")
    if part is None:
        return 0
    import pyarrow as pa
    import pyarrow.parquet as pq

    return int(pq.ParquetFile(pa.BufferReader(part)).metadata.num_rows)


PUSHING_OFTEN = f"""
from arat_ray.storage.pushing import Pushing
Pushing.__init__.__kwdefaults__["every_s"] = 0.2  # seconds: then short trials are seen in the midst of their epochs
{WRITING_AT_ONCE}"""


def test_a_study_in_a_bucket_outlives_its_driver_and_its_machine(
    write: Callable[..., Path], address: str, server: Server
) -> None:
    train = EXPERIMENT["train"] | {"epochs": 8, "attack": EXPERIMENT["train"]["attack"] | {"steps": 10}}
    search = {"method.invariance_weight": {"choice": [0.5, 5.0]}}
    resources = EXPERIMENT["resources"] | {"concurrent_trials": 1}
    file = write(train=train, search=search, sampler={"name": "grid", "seed": 0}, budget={}, resources=resources)
    done = tune(file)
    assert done.returncode == 0, done.stderr
    undisturbed = file.parent / "results" / "small"
    results = address.removesuffix("/small")
    study = mirror_of(parse(address))

    command = [sys.executable, "-c", PUSHING_OFTEN, "tune", str(file), "--results", results]
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: epochs_there(study) >= 10, 240, "epochs in the bucket")
    finally:
        driver.kill()
        driver.wait()
    reported = epochs_there(study)
    assert 10 <= reported < 16
    lose_machine()

    refused = without_ray("tune", str(file), "--results", results)
    assert refused.returncode == 2
    assert f"{address} holds an interrupted study; go on with --resume" in refused.stderr
    lose_machine()
    another = [*COMMAND, "tune", str(file), "--results", results, "--resume"]
    resumed = subprocess.run(another, capture_output=True, text=True, timeout=300, check=False)
    assert resumed.returncode == 0, resumed.stderr + resumed.stdout
    assert f"drew {address}/front.png" in resumed.stdout
    assert str(root()) not in resumed.stdout + resumed.stderr

    lose_machine()
    front = without_ray("pareto", address, "--json")
    assert front.returncode == 0, front.stderr
    shown = json.loads(front.stdout)
    expected = json.loads(without_ray("pareto", str(undisturbed), "--json").stdout)
    assert shown["hypervolume"] == expected["hypervolume"]
    assert {trial["study"] for trial in shown["trials"]} == {address}
    Mirror(study).pull(TABLES)
    for table, key in (("trials", ("trial_id", "attempt")), ("epochs", ("trial_id", "attempt", "epoch"))):
        assert rows(study, table, key) == rows(undisturbed, table, key)
    names = set(there(study))
    assert {f"checkpoints/small-0000{number}/{name}.pt" for number in range(2) for name in ("last", "best")} <= names
    assert not [name for name in names if name.startswith("ray/")]
    assert {trial.phase for trial in state_of(study).trials.values()} == {"complete"}
    assert not are_left(study)
