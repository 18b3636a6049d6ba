"""What an autoscaler may add, counted by hand, and its configuration found where its process says."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from arat_ray.cluster.autoscaler import addable, configuration
from arat_ray.cluster.nodes import placeable, slots
from arat_ray.experiment.spec import Resources
from tests.cluster.studies import wait_until

ROOT = Path(__file__).parents[2]


def holds(**resources: Any) -> Callable[[dict[str, float]], int]:
    return functools.partial(slots, Resources.model_validate(resources))


def config(max_workers: int, **types: dict[str, Any]) -> dict[str, Any]:
    head = {"resources": {"CPU": 64, "GPU": 8}}
    return {"max_workers": max_workers, "head_node_type": "head", "available_node_types": {"head": head, **types}}


def test_workers_are_counted_up_to_both_limits_and_the_head_is_none() -> None:
    small, large = {"resources": {"CPU": 4}, "max_workers": 10}, {"resources": {"CPU": 8}, "max_workers": 2}
    assert addable(config(3, small=small, large=large), holds()) == [{"CPU": 8}, {"CPU": 8}, {"CPU": 4}]
    assert addable(config(3, small=small | {"max_workers": 1}), holds()) == [{"CPU": 4}]
    assert addable(config(2, unlimited={"resources": {"GPU": 1}}), holds(gpus_per_worker=1)) == [{"GPU": 1}] * 2
    assert addable(config(0, small=small), holds()) == []
    assert (
        addable({**config(0, small=small), "max_workers": 5, "head_node_type": "small"}, holds())
        == [{"CPU": 64, "GPU": 8}] * 5
    )


@pytest.mark.parametrize("name", ["aws", "gcp", "azure"])
def test_a_cluster_without_any_worker_yet_holds_as_many_trials_as_its_file_allows(name: str) -> None:
    cluster = yaml.safe_load((ROOT / "clusters" / f"{name}.yaml").read_text())
    resources = Resources(gpus_per_worker=1, cpus_per_worker=4)
    assert placeable(resources, addable(cluster, functools.partial(slots, resources))) == cluster["max_workers"] == 8


def test_the_configuration_is_the_one_of_this_cluster(tmp_path: Path) -> None:
    for port in (1, 2):
        (tmp_path / f"{port}.yaml").write_text(yaml.safe_dump(config(port)))
    command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    running = [
        subprocess.Popen(
            [*command, f"--gcs-address=127.0.0.1:{port}", f"--autoscaling-config={tmp_path}/{port}.yaml"],
            stdin=subprocess.PIPE,
        )
        for port in (1, 2)
    ]
    try:
        wait_until(lambda: configuration("127.0.0.1:2") is not None, 60, "the process to have its command line")
        found = configuration("127.0.0.1:2")
        assert found is not None
        assert found["max_workers"] == 2
        assert configuration("127.0.0.1:3") is None
    finally:
        for each in running:
            each.communicate()
