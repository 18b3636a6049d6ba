"""The doctor on a cluster of two nodes, and what it makes of two nodes that differ."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest

from arat_ray.cluster.doctor import probes
from arat_ray.cluster.doctor.examine import check_data, check_gpus, check_gradients, check_storage, check_versions
from arat_ray.cluster.doctor.on_all_nodes import Trouble
from arat_ray.training.rehearsal import Rehearsal
from tests.cluster import nodes
from tests.cluster.studies import COMMAND, EXPERIMENT
from tests.storage.conftest import _server, address, server

__all__ = ["_server", "address", "server"]

Write = Callable[..., Path]


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)


@pytest.mark.ray
def test_a_sound_cluster_passes_and_results_that_cannot_be_written_are_found(write: Write, address: str) -> None:
    """Its results go to a bucket, and a trial wants more workers than there are, but can do with two."""
    resources = {"workers": 4, "min_workers": 2, "cpus_per_worker": 1, "price": {"usd_per_device_hour": 2}}
    file = write(resources=resources, train=EXPERIMENT["train"] | {"sync_batch_norm": True})
    with nodes.started(1, 1) as cluster:
        doctor = [*COMMAND, "doctor", "--address", cluster.address, "--timeout", "300", "--json"]
        sound = run([*doctor, str(file), "--results", address])
        ill = run([*doctor, "--results", str(file / "below-a-file")])
    assert sound.returncode == 0, sound.stdout + sound.stderr
    checks = {check["name"]: check for check in json.loads(sound.stdout)}
    assert {name: check["status"] for name, check in checks.items()} == dict.fromkeys(
        ("versions", "gpus", "storage", "data", "placement", "collective", "gradients", "step", "forecast"), "ok"
    )
    assert checks["versions"]["seen"].startswith("2 node(s): python 3.")
    assert checks["data"]["seen"].startswith("1437 training images, the same on every node")
    assert checks["collective"]["seen"].startswith("gloo over ")
    assert "equal to one worker's, up to rounding" in checks["gradients"]["seen"]
    assert "ms a training step of 64 images on cpu" in checks["step"]["seen"]
    assert "usd" in checks["forecast"]["seen"]
    assert checks["placement"]["seen"] == "1 trial(s) at once, with 2 of its 4 workers"
    assert everything_in(address) == [], "nothing stays behind"

    assert ill.returncode == 1
    assert "Traceback" not in ill.stderr
    found = {check["name"]: check for check in json.loads(ill.stdout)}
    assert [name for name, check in found.items() if check["status"] == "failed"] == ["storage"]
    assert found["storage"]["seen"].count("Not a directory") == 2, "on both nodes"
    assert "give --results a folder that all nodes share" in found["storage"]["todo"]
    assert found["gradients"]["status"] == "skipped"


def test_another_version_on_one_node_is_named_with_its_nodes() -> None:
    here: dict[str, Any] = probes.versions_probe()("a")
    assert check_versions({"a": here, "b": dict(here)}).status == "ok"
    check = check_versions({"a": here, "b": here | {"torch": "1.0"}, "c": dict(here)})
    assert (check.status, check.seen) == ("failed", f"torch: {here['torch']} on a c, 1.0 on b")
    check = check_versions({"a": here | {"driver": None}, "b": here | {"driver": "570.1"}})
    assert check.status == "ok", "a head without a GPU has no driver"
    check = check_versions({"a": here, "b": here | {"arat-ray": "missing"}})
    assert (check.status, "missing on b" in check.seen) == ("failed", True)
    check = check_versions({"a": here, "b": Trouble("no answer within 3 s")})
    assert (check.status, check.seen) == ("failed", "b: no answer within 3 s")


def everything_in(address: str) -> list[str]:
    """The keys in a bucket."""
    bucket = address.removeprefix("s3://").partition("/")[0]
    client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    return [each["Key"] for each in client.list_objects_v2(Bucket=bucket).get("Contents", [])]


def test_a_bucket_is_written_to_by_every_node_and_left_as_it_was(address: str) -> None:
    folder = f"{address}/.doctor-1"
    for node in "ab":
        probes.leave_a_file(node, folder, "said")
    seen = {node: probes.files_left(node, folder) for node in "ab"}
    assert check_storage("r", {"a": None, "b": None}, seen, "said").status == "ok"
    probes.remove(folder)
    assert everything_in(address) == []
    with pytest.raises(OSError, match="there is no bucket 'no-such-bucket'"):
        probes.leave_a_file("a", "s3://no-such-bucket/results", "said")


def test_folders_that_only_look_the_same_on_each_node_are_found(tmp_path: Path) -> None:
    shared, apart = str(tmp_path / "shared"), str(tmp_path / "apart")
    for node in "ab":
        probes.leave_a_file(node, shared, "said")
    probes.leave_a_file("b", apart, "said")
    written = {"a": None, "b": None}
    seen = {node: probes.files_left(node, shared) for node in "ab"}
    assert check_storage("r", written, seen, "said").status == "ok"
    check = check_storage(
        "r", written, {"a": probes.files_left("a", shared), "b": probes.files_left("b", apart)}, "said"
    )
    assert (check.status, check.seen) == ("failed", "r: b does not see what a wrote")
    probes.remove(shared)
    assert not Path(shared).exists()


def test_other_images_on_one_node_are_found() -> None:
    train = EXPERIMENT["train"]
    fewer = train | {"dataset": {"name": "digits", "images": 100}}
    a, b, c = probes.data_set("a", train), probes.data_set("b", train), probes.data_set("c", fewer)
    assert check_data({"a": a, "b": b}).seen.startswith("1437 training images, the same on every node")
    check = check_data({"a": a, "c": c})
    assert check.status == "failed"
    assert f"a: 1437 images {a['fingerprint']}, c: 100 images {c['fingerprint']}" in check.seen


def test_gpus_that_torch_does_not_see_are_found() -> None:
    seen = probes.gpus("a")
    assert check_gpus({"a": seen}, {"a": len(seen)}).status == "ok"
    check = check_gpus({"a": seen}, {"a": len(seen) + 1})
    assert (check.status, f"a: Ray gives out {len(seen) + 1} GPU(s)" in check.seen) == ("failed", True)


@pytest.mark.parametrize(
    ("batch_norm", "synchronized", "from_whole", "from_shares", "status", "said"),
    [
        (True, True, 1e-6, 0.3, "ok", "equal to one worker's, up to rounding"),
        (False, False, 1e-6, 1e-6, "ok", "equal to one worker's, up to rounding"),
        (True, False, 0.3, 1e-6, "ok", "by design: plain batch norm"),
        (True, False, 0.3, 0.2, "failed", "off by 2.0e-01"),
        (True, True, 0.3, 1e-6, "failed", "off by 3.0e-01"),
        (False, False, float("nan"), 1e-6, "failed", "off by nan"),
    ],
)
def test_workers_may_differ_from_one_by_plain_batch_norm_alone(
    batch_norm: bool, synchronized: bool, from_whole: float, from_shares: float, status: str, said: str
) -> None:
    measured = Rehearsal(0.1, 5, batch_norm, from_whole, from_shares)._asdict()
    check = check_gradients(measured, synchronized=synchronized)
    assert (check.status, said in check.seen) == (status, True)
