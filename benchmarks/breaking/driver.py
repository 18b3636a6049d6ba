"""The parts of a search's driver, put together as `cluster/study.py` does, but for Ray."""

from __future__ import annotations

import io

from rich.console import Console

from arat_ray.experiment.spec import Experiment
from arat_ray.study.progress import Progress
from arat_ray.study.record import StudyRecord
from arat_ray.study.recorder import Recorder
from arat_ray.study.trials import Asked, StudyTrials


class Driver:
    """What a claimed study is written through."""

    def __init__(self, experiment: Experiment, record: StudyRecord) -> None:
        self.record, self.trials = record, StudyTrials(experiment, record)
        progress = Progress(
            Console(file=io.StringIO()),
            goals=experiment.maximize,
            total=experiment.trials,
            ended=len(self.trials.ended()),
            epochs=experiment.base.epochs,
        )
        self.recorder = Recorder(experiment, record, self.trials, progress)

    @property
    def is_saved(self) -> bool:
        """Whether all that it was told is on disk."""
        return not self.record.segments.pending

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
