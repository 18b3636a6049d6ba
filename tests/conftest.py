"""Three tests at a time: two lanes of those that start Ray, which mostly wait, beside the others, file by file.

The lanes come first: they take the longest. What a file or a group of tests shares is made once.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: two threads a process would wait for each other
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")  # before ray: as arat_ray.cluster has it
os.environ.setdefault("RAY_worker_niceness", "0")  # likewise, for the clusters that tests start themselves
os.environ["TERM"] = "xterm"  # rich takes a dumb terminal for one of 80 x 25, whatever a test says
os.environ["ARAT_RAY_TESTS"] = str(os.getpid())  # tells this process's Ray from others'
LANES = ("Ray 1", "Ray 2")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    tests_of = Counter(item.path for item in items if is_on_ray(item))
    in_lane = Counter(dict.fromkeys(LANES, 0))
    lane_of = {}
    for path, count in tests_of.most_common():
        lane_of[path] = min(LANES, key=in_lane.__getitem__)
        in_lane[lane_of[path]] += count
    for item in items:
        if is_on_ray(item):
            item.add_marker(pytest.mark.xdist_group(lane_of[item.path]))
        elif item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.name))
    items.sort(key=lambda item: not is_on_ray(item))


def is_on_ray(item: pytest.Item) -> bool:
    return item.get_closest_marker("ray") is not None
