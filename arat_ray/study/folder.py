"""The folder of a study: whose it is, and who may write to it."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from arat_ray import disk, earlier, locks, whole_files
from arat_ray.experiment.spec import Experiment
from arat_ray.json_files import read_json
from arat_ray.results import reader
from arat_ray.results.schema import Metadata
from arat_ray.results.statuses import UNFINISHED
from arat_ray.study.recorder import trial_id
from arat_ray.training import checkpoint, identity
from arat_ray.training.data import fingerprint
from arat_ray.training.data.fingerprint import Content
from arat_ray.version import __version__

Kind = Literal["tune", "train"]
CONTENT = "content"
"""The key of study.json that says what its data is, by split."""
DESCRIPTION = {
    "kind": str,
    "identity": {"train": dict, "search?": dict},
    "started_at?": list,
    "from?": list,
    "content?": dict,
}
LIBRARIES = ("torch", "torchvision", "ray", "optuna", "pyarrow", "numpy")
ARROW = {"float": pa.float64(), "int": pa.int64(), "bool": pa.bool_(), "string": pa.string()}


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
) -> Iterator[None]:
    """Hold the study's folder for writing within the block, made where there is none.

    `content` is that of the data of `train:`. Raises ValueError where the folder is another experiment's or of other
    data, where another process writes to it, and where an interrupted study is there that was not asked to be resumed.
    `warn` gets what could not be checked.
    """
    with writable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        there = [path.name for path in folder.iterdir() if not path.name.startswith(".") and path.name != "study.yaml"]
    if there and "study.json" not in there:  # study.yaml alone: the disk was full when it was begun
        raise ValueError(f"{folder} holds other files and no study; choose another place with --results")
    with ExitStack() as stack:
        with writable(folder):
            stack.enter_context(locks.held(folder / ".lock"))
        _check_same(folder, experiment, kind=kind, resume=resume, content=content, warn=warn)
        with writable(folder):
            _try_names(folder, experiment)
            _describe(folder, experiment, source, kind=kind, content=content)
        yield


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


def param_types(experiment: Experiment) -> dict[str, pa.DataType]:
    """The types of the `param_*` columns, fixed by the search space."""
    return {path: ARROW[domain.kind] for path, domain in experiment.search.items()}


def metadata(experiment: Experiment) -> Metadata:
    """What every file of the study says about itself."""
    return Metadata(
        study=experiment.name,
        goals=experiment.maximize,
        reference_point=(0.0,) * len(experiment.maximize),
        revision=revision(),
    )


def revision() -> str:
    """The git revision of this package where it is a checkout, else its version."""
    here = Path(__file__).parent
    command = ["git", "-C", str(here), "rev-parse", "--short=12", "HEAD"]
    if shutil.which("git") and (here.parent.parent / ".git").exists():
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done.stdout.strip()
    return __version__


def _check_same(
    folder: Path,
    experiment: Experiment,
    *,
    kind: Kind,
    resume: bool,
    content: Content | None,
    warn: Callable[[str], None],
) -> None:
    path = folder / "study.json"
    if not path.exists():
        return
    there = described(folder)
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
        raise ValueError(f"{path} is not what a study writes ({error}); copy it here again") from error
    if found := list(fingerprint.changes(there.get(CONTENT) or {}, content or {})):
        raise ValueError(
            f"{folder} holds results of other data: {'; '.join(found)}; bring back the data that it began with, give "
            "--data PATH, or give this experiment another `name:`"
        )
    if content and not there.get(CONTENT) and experiment.base.dataset.places and reader.part_files(folder / "trials"):
        warn(
            f"{folder} was begun by a version that kept no fingerprint of its data: whether the images are still the "
            "same is not checked, but for which of them are held out"
        )
    if not resume and _is_interrupted(folder):
        raise ValueError(f"{folder} holds an interrupted study; go on with --resume, or remove the folder")


def _identity(there: Any, experiment: Experiment) -> Any:
    """The identity in study.json, without the places that earlier versions wrote down."""
    if not isinstance(there, dict) or not isinstance(there.get("train"), dict):
        return there
    return identity.of_experiment(there) | {"train": identity.of_run(there["train"], experiment.base)}


def _is_interrupted(folder: Path) -> bool:
    if not reader.part_files(folder / "trials"):
        return False
    trials = reader.read(folder, "trials", ["trial_id", "attempt", "status"])
    latest = trials["status"].to_pylist()
    is_latest = reader.latest_attempt(trials)
    return any(status in UNFINISHED for status, last in zip(latest, is_latest, strict=True) if last)


def _describe(folder: Path, experiment: Experiment, source: Path, *, kind: Kind, content: Content | None) -> None:
    """study.yaml as given, and study.json: resolved, with versions, revision and start times."""
    path = folder / "study.json"
    before = described(folder) if path.exists() else {}
    (folder / "study.yaml").write_bytes(source.read_bytes())
    _write(path, _description(experiment, before, kind=kind, content=content))


def describe_again(folder: Path, experiment: Experiment, *, kind: Kind) -> None:
    """A study.json that was lost, from study.yaml: without the times, the data and the sources of before."""
    _write(folder / "study.json", _description(experiment, {}, kind=kind, content=None))


def described(folder: Path) -> dict[str, Any]:
    """A study.json; ValueError that names it, and what mends it, where it cannot be read."""
    found: dict[str, Any] = read_json(folder / "study.json", fix=reader.rebuild_with(folder), shape=DESCRIPTION)
    return found


def _description(experiment: Experiment, before: dict[str, Any], *, kind: Kind, content: Content | None) -> Any:
    return {
        "name": experiment.name,
        "kind": kind,
        "identity": experiment.identity(),
        "experiment": experiment.model_dump(mode="json", by_alias=True),
        "versions": {"arat-ray": __version__, "python": platform.python_version()}
        | {library: version(library) for library in LIBRARIES},
        "revision": revision(),
        "started_at": [*(before.get("started_at") or []), datetime.now(UTC).isoformat(timespec="seconds")],
        "from": before.get("from") or [],
        CONTENT: content or before.get(CONTENT),
    }


def record_sources(folder: Path, sources: Sequence[dict[str, Any]]) -> None:
    """Put down in study.json which earlier studies were learned from, each by its path under `study`, once."""
    path = folder / "study.json"
    description = described(folder)
    sources_by_path = {source["study"]: source for source in [*(description.get("from") or []), *sources]}
    _write(path, description | {"from": list(sources_by_path.values())})


def _write(path: Path, description: dict[str, Any]) -> None:
    whole_files.replace(path, (json.dumps(description, indent=2) + "\n").encode())
