"""Exporting: a study brought to where people already look. Doing it again adds what is new, and nothing twice."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from arat_ray import disk, locks, whole_files
from arat_ray.text import plain
from arat_ray.tracking import runs
from arat_ray.tracking.runs import Export
from arat_ray.tracking.tools import DEFAULT, TOOLS, check

QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "WANDB_ERROR_REPORTING": "false"}
"""An export needs no network, and asks for none."""
AT_LEAST_S, REST = 3.0, 10.0
"""How long an export that follows a study rests: seconds, and times what the last one took."""


class Exporter:
    """Brings one study to one place, whenever it is called; after the first time only runs that changed are read."""

    def __init__(self, study: Path, to: str, output: Path | None = None) -> None:
        check(to)
        self.study, self.to = study, to
        self.output = Path(DEFAULT, to) if output is None else output
        self._seen: dict[str, object] = {}

    def __call__(self) -> Path:
        """Write what is new; where it is.

        Raises ValueError for a study that cannot be read, for a place that cannot be written or has another study of
        this name, and where another process exports the study to it.
        """
        export, seen = runs.read(self.study, self._seen)
        try:
            self.output.mkdir(parents=True, exist_ok=True)
            with locks.held(self.output / f".{export.study}.lock"):
                self._claim(export)
                written = _writer(self.to)(export, self.output)
        except OSError as error:
            raise ValueError(f"--output {self.output}: {disk.reason(error)}") from error
        self._seen = seen
        return written

    def _claim(self, export: Export) -> None:
        """Put down whose the place is, or refuse another study's, and the study's own folder."""
        if os.path.realpath(self.output / export.study) == os.path.realpath(self.study):
            raise ValueError(f"--output {self.output}: this is where the study itself is; choose another folder")
        path = self.output / f".{export.study}.id"
        if not path.exists():
            whole_files.replace(path, export.id.encode())
        elif path.read_bytes() != export.id.encode():
            raise ValueError(
                f"--output {self.output}: it holds another study that is called {export.study}; choose another folder"
            )


def follow(export: Callable[[], object], *, log: Callable[[str], None], wait: Callable[[float], object]) -> NoReturn:
    """Export again and again, until this is interrupted, with a rest after each time that leaves the machine to others.

    What fails is told once and tried again: the next time writes what this one did not.
    """
    told = set[str]()
    took = 0.0
    while True:
        wait(max(AT_LEAST_S, REST * took))
        began = time.monotonic()
        try:
            export()
        except (ValueError, OSError) as error:
            if (problem := plain(error)) not in told:
                told.add(problem)
                log(f"{problem}; it is tried again")
        took = time.monotonic() - began


def _writer(to: str) -> Callable[[Export, Path], Path]:
    """What writes; its library comes with it."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    write: Callable[[Export, Path], Path] = import_module(f"arat_ray.tracking.{TOOLS[to].module}").write
    return write
