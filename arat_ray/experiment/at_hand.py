"""What the data makes impossible, where it is at hand: images are counted, none is read, nothing is downloaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from arat_ray.experiment.errors import ExperimentError, shown
from arat_ray.experiment.paths import MEMBER
from arat_ray.experiment.probes import probes
from arat_ray.experiment.spec import Experiment
from arat_ray.training.run import Train, Validate

BEARING = ("dataset", "batch_size", "preset", MEMBER)
"""What a search may vary that bears on how many images there must be."""


def check(path: Path, experiment: Experiment) -> None:
    """Raises ExperimentError where a run of the experiment takes more images than there are."""
    if problems := list(dict.fromkeys(_problems(experiment))):
        raise ExperimentError(path, problems)


def training_images(train: Train, validation: Validate) -> int:
    """Images that a run trains on. Raises ValueError where they cannot be counted."""
    return train.dataset.available("train") - validation.held_out


def _problems(experiment: Experiment) -> Iterator[str]:
    if problem := _problem(experiment.base, experiment.validation):
        yield problem
        return
    for where, sampled in probes(experiment):
        if any(path.split(".")[0] in BEARING for path in sampled):
            problem = _problem(experiment.resolve(sampled), experiment.validation)
            if problem:
                given = ", ".join(f"{path}: {shown(label)}" for path, label in sampled.items())
                yield f"{where}: with {given}: {problem}"


def _problem(train: Train, validation: Validate) -> str | None:
    held, batch = validation.held_out, train.batch_size
    try:
        images = train.dataset.available("train")
        is_at_hand = validation.split == "test" and not isinstance(getattr(train.dataset, "test", None), str)
        tests = train.dataset.available("test") if is_at_hand else None  # text is the address of a bucket
    except ValueError as error:
        return f"train.{error}" if str(error).startswith("dataset.") else str(error)
    if tests is not None and validation.images > tests:
        return f"validate.images: {validation.images} of a test set of {tests}; use at most {tests}"
    if held >= images:
        use = f"use at most {images - batch}" if images > batch else "lower it"
        return f"validate.images: {held} cannot be held out of {images} training images; {use}"
    if batch > images - held:
        less = f", {images} less the {held} that validate.images holds out" if held else ""
        return f"train.batch_size: {batch} is larger than the {images - held} images to train on{less}; lower it"
    return None
