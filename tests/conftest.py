"""Three tests at a time: two lanes of those that start Ray, which mostly wait, beside the others, file by file.

The lanes come first: they take the longest. What a file shares is made once.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: two threads a process would wait for each other
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")  # before ray: as arat_ray.cluster has it
os.environ.setdefault("RAY_worker_niceness", "0")  # likewise, for the clusters that tests start themselves
os.environ["TERM"] = "xterm"  # rich takes a dumb terminal for one of 80 x 25, whatever a test says
os.environ["ARAT_RAY_TESTS"] = str(os.getpid())  # tells this process's Ray from others'
ROOT = Path(__file__).parents[1]
FIRST_LANE = {"test_study.py", "test_elastic.py", "test_preemption.py", "test_evaluate.py", "test_bucket.py"}
"""About half of the time of those that start Ray."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    lanes = lane_of_file()
    items.sort(key=lambda item: item.path not in lanes)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """xdist's own by file, but for the lanes; its `loadgroup` renames tests, which pytest 9.2 does not let it do."""
    from xdist.scheduler import LoadScopeScheduling

    lanes = lane_of_file()

    def lane_or_file(test: str) -> str:
        file = test.partition("::")[0]
        return lanes.get(ROOT / file, file)

    scheduling: Any = LoadScopeScheduling(config, log)
    scheduling._split_scope = lane_or_file
    return scheduling


def lane_of_file() -> dict[Path, str]:
    """The lane of each file with tests that start Ray."""
    files = [path for path in (ROOT / "tests").rglob("test_*.py") if "pytest.mark.ray" in path.read_text()]
    return {path: "Ray 1" if path.name in FIRST_LANE else "Ray 2" for path in files}
