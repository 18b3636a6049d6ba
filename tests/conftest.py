"""Two tests at a time: those that start Ray one by one and first, the others file by file."""

from __future__ import annotations

import os

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: two threads a process would wait for each other
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")  # before ray: as arat_ray.cluster has it
os.environ["TERM"] = "xterm"  # rich takes a dumb terminal for one of 80 x 25, whatever a test says
os.environ["ARAT_RAY_TESTS"] = str(os.getpid())  # tells this process's Ray from others'


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("ray") is None)
    for item in items:
        if item.get_closest_marker("ray") is None and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.name))
