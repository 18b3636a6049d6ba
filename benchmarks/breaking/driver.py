"""The parts of a search's driver, put together as `cluster/study.py` does, but for Ray."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from arat_ray.experiment.spec import Experiment
from arat_ray.results.log import SEGMENT_BYTES
from arat_ray.study import folder as study_folder
from arat_ray.study.progress import Progress
from arat_ray.study.recorder import Recorder, sampled_before
from arat_ray.study.trials import Asked, StudyTrials
from arat_ray.study.writer import StudyWriter


class Driver:
    """What a claimed folder is written through; `part_rows` and `segment_bytes` as it has them, or smaller."""

    def __init__(
        self,
        experiment: Experiment,
        folder: Path,
        say: Callable[[str], None],
        *,
        part_rows: int | None = None,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        params, described = study_folder.param_types(experiment), study_folder.metadata(experiment)
        stops = experiment.early_stopping is not None
        with study_folder.writable(folder):
            self.writer = StudyWriter(
                folder, params=params, metadata=described, warn=say, decisions=stops, part_rows=part_rows
            )
            self.writer.log.segment_bytes = segment_bytes
            self.trials = StudyTrials(folder, experiment, warn=say, may_write=lambda: not self.writer.failing)
        self.trials.adopt(sampled_before(folder, experiment))
        progress = Progress(
            Console(file=io.StringIO()),
            goals=experiment.maximize,
            total=experiment.trials,
            ended=len(self.trials.ended()),
            epochs=experiment.base.epochs,
        )
        self.recorder = Recorder(folder, experiment, self.writer, self.trials, progress)

    @property
    def is_saved(self) -> bool:
        """Whether all that it was told is on disk."""
        return not self.writer.pending and not self.trials.journal.pending

    def ask(self) -> Asked:
        """The next trial, which may start once `may_start`."""
        return self.trials.ask()

    def may_start(self) -> bool:
        """Whether all trials that were asked for are on disk."""
        return self.trials.journal.flush()

    def tick(self) -> None:
        self.recorder.tick()
        self.trials.journal.flush()

    def close(self) -> bool:
        """Put back what still runs; whether everything is on disk."""
        rows_are_saved = self.recorder.close("interrupted")
        return self.trials.journal.flush(final=True) and rows_are_saved
