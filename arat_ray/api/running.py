"""A single training run, and a search."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from arat_ray.api.data import checked
from arat_ray.api.files import file_of
from arat_ray.api.inputs import AnyPath, as_path, in_python
from arat_ray.api.showing import console, tell
from arat_ray.api.studies import Ended, Study
from arat_ray.experiment.spec import Experiment
from arat_ray.storage import mirror, session
from arat_ray.study import single
from arat_ray.study.single import NotSavedError
from arat_ray.text import command

if TYPE_CHECKING:
    from rich.console import Console

    from arat_ray.cluster.study import Outcome


@in_python()
def train(
    experiment: Experiment | AnyPath,
    *,
    results: AnyPath = "results",
    resume: bool = False,
    data: AnyPath | None = None,
    address: str | None = None,
    profile: bool = False,
    progress: bool = False,
) -> Study:
    """One training run of an experiment's `train:`, without a search; lands in `results`/<name>/.

    One worker trains in this process and without Ray; with `resources.workers` above 1 Ray starts, or the cluster at
    `address` is joined. A run that is complete is not repeated; `resume=True` goes on with an interrupted one. `data`
    says where the data lies, if it is not where the experiment names it. `profile=True` measures where a step's time
    goes, into the folder's `profile/`, and changes no result. `progress=True` shows each epoch; else that goes to
    `logging`.

    Raises ValueError for an experiment, a folder, data or a device that cannot serve it, NotSavedError where rows could
    not be written, and KeyboardInterrupt with everything saved.

    Example:
        >>> study = arat_ray.train("search_spaces/quickstart.yaml", results="runs")
        >>> study.checkpoint
        PosixPath('runs/quickstart/checkpoints/quickstart-00000/last.pt')
    """
    threads = torch.get_num_threads()
    given = None if data is None else str(data)
    with file_of(experiment) as file, checked(file, given, searched=False, warn=tell) as ready:
        folder = as_path(results) / ready.name
        try:
            with session.writing(folder, log=tell, names=written_by(ready)):
                ended = run(
                    ready, file, folder, resume=resume, address=address, profile=profile, console=console(progress)
                )
        finally:
            torch.set_num_threads(threads)
    if isinstance(ended, Path):
        return Study(folder, ended=Ended(None, 0))
    return _study_of(ended, folder)


@in_python()
def tune(
    experiment: Experiment | AnyPath,
    *,
    results: AnyPath = "results",
    trials: int | None = None,
    hours: float | None = None,
    device_hours: float | None = None,
    budget_usd: float | None = None,
    gain: float | str | None = None,
    stall: int | None = None,
    max_failures: int | None = None,
    resume: bool = False,
    data: AnyPath | None = None,
    earlier: AnyPath | Sequence[AnyPath] = (),
    address: str | None = None,
    progress: bool = False,
) -> Study:
    """Search: run trials on Ray until a budget is spent; streams to `results`/<name>/.

    The budgets are those of the experiment where they are not given. `resume=True` goes on with an interrupted study,
    more `trials` with a finished one. The sampler learns from the `earlier` studies. `address` is that of a Ray cluster
    (default: RAY_ADDRESS, else one on this machine, which ends with the search). `progress=True` shows the table of
    trials; else a line for each goes to `logging`.

    Raises ValueError, before anything is computed, for an experiment, a folder, data or a cluster that cannot serve it;
    NotSavedError where rows could not be written; KeyboardInterrupt with everything saved. Failed trials raise nothing:
    `study.ended` counts them, and says which budget ended the search before its last trial.

    Example:
        >>> study = arat_ray.tune("search_spaces/quickstart.yaml", trials=24)
        >>> study.ended.stopped, len(study.front().trials)
        (None, 7)
    """
    given = {"trials": trials, "hours": hours, "device_hours": device_hours, "usd": budget_usd, "gain": gain}
    where = None if data is None else str(data)
    with file_of(experiment) as file, checked(file, where, warn=tell) as ready:
        if not ready.search:
            raise ValueError(f"{file}: there is no `search:`; train(...) runs it once")
        limited = with_budget(ready, file, **given, stall=stall, max_failures=max_failures)
        studies = [as_path(study) for study in ([earlier] if isinstance(earlier, str | os.PathLike) else earlier)]
        for study in studies:
            session.pull(study, mirror.TABLES, log=tell)
        folder = as_path(results) / limited.name
        with session.writing(folder, log=tell):
            outcome = search(
                limited, file, folder, resume=resume, address=address, earlier=studies, console=console(progress)
            )
    return _study_of(outcome, folder)


def with_budget(experiment: Experiment, file: Path, **given: float | str | None) -> Experiment:
    """The experiment with these budgets instead of its own, where they are given; ValueError where nothing varies."""
    limited = experiment.with_budget(**given)
    if not limited.search:
        raise ValueError(f"{file}: there is no `search:`; a single run is `{command('arat-ray', 'train', file)}`")
    return limited


def written_by(experiment: Experiment) -> Sequence[str]:
    """What this process writes of a single run: also the checkpoints, where it trains itself."""
    return mirror.TABLES if experiment.resources.workers > 1 else (*mirror.TABLES, "checkpoints/")


def run(
    experiment: Experiment,
    file: Path,
    folder: Path,
    *,
    resume: bool,
    address: str | None,
    profile: bool = False,
    verbose: bool = False,
    console: Console,
) -> Path | Outcome:
    """Train `train:` once: here, for the path of the checkpoint; or, with several workers, on Ray."""
    if experiment.resources.workers == 1:
        return single.run(experiment, file, folder, resume=resume, profile=profile, console=console)
    if profile:
        raise ValueError(
            f"a profile is taken of one process, but resources.workers is {experiment.resources.workers}; set it to 1"
        )
    from arat_ray.cluster import study

    return study.run(
        experiment, file, folder, kind="train", resume=resume, address=address, verbose=verbose, console=console
    )


def search(
    experiment: Experiment,
    file: Path,
    folder: Path,
    *,
    resume: bool,
    address: str | None,
    earlier: Sequence[Path] = (),
    verbose: bool = False,
    console: Console,
) -> Outcome:
    """Run the trials of a study on Ray, which is loaded here at the earliest."""
    from arat_ray.cluster import study

    return study.run(
        experiment, file, folder, resume=resume, address=address, verbose=verbose, console=console, earlier=earlier
    )


def _study_of(outcome: Outcome, folder: Path) -> Study:
    """The handle of a study that ended, unless it was interrupted or rows are missing."""
    if not outcome.saved:
        raise NotSavedError(f"some rows could not be written to {folder}: `resume=True` measures them again")
    if outcome.stopped == "interrupted":
        raise KeyboardInterrupt
    return Study(folder, ended=Ended(outcome.stopped, outcome.failed))
