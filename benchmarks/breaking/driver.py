"""The parts of a search's driver, put together as `cluster/study.py` does, but for Ray."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from rich.console import Console

from arat_ray.experiment.spec import Experiment
from arat_ray.study.progress import Progress
from arat_ray.study.record import StudyRecord
from arat_ray.study.recorder import Recorder
from arat_ray.study.trials import Asked, StudyTrials


class _Console(Console):
    """One that hands on what is printed."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(file=io.StringIO())
        self.say = say

    def print(self, *parts: Any, **how: Any) -> None:
        self.say(" ".join(map(str, parts)))


class Driver:
    """What a claimed study is written through."""

    def __init__(self, experiment: Experiment, record: StudyRecord, say: Callable[[str], None]) -> None:
        self.record, self.trials = record, StudyTrials(experiment, record)
        progress = Progress(
            _Console(say),
            goals=experiment.maximize,
            total=experiment.trials,
            ended=len(self.trials.ended()),
            epochs=experiment.base.epochs,
        )
        self.recorder = Recorder(experiment, record, self.trials, progress)

    @property
    def is_saved(self) -> bool:
        """Whether all that it was told is on disk."""
        return self.events_on_disk == self.events

    @property
    def events(self) -> int:
        """How many events its record has taken."""
        return self.record.segments.lines

    @property
    def events_on_disk(self) -> int:
        return self.events - self.record.segments.pending

    def ask(self) -> Asked:
        """The next trial, which may start once `may_start`."""
        return self.trials.ask()

    def may_start(self) -> bool:
        """Whether all trials that were asked for are on disk."""
        return self.record.save()

    def tick(self) -> None:
        self.recorder.tick()

    def close(self) -> bool:
        """Put back what still runs; whether everything is on disk."""
        return self.recorder.close("interrupted")
