"""Trials of a study driven by hand: nothing is trained, the record is a real one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from arat_ray.experiment.spec import Experiment
from arat_ray.study import description, mending
from arat_ray.study.record import StudyRecord
from arat_ray.study.state import trial_id
from arat_ray.study.trials import Asked, StudyTrials
from arat_ray.study.warm_start import Known


def opened(
    folder: Path, experiment: Experiment, *, warn: Callable[[str], None] = warnings.warn, **options: Any
) -> StudyRecord:
    """The record of a study in a folder, begun where it is new; its tables are written at each end of a trial."""
    folder.mkdir(parents=True, exist_ok=True)
    record = mending.opened(folder, experiment, warn=warn, **({"flush_s": 0.0} | options))
    if record.is_empty:
        record.begin(description.of_start(experiment, "", kind="tune", content=None))
    return record


class DrivenTrials(StudyTrials):
    """Trials whose ends go into the record with as little of a row as it takes."""

    def __init__(self, folder: Path, experiment: Experiment, **options: Any) -> None:
        super().__init__(experiment, opened(folder, experiment, **options))

    def learn(self, finished: Iterable[Known], *, source: Mapping[str, Any] | None = None) -> int:
        new = super().learn(finished, source=source or {"study": "earlier"})
        self.record.flush()
        return new

    def ask(self) -> Asked:
        asked = super().ask()
        self.record.flush()
        return asked

    def complete(self, number: int, goals: list[float], violations: Mapping[str, float] | None = None) -> None:
        row = dict(zip(self.experiment.maximize, goals, strict=True)) | {"is_full_fidelity": True}
        self._end(number, row | {"status": "complete"}, violations=violations or {})
        super().complete(number, goals, violations)

    def prune(self, number: int, reason: str, curve: dict[str, list[Any]]) -> None:
        self._end(number, {"status": "pruned", "stop_reason": reason}, curve=curve)
        super().prune(number, reason, curve)

    def fail(self, number: int, reason: str) -> None:
        self._end(number, {"status": "failed", "error": reason})
        super().fail(number, reason)

    def _end(self, number: int, row: dict[str, Any], **more: Any) -> None:
        key = {"trial_id": trial_id(self.experiment.name, number), "attempt": 1}
        self.record.take({"started": {**key, "number": number, "status": "running"}})
        self.record.take({"ended": key | row, **more})
        self.record.flush()
