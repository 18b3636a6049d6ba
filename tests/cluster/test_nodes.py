"""Which trials a cluster can place, counted by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest

from arat_ray.cluster import ENVIRONMENT, ray_internals
from arat_ray.cluster.nodes import cluster, placeable, variables
from arat_ray.experiment.spec import Resources


@pytest.mark.parametrize(
    ("resources", "nodes", "trials"),
    [
        ({}, [{"CPU": 2}], 2),
        ({"cpus_per_worker": 2}, [{"CPU": 3}, {"CPU": 4}], 3),
        ({"cpus_per_worker": 0.5}, [{"CPU": 1}], 2),
        ({"gpus_per_worker": 0.25, "cpus_per_worker": 1}, [{"CPU": 8, "GPU": 1}], 4),
        ({"gpus_per_worker": 0.3, "cpus_per_worker": 1}, [{"CPU": 8, "GPU": 1}], 3),
        ({"gpus_per_worker": 1, "cpus_per_worker": 8}, [{"CPU": 4, "GPU": 8}], 0),
        ({"workers": 2, "gpus_per_worker": 1}, [{"CPU": 8, "GPU": 1}, {"CPU": 8, "GPU": 2}], 1),
        ({"workers": 4, "gpus_per_worker": 1}, [{"CPU": 8, "GPU": 1}, {"CPU": 8, "GPU": 2}], 0),
        ({"gpus_per_worker": 1}, [{"CPU": 64}], 0),
    ],
)
def test_trials_fit_as_their_workers_do(resources: dict[str, Any], nodes: list[dict[str, Any]], trials: int) -> None:
    assert placeable(Resources.model_validate(resources), nodes) == trials


@pytest.mark.parametrize("address", ["nonsense", "host:port", ":6379", "ray://"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="is no address of a Ray cluster"), cluster(address, verbose=False):
        pass


def test_workers_on_other_nodes_have_what_this_process_chose_and_nothing_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    given = variables()
    assert given.keys() >= ENVIRONMENT.keys()
    assert (given["OMP_WAIT_POLICY"], given["AWS_REGION"]) == ("active", "eu-north-1")
    job = {"runtime_env": {"env_vars": {"OMP_WAIT_POLICY": "passive"}}}
    monkeypatch.setenv(ray_internals.JOB_CONFIG_VARIABLE, json.dumps(job))
    assert variables() == {name: value for name, value in given.items() if name != "OMP_WAIT_POLICY"}
