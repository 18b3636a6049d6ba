"""Where the data of an experiment or of results lies, and the question before a place is opened that results name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from arat_ray.experiment import at_hand, slips
from arat_ray.experiment.config import load
from arat_ray.experiment.spec import Experiment
from arat_ray.storage import finding, trust
from arat_ray.text import plain
from arat_ray.training.checkpoint import Checkpoint
from arat_ray.training.data.splits import DATASETS
from arat_ray.training.identity import places_in

Ask = Callable[[str, str], None]
"""Called with a sentence of why, and the places; returns where they may be opened, and raises ValueError elsewhere."""


@contextmanager
def checked(
    file: Path, data: str | None, *, searched: bool = True, warn: Callable[[str], None]
) -> Iterator[Experiment]:
    """The experiment of a file of the user's own, or its `train:` alone, its data at `data` within the block.

    It is held against the data and read for slips, of which `warn` is told. ValueError where it cannot be run.
    """
    with experiment_of(file, data) as experiment:
        experiment = experiment if searched else experiment.without_search()
        at_hand.check(file, experiment)
        for slip in slips.found(experiment):
            warn(slip)
        yield experiment


@contextmanager
def experiment_of(file: Path, data: str | None) -> Iterator[Experiment]:
    """Read an experiment file of the user's own, its data at `data` within the block."""
    with _given(data):
        experiment = load(file)
        if not remember(experiment) and data is not None and not experiment.base.dataset.places:
            raise ValueError(_needless(data, experiment.base.dataset.name))
        yield experiment


def remember(experiment: Experiment) -> list[str]:
    """The places that a file of the user's own names, and where they were found: they are not asked for again."""
    written = experiment.model_dump(mode="json", include={"train", "search", "first"})
    runs = [experiment.base.model_dump(mode="json"), experiment.base.located().model_dump(mode="json")]
    places = list(places_in([written, *runs]))
    trust.remember(places)
    return places


def refuse(why: str, places: str) -> None:
    """The answer where nobody can be asked."""
    raise ValueError(
        f"{why}; give --data PATH, with that place where you trust it, or with your own copy of the data. What "
        f"`arat-ray validate FILE` reads of your own is not asked for (it is kept in {trust.record()})"
    )


@contextmanager
def data_of(
    source: object,
    runs: Iterable[Mapping[str, Any]],
    data: str | None,
    *,
    ask: Ask = refuse,
    test: bool = True,
    is_needed: bool = True,
) -> Iterator[None]:
    """Within the block, the data of runs (as JSON) that `source`, a checkpoint or a study, says it has can be read.

    It is read where `data` says, or where a file of the user's own named it on this machine, or in the user's own
    folders; elsewhere it is where `ask` returns. Without `test`, a place of test images is left alone; where no data
    `is_needed`, places that are not known are, and nothing is asked.
    """
    datasets: list[Mapping[str, Any]] = [run["dataset"] for run in runs if isinstance(run.get("dataset"), Mapping)]
    names = {str(dataset.get("name")) for dataset in datasets}
    if data is not None:
        if not any(name in DATASETS and DATASETS[name].places for name in names):
            raise ValueError(_needless(data, ", ".join(sorted(names))))
        with _given(data):
            yield
        return
    foreign = [place for place in dict.fromkeys(places_in(datasets)) if not trust.is_trusted(place)]
    if not foreign:
        yield
        return
    with finding.without_names():
        missing = list(dict.fromkeys(_missing(datasets, foreign, test=test)))
        if not missing or not is_needed:
            yield
            return
    named = plain(", ".join(missing))
    ask(f"{plain(source)} names its data: {named}, which no experiment file of yours named on this machine", named)
    trust.remember(foreign)
    yield


def unchecked(source: object, state: Checkpoint) -> Sequence[str]:
    """What cannot be known of the data of a checkpoint that an earlier version wrote; empty of any other."""
    if state.content is not None or not state.train_spec.dataset.places:
        return ()
    return (
        f"note: {source} was written by a version that kept no fingerprint of its data: whether the images "
        "are still the same is not checked, but for which of them were held out",
    )


@contextmanager
def _given(data: str | None) -> Iterator[None]:
    with finding.given(None if data is None else finding.location(data)):
        yield


def _needless(data: str, name: str) -> str:
    return f"--data {data}: {name} is part of an installed package and lies nowhere else; leave --data out"


def _missing(datasets: Iterable[Mapping[str, Any]], foreign: Iterable[str], *, test: bool) -> Iterator[str]:
    """The places that have to be opened where they are, since the user's own folders have nothing of that name."""
    for dataset in datasets:
        for key in ("train", "test") if test else ("train",):
            place = dataset.get(key)
            if isinstance(place, str) and place in foreign and not finding.is_found(place):
                yield place
