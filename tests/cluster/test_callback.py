"""Why a worker was lost, in the one line of Ray's account of it that says so."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.exceptions import ActorUnavailableError, OutOfMemoryError, RayError

from arat_ray.cluster.callback import reason

MEMORY = """Task was killed due to the node running low on memory.
1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 192.0.2.2) was 10.29GB used
Considered workers: [
]
To adjust the kill threshold, set the environment variable `RAY_memory_usage_threshold` when starting Ray.
"""


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (OutOfMemoryError(MEMORY), "Task was killed due to the node running low on memory."),
        (ActorUnavailableError("RPC error: Socket closed", None), "its worker was lost: The actor "),
    ],
)
def test_a_lost_worker_has_its_reason_in_one_line(error: RayError, why: str, tmp_path: Path) -> None:
    path = tmp_path / "error.pkl"
    path.write_bytes(pickle.dumps(error))
    found = reason(SimpleNamespace(pickled_error_file=str(path), error_file=None))
    assert found.startswith(why)
    assert "\n" not in found


def test_an_error_of_which_there_is_only_the_text_is_its_last_line(tmp_path: Path) -> None:
    path = tmp_path / "error.txt"
    path.write_text("Traceback\n  somewhere\nTuneError: it broke\n\n")
    assert reason(SimpleNamespace(pickled_error_file=None, error_file=str(path))) == "TuneError: it broke"
