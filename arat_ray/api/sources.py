"""What users write in Python, as what all code takes: paths and addresses, experiments, the words of errors."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from arat_ray.experiment.config import Experiment
from arat_ray.storage.place import path_of
from arat_ray.yaml_core import dump

_OPTION = re.compile(r"--([a-z]+(?:-[a-z]+)*)")
_FLAGS = ("resume", "front", "raw", "partial")
_RENAMED = {"from": "earlier"}


def as_path(path: str | os.PathLike[str]) -> Path:
    """A path, in which `~` is filled in; of the address of a bucket, such as s3://bucket/study, that of its mirror."""
    return path if isinstance(path, Path) else path_of(os.path.expanduser(os.fspath(path)))


@contextmanager
def file_of(experiment: Experiment | str | os.PathLike[str]) -> Iterator[Path]:
    """The experiment file of an experiment, within the block: its own, or one that says the same."""
    if not isinstance(experiment, Experiment):
        yield as_path(experiment)
        return
    with tempfile.TemporaryDirectory(prefix="arat-ray-") as folder:
        file = Path(folder, f"{experiment.name}.yaml")
        file.write_text(text_of(experiment), encoding="utf-8")
        yield file


def text_of(experiment: Experiment) -> str:
    """An experiment as the YAML file that says the same, but for what stands for nothing."""
    written: dict[str, Any] = experiment.model_dump(mode="json", by_alias=True)
    for section in ("search", "constraints"):
        written[section] = {
            path: {key: value for key, value in given.items() if value is not None and value != {}}
            for path, given in written[section].items()
        }
    return dump({key: value for key, value in written.items() if value is not None and value not in ({}, [])})


@contextmanager
def in_python() -> Iterator[None]:
    """Errors speak of keyword arguments, where the command line has options; commands in them stay as they are."""
    try:
        yield
    except ValueError as error:
        text = str(error)
        if "arat-ray " not in text and error.args == (text,):
            error.args = (_OPTION.sub(_keyword, text),)
        raise


def _keyword(option: re.Match[str]) -> str:
    name = option[1].replace("-", "_")
    return f"{_RENAMED.get(name, name)}{'=True' * (name in _FLAGS)}"
