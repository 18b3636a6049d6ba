"""One training run in this process, without Ray: the same loop, folder and tables as a trial of a search."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from arat_ray import terminal
from arat_ray.experiment.spec import Experiment
from arat_ray.results import reader
from arat_ray.results.rows import EpochRow
from arat_ray.study import folder as study_folder
from arat_ray.study.progress import Progress
from arat_ray.study.recorder import Recorder
from arat_ray.study.state import trial_id
from arat_ray.training.checkpoint import BEST, LAST, NotACheckpointError, NotNowError
from arat_ray.training.checkpoint_writer import NeverSavedError
from arat_ray.training.context import Context, no_part
from arat_ray.training.loop import fit
from arat_ray.training.memory import is_out_of_memory
from arat_ray.training.profiling import Profile
from arat_ray.training.timing import describe
from arat_ray.units import duration


class NotSavedError(Exception):
    """Some rows are not on disk."""


class _NoTrials:
    """A single run has no search to tell how it ended."""

    def complete(self, number: int, goals: list[float], violations: Mapping[str, float]) -> None: ...
    def prune(self, number: int, reason: str, curve: dict[str, list[Any]]) -> None: ...
    def fail(self, number: int, reason: str) -> None: ...
    def put_back(self, number: int) -> None: ...


def run(
    experiment: Experiment, source: Path, folder: Path, *, resume: bool, profile: bool = False, console: Console
) -> Path:
    """Train `train:` as trial 0 of its own study; the path of the checkpoint that it reports.

    With `profile` some of its steps are measured (`training.profiling`), into the study's folder `profile/`.

    Raises ValueError for a folder, data or a device that cannot serve it, KeyboardInterrupt with everything saved, and
    NotSavedError where it ends and rows could not be written.
    """
    folder = folder.absolute()
    train, validate, resources = experiment.base, experiment.validation, experiment.resources
    if resources.gpus_per_worker and not torch.cuda.is_available():
        raise ValueError(
            f"resources.gpus_per_worker is {resources.gpus_per_worker:g}, but torch sees no GPU on this machine; "
            "set it to 0 to train on the CPU"
        )
    torch.set_num_threads(max(1, int(resources.cpus_per_worker)))
    device = torch.device("cuda" if resources.gpus_per_worker else "cpu")
    checkpoints = folder / "checkpoints" / trial_id(experiment.name, 0)
    chosen = checkpoints / (LAST if validate.choose == "last" else BEST)
    seconds: list[float] = []

    def report(row: EpochRow, replayed: bool) -> bool:
        recorder.report(0, {"row": row, "replayed": replayed, **describe(device)})
        recorder.tick()
        if record.disk.broken:
            raise NotSavedError(f"{record.disk.broken}; `--resume` measures again what is missing")
        if not replayed:
            seconds.append(row["epoch_s"])
            left = sum(seconds) / len(seconds) * (train.epochs - row["epoch"])
            terminal.report(console, f"{_line(row, train.epochs)}; about {duration(left)} left")
        return False

    told: list[str] = []

    def warn(text: str) -> None:
        terminal.report(console, text, style="bold red")

    def alive(trouble: str | None) -> None:
        if trouble is None:
            told.clear()
        elif not told:
            warn(trouble)
            told.append(trouble)

    content = None
    if not _is_complete(folder):  # then no data is needed
        content = validate.splits(train.dataset).content
        for note in train.dataset.notes():
            terminal.report(console, f"data: {note}")
    with study_folder.claim(
        folder, experiment, source, kind="train", resume=resume, content=content, warn=warn
    ) as record:
        if _is_complete(folder):
            rest = ": nothing is left to profile; give another --results" if profile else ""
            terminal.report(console, f"{folder} is complete already{rest}")
            return chosen
        if (known := record.state.trials.get(0)) and known.phase == "failed":
            why = f"this run has failed: {known.reason}"
            raise ValueError(f"{folder}: {why}; give another `name:`, or remove the folder")
        progress = Progress(console, goals=experiment.maximize, total=1, ended=0, epochs=train.epochs)
        recorder = Recorder(experiment, record, _NoTrials(), progress)
        recorder.start(0, {}, train)
        profiled = Profile(device) if profile else None
        context = Context(checkpoints, report, device, alive=alive, part=profiled or no_part)
        try:
            fit(train.located(), validate, context)
            recorder.end(0)
        except (NotNowError, NotACheckpointError, NeverSavedError):  # the disk's: it may go on when that is mended
            raise
        except ValueError as error:
            recorder.end(0, str(error))
            raise
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            why = str(error).splitlines()[0] if str(error) else "no memory left"
            fix = "go on with --resume where something else took it; a run that needs less has a smaller batch or model"
            raise ValueError(f"{why} (batch_size {train.batch_size}); {fix}") from error
        finally:
            saved = recorder.close("interrupted")
            if profiled is not None:
                _write_profile(profiled, folder / "profile", console)
        if not saved:
            raise NotSavedError(f"some rows could not be written to {folder}: `--resume` measures them again")
    return chosen


def _write_profile(profiled: Profile, folder: Path, console: Console) -> None:
    """What a profile says, also of a run that was interrupted; a disk that does not take it ends no run."""
    try:
        report = profiled.write(folder)
    except OSError as error:
        terminal.report(console, f"the profile could not be written: {error}", style="bold red")
        return
    for text in report.lines():
        terminal.report(console, f"profile: {text}")
    if report.trace:
        terminal.report(console, f"profile: {folder / report.trace} opens in https://ui.perfetto.dev")


def _is_complete(folder: Path) -> bool:
    there = reader.part_files(folder / "trials")
    return bool(there) and "complete" in reader.read(folder, "trials", ["status"])["status"].to_pylist()


def _line(row: EpochRow, epochs: int) -> str:
    """One epoch in words."""
    losses = {"adversarial": row["loss_adversarial"], "clean": row["loss_clean"], "invariance": row["loss_invariance"]}
    terms = [f"{name} {loss:.3f}" for name, loss in losses.items() if loss]
    line = f"epoch {row['epoch']}/{epochs}: loss {' + '.join(terms)}, {row['images_per_s']:.0f} images/s"
    if row.get("validation_images"):
        line += (
            f"; validation: clean {100 * row['validation_clean_accuracy']:.1f} %, "
            f"robust {100 * row['validation_robust_accuracy']:.1f} %"
        )
    return line
