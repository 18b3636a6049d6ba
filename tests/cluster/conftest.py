"""Fixtures for studies on Ray, and a check that no Ray process stays behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.studies import EXPERIMENT, ray_processes, wait_until


@pytest.fixture(autouse=True)
def _no_ray_process_stays_behind() -> Iterator[None]:
    before = ray_processes()
    yield
    wait_until(lambda: not ray_processes() - before, 90, "Ray's processes to end")


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write the small experiment, with some top-level keys changed, to a file."""

    def write_experiment(**fields: Any) -> Path:
        path = tmp_path / "small.yaml"
        path.write_text(yaml.safe_dump(EXPERIMENT | fields))
        return path

    return write_experiment
