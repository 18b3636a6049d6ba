"""Experiments made from what a study ran: one of its trials as a run of its own, its front with new seeds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from arat_ray import earlier, yaml_core
from arat_ray.json_files import read_json
from arat_ray.results import reader
from arat_ray.storage.names import tame
from arat_ray.text import line

CONFIRMED = "-confirm"


class Source(NamedTuple):
    """A trial as its study's table has it: its number, its complete run, and the hash of that."""

    number: int
    train: dict[str, Any]
    config_hash: str


def confirmation_of(study: Path, results: Path | None) -> Path:
    """The folder of a study's confirmation, beside it unless `results` says where."""
    study = study.absolute()
    return (results or study.parent) / f"{tame(study.name, room=len(CONFIRMED))}{CONFIRMED}"


def run_of(study: Path, trial_id: str, *, comments: Iterable[str] = ()) -> str:
    """The text of an experiment file that trains a trial again: the same run, measured alike, on the same resources.

    ValueError where the study does not say all of that.
    """
    source, given = source_of(study, trial_id), description(study)
    resources = {
        key: value for key, value in given["resources"].items() if key != "concurrent_trials" and value is not None
    }
    file = {
        "name": tame(trial_id, keep_end=True),
        "train": source.train,
        "validate": given["validate"],
        "maximize": given["maximize"],
        "resources": resources,
    }
    return as_yaml(file, [*comments, f"config_hash {source.config_hash}"])


def source_of(study: Path, trial_id: str) -> Source:
    """The run of a trial, of its last attempt."""
    trials = reader.read(study, "trials", ["trial_id", "attempt", "number", "config", "config_hash"])
    for row in reader.keep(trials, reader.latest_attempt(trials)).to_pylist():
        if row["trial_id"] == trial_id:
            if not row["config"]:
                raise ValueError(f"{study}: its table does not say how {trial_id} was trained (`config` is empty)")
            return Source(row["number"], earlier.train(reader.config(study, row)), row["config_hash"])
    raise ValueError(f"{study} has no trial {trial_id}")


def description(study: Path, *, whole: bool = True) -> dict[str, Any]:
    """The experiment that a study ran, as its study.json has it; with all that a run takes, unless not `whole`."""
    path = study / "study.json"
    if not path.exists():
        raise ValueError(
            f"{path} cannot be read (No such file or directory): it says how the trials were measured; copy it here "
            "as well"
        )
    shape = {"validate": dict, "maximize": list, "resources": dict} if whole else {}
    found = read_json(path, fix=reader.rebuild_with(study), shape={"experiment": shape | {"search?": dict}})
    experiment: dict[str, Any] = found["experiment"]
    return experiment | ({"validate": earlier.validate(experiment["validate"])} if whole else {})


def as_yaml(file: dict[str, Any], comments: Iterable[str]) -> str:
    """An experiment file with what stands above it."""
    above = "".join(f"# {line(comment)}".rstrip() + "\n" for comment in comments)
    return f"{above}\n{yaml_core.dump(file)}"


def write(text: str, path: Path) -> list[str]:
    """Put an experiment file in place once it is known to be valid; the keys of `train` that this version adds to it.

    They are none but for trials of another version of arat-ray, whose `config_hash` is then another one. ValueError
    where the file is not valid (any more), and where another one is there.
    """
    from arat_ray.experiment.config import load  # loads torch, which only the check needs
    from arat_ray.experiment.errors import ExperimentError

    if path.exists() and (not path.is_file() or path.read_text(errors="replace") != text):
        raise ValueError(f"{path} exists; choose another name")
    temporary = path.with_name(f".{path.name}")
    try:
        temporary.write_text(text)
        experiment = load(temporary)
        temporary.replace(path)
    except OSError as error:
        raise ValueError(f"{path} cannot be written ({error.strerror}); choose another name") from error
    except ExperimentError as error:
        problems = "; ".join(error.problems)
        raise ValueError(f"this version of arat-ray cannot train that run any more: {problems}") from error
    finally:
        if temporary.is_file():
            temporary.unlink()
    given = set(_leaves(experiment.train))
    return sorted(name for name, _ in set(_leaves(experiment.base.model_dump(mode="json"))) - given)


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every value below nested mappings, as JSON, with its dotted path."""
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _leaves(value, f"{path}.{key}".lstrip("."))
    else:
        yield path, json.dumps(node, sort_keys=True)
