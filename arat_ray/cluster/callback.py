"""What Ray Tune says of its trials, passed on to the recorder."""

from __future__ import annotations

from typing import Any

from ray import tune

from arat_ray.study.recorder import Recorder
from arat_ray.training.run import Train


class StudyCallback(tune.Callback):
    """Tune's names for what happens to a trial, in the recorder's words."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        config = trial.config
        self.recorder.start(config["number"], config["sampled"], Train.model_validate(config["train"]))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if "lost" in result:
            self.recorder.retry(trial.config["number"], result["lost"])
        elif "row" in result or "failed" in result:
            self.recorder.report(trial.config["number"], result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.recorder.end(trial.config["number"])

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.recorder.retry(trial.config["number"], _reason(trial))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.recorder.end(trial.config["number"], _reason(trial))

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self.recorder.tick()

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its callbacks along; there is nothing in this one to keep


def _reason(trial: Any) -> str:
    """The last line of a failed trial's error, which names the exception and what it says."""
    error = trial.get_pickled_error() or trial.get_error()
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
