"""The folder of a study: whose it is, and who may write to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from arat_ray import disk, earlier, locks
from arat_ray.experiment.spec import Experiment
from arat_ray.results.reading import Reading
from arat_ray.results.segments import FOLDER, folder_of
from arat_ray.study import description, mending
from arat_ray.study.description import CONTENT, Kind
from arat_ray.study.record import StudyRecord
from arat_ray.study.state import trial_id
from arat_ray.training import checkpoint, identity
from arat_ray.training.data import fingerprint
from arat_ray.training.data.fingerprint import Content


@contextmanager
def claim(
    folder: Path,
    experiment: Experiment,
    source: Path,
    *,
    kind: Kind,
    resume: bool,
    content: Content | None = None,
    warn: Callable[[str], None] = lambda text: None,
    **options: Any,
) -> Iterator[StudyRecord]:
    """The record of the study in a folder, made where there is none, and held for writing within the block.

    `content` is that of the data of `train:`. Raises ValueError where the folder is another experiment's or of other
    data, where another process writes to it, where an interrupted study is there that was not asked to be resumed, and
    where it is damaged. `warn` gets what could not be checked, and what was mended; `options` are StudyRecord's.
    """
    with writable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        there = {path.name for path in folder.iterdir() if not path.name.startswith(".")} - {"study.yaml"}
    if there and not there & {"study.json", FOLDER}:  # study.yaml alone: the disk was full when it was begun
        raise ValueError(f"{folder} holds other files and no study; choose another place with --results")
    with ExitStack() as stack:
        with writable(folder):
            stack.enter_context(locks.held(folder / ".lock"))
            (folder / FOLDER).mkdir(exist_ok=True)  # a start that is cut off from here on left a study
        before = _described(folder)
        if before is not None:
            _check_same(folder, experiment, before, kind=kind, content=content)
        with writable(folder):
            _try_names(folder, experiment)
            record = mending.opened(folder, experiment, warn=warn, **options)
        if content and before and not before.get(CONTENT) and experiment.base.dataset.places and record.state.trials:
            warn(
                f"{folder} was begun by a version that kept no fingerprint of its data: whether the images are still "
                "the same is not checked, but for which of them are held out"
            )
        if not resume and any(trial.row for trial in record.state.unfinished()):
            raise ValueError(f"{folder} holds an interrupted study; go on with --resume, or remove the folder")
        with writable(folder):
            yaml = source.read_bytes().decode(errors="surrogateescape")
            record.begin(description.of_start(experiment, yaml, kind=kind, content=content))
        yield record


@contextmanager
def writable(folder: Path) -> Iterator[None]:
    """ValueError where a study cannot even begin because its folder cannot be written."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"--results {folder.parent}: {disk.reason(error)}") from error


def _try_names(folder: Path, experiment: Experiment) -> None:
    """OSError where a trial's checkpoint could not be written: its name is the longest of a study."""
    checkpoints = folder / "checkpoints"
    made = [path for path in (checkpoints / trial_id(experiment.name, 99999), checkpoints) if not path.exists()]
    checkpoint.check(checkpoints / trial_id(experiment.name, 99999))
    for path in made:
        path.rmdir()


def _described(folder: Path) -> dict[str, Any] | None:
    """What the study there says of itself: its study.json, or where that is gone its record; None where it is new."""
    if (folder / "study.json").exists():
        return description.read(folder)
    first = next((line for line in Reading(folder_of(folder)) if line.kind == b"study"), None)
    return None if first is None else first.event["study"]


def _check_same(
    folder: Path, experiment: Experiment, there: dict[str, Any], *, kind: Kind, content: Content | None
) -> None:
    if there["kind"] != kind:
        raise ValueError(f"{folder} holds a `{there['kind']}`, not a `{kind}`; choose another place with --results")
    written = there["identity"]
    written |= {"train": earlier.train(written["train"]), "validate": earlier.validate(written["validate"])}
    differing = list(identity.differences(_identity(written, experiment), experiment.identity()))
    if differing:
        raise ValueError(
            f"{folder} holds the results of another experiment: {'; '.join(differing[:5])}; "
            "give this one another `name:`, or another place with --results"
        )
    try:
        fingerprint.check(there.get(CONTENT) or {})
    except TypeError as error:
        raise ValueError(f"{folder / 'study.json'} is not what a study writes ({error}); copy it here again") from error
    if found := list(fingerprint.changes(there.get(CONTENT) or {}, content or {})):
        raise ValueError(
            f"{folder} holds results of other data: {'; '.join(found)}; bring back the data that it began with, give "
            "--data PATH, or give this experiment another `name:`"
        )


def _identity(there: Any, experiment: Experiment) -> Any:
    """The identity in study.json, without the places that earlier versions wrote down."""
    if not isinstance(there, dict) or not isinstance(there.get("train"), dict):
        return there
    return identity.of_experiment(there) | {"train": identity.of_run(there["train"], experiment.base)}
