"""What a study says of itself: study.json, written at each start, and how its tables begin."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from arat_ray import whole_files
from arat_ray.experiment.spec import Experiment
from arat_ray.json_files import read_json
from arat_ray.results import reader
from arat_ray.results.schema import Metadata
from arat_ray.study.state import StudyState
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
    "record?": str,
}
RECORD = "record"
"""The key of study.json that says the id of the study's record."""
LIBRARIES = ("torch", "torchvision", "ray", "optuna", "pyarrow", "numpy")
ARROW = {"float": pa.float64(), "int": pa.int64(), "bool": pa.bool_(), "string": pa.string()}


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


def read(folder: Path) -> dict[str, Any]:
    """A study.json; ValueError that names it, and what mends it, where it cannot be read."""
    found: dict[str, Any] = read_json(folder / "study.json", fix=reader.rebuild_with(folder), shape=DESCRIPTION)
    return found


def of_start(experiment: Experiment, yaml: str, *, kind: Kind, content: Content | None) -> dict[str, Any]:
    """The event of a study that is started: its file as given, and what that resolves to here."""
    return {
        "name": experiment.name,
        "kind": kind,
        "yaml": yaml,
        "identity": experiment.identity(),
        "experiment": experiment.model_dump(mode="json", by_alias=True),
        "versions": {"arat-ray": __version__, "python": platform.python_version()}
        | {library: version(library) for library in LIBRARIES},
        "revision": revision(),
        "started_at": [datetime.now(UTC).isoformat(timespec="seconds")],
        CONTENT: content,
    }


def of_state(state: StudyState, record: str) -> dict[str, Any]:
    """What study.json says: the last start, with the times of all, and from which earlier studies it has learned.

    `record` is the id of the study's record.
    """
    last = dict(state.starts[-1])
    last.pop("yaml")
    contents = [start[CONTENT] for start in state.starts if start.get(CONTENT)]
    sources = {each["source"]["study"]: each["source"] for each in state.learned}
    return last | {
        RECORD: record,
        "started_at": [at for start in state.starts for at in start["started_at"]],
        "from": list(sources.values()),
        CONTENT: contents[-1] if contents else None,
    }


def write(folder: Path, state: StudyState, record: str) -> None:
    """study.yaml as given and study.json, as the record has them; OSError where they cannot be written."""
    whole_files.replace(folder / "study.yaml", state.starts[-1]["yaml"].encode())
    whole_files.replace(folder / "study.json", (json.dumps(of_state(state, record), indent=2) + "\n").encode())
