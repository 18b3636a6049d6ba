"""Exporting: a study brought to where people already look. Doing it again adds what is new, and nothing twice."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from arat_ray import disk, locks, whole_files
from arat_ray.tracking import runs
from arat_ray.tracking.runs import Export
from arat_ray.tracking.tools import DEFAULT, TOOLS, check

QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "WANDB_ERROR_REPORTING": "false"}
"""An export needs no network, and asks for none."""


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
                write: Callable[[Export, Path], Path] = import_module(
                    f"arat_ray.tracking.{TOOLS[self.to].module}"
                ).write
                written = write(export, self.output)
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


def _writer(to: str) -> Callable[[Export, Path], Path]:
    """What writes; its library comes with it."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    write: Callable[[Export, Path], Path] = import_module(f"arat_ray.tracking.{TOOLS[to].module}").write
    return write
