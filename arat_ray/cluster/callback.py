"""What Ray Tune says of its trials, passed on to the recorder and the watchdog."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from ray import tune
from ray.exceptions import RayActorError

from arat_ray.cluster.trials.watchdog import Watchdog
from arat_ray.study.recorder import Recorder
from arat_ray.training.checkpoint import SET_ASIDE
from arat_ray.training.mid_epoch import PreemptedError
from arat_ray.training.run import Train

MEMORY = ("running low on memory", "OutOfMemory")
"""How Ray says that it ended a worker because its node had no memory left."""


LEFT = "left"
"""How the reason of a trial begins that was saved because its machine was about to be taken away."""


class StudyCallback(tune.Callback):
    """Tune's names for what happens to a trial, in the recorder's words.

    There is room for `room` trials at a time.
    """

    def __init__(self, recorder: Recorder, watchdog: Watchdog, *, room: int) -> None:
        self.recorder, self.watchdog, self.room = recorder, watchdog, room
        self.trials: list[Any] = []
        self._farthest: dict[int, int] = {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.watchdog.start(trial.config["number"])
        self._begin(trial)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if "row" in result or "failed" in result:
            self.recorder.report(trial.config["number"], result)
        if "row" in result and result["row"].get("validation_images"):
            self._count_failures_since(trial, result["row"]["epoch"])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._end(trial)
        self.recorder.end(trial.config["number"])

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._begin(trial)  # its worker may have been lost before it began
        if not (why := self._end(trial)):
            why = reason(trial)
            how = "begins anew" if why.endswith(SET_ASIDE) else "goes on from its last checkpoint"
            self.watchdog.log(f"trial {trial.config['number']}: {why}; it {how}")
            if why.startswith(LEFT):
                trial.run_metadata.num_failures = 0  # it lost nothing, and may be moved on as often as it takes
        self.recorder.retry(trial.config["number"], why)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._begin(trial)
        self.recorder.end(trial.config["number"], self._end(trial) or reason(trial))

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self.trials = trials
        self.tick()

    def tick(self) -> None:
        """What is due at intervals."""
        self.recorder.tick()
        self.watchdog.tick(self._pending, room=self.room)

    def _pending(self) -> list[int]:
        return [trial.config["number"] for trial in self.trials if trial.status == "PENDING"]

    def _begin(self, trial: Any) -> None:
        config = trial.config
        self.recorder.start(config["number"], config["sampled"], Train.model_validate(config["train"]))

    def _end(self, trial: Any) -> str | None:
        return self.watchdog.end(trial.config["number"])

    def _count_failures_since(self, trial: Any, epoch: int) -> None:
        """Losing one node after the other is no fault of a trial that reaches its next checkpoint in between."""
        number = trial.config["number"]
        if epoch > self._farthest.setdefault(number, 0):
            self._farthest[number] = epoch
            trial.run_metadata.num_failures = 0

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its callbacks along; there is nothing in this one to keep


def reason(trial: Any) -> str:
    """Why a trial's worker was lost, in the line of its error that says so."""
    error: Any = "its worker was lost"
    if trial.pickled_error_file:
        error = pickle.loads(Path(trial.pickled_error_file).read_bytes())
    elif trial.error_file:
        error = Path(trial.error_file).read_text()
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if lines and PreemptedError.__name__ in lines[-1]:
        return f"{LEFT}: {lines[-1].partition(': ')[2]}"
    named = [line for line in lines if any(word in line for word in MEMORY)]
    line = (named or lines[-1:] or [type(error).__name__])[0]
    return f"its worker was lost: {line}" if isinstance(error, RayActorError) else line
