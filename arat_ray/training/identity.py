"""What a run is: its spec, but for where its data lies; and whether a checkpoint is of the same one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from arat_ray.training.checkpoint import Checkpoint
from arat_ray.training.data import fingerprint
from arat_ray.training.data.splits import DATASETS
from arat_ray.training.run import Train, Validate

NAMED_AT_MOST = 5
"""Of the differences between two runs."""
_PLACES = {f"dataset.{place}" for kind in DATASETS.values() for place in kind.places}


def without_places(value: Any) -> Any:
    """A JSON value without the places of the data sets in it."""
    if isinstance(value, Mapping):
        name = value.get("name")
        places = DATASETS[name].places if isinstance(name, str) and name in DATASETS else ()
        return {key: without_places(item) for key, item in value.items() if key not in places}
    return [without_places(item) for item in value] if isinstance(value, list) else value


def of_experiment(given: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON of an experiment, without the places in `train` and in what is searched.

    A place that a label stands for (`dataset.train: {choice: {here: /data/a}}`) is none that counts either.
    """
    search = {path: without_places(domain) for path, domain in (given.get("search") or {}).items()}
    for path in _PLACES & set(search):
        choice = search[path].get("choice")
        if isinstance(choice, Mapping):
            search[path] = search[path] | {"choice": dict.fromkeys(choice)}
    return {**given, "train": without_places(given["train"]), "search": search}


def places_in(value: Any) -> Iterator[str]:
    """The places that the data sets in a JSON value name, as they stand there."""
    if isinstance(value, Mapping):
        name = value.get("name")
        places = DATASETS[name].places if isinstance(name, str) and name in DATASETS else ()
        yield from (item for key in places if isinstance(item := value.get(key), str))
    if isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from places_in(item)


def of_run(train: Mapping[str, Any], like: Train) -> Any:
    """The JSON of a run as this version writes it, without places, to be compared with that of `like`.

    What another version did not know has its default. A run that is none any more stays as it is.
    """
    dataset, here = train.get("dataset"), like.dataset.model_dump(mode="json")
    if isinstance(dataset, Mapping) and dataset.get("name") == like.dataset.name:
        moved = {**dataset, **{key: here[key] for key in like.dataset.places}}
        with suppress(ValidationError):
            train = Train.model_validate({**train, "dataset": moved}).model_dump(mode="json")
    return without_places(dict(train))


def another_run(there: tuple[Mapping[str, Any], Mapping[str, Any]], train: Train, validate: Validate) -> list[str]:
    """Where the JSON of two specs differs from a run, but for its places; nothing where it is the same run."""
    here = {"train": without_places(train.model_dump(mode="json")), "validate": validate.model_dump(mode="json")}
    if {"train": without_places(there[0]), "validate": there[1]} == here:
        return []
    return list(differences({"train": of_run(there[0], train), "validate": there[1]}, here))


def check_same_run(
    state: Checkpoint,
    path: Path,
    train: Train,
    validate: Validate,
    *,
    content: Mapping[str, Any],
    validation_sha256: str,
) -> None:
    """ValueError where the checkpoint at `path` is of another run, or of the same one on other data: `content` are the
    fingerprints of the data here, and `validation_sha256` is the digest of the images that are held out."""
    if found := another_run((state.train, state.validate), train, validate):
        what = "; ".join(found[:NAMED_AT_MOST])
        raise ValueError(f"{path} is the checkpoint of another run: {what}; choose another folder or remove it")
    if found := list(fingerprint.changes(state.content or {}, content)):
        raise ValueError(
            f"{path} was trained on other data: {'; '.join(found)}; bring back the data that it began with, "
            "give --data PATH, or train anew under another `name:`"
        )
    if state.validation_sha256 != validation_sha256:
        raise ValueError(
            f"{path} held out other images for validation, so its training set was another one; bring it back"
        )


def differences(there: Any, here: Any, path: str = "") -> Iterator[str]:
    """Where two JSON values differ: `train.epochs is 10 there and 20 here`."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in dict.fromkeys([*there, *here]):
            yield from differences(there.get(key), here.get(key), f"{path}.{key}".lstrip("."))
    elif there != here:
        yield f"{path} is {json.dumps(there)} there and {json.dumps(here)} here"
