"""Where data lies, for all verbs: the option --data, and the question before a place is opened that results name."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from arat_ray.cli.common import echo
from arat_ray.text import plain

if TYPE_CHECKING:
    from arat_ray.experiment.config import Experiment
    from arat_ray.training.checkpoint import Checkpoint

DATA = click.option(
    "--data",
    metavar="PATH",
    help="Where the data lies: the folder that holds what `dataset` names, or that itself.  [default: as named, else "
    "$ARAT_DATA, else ~/.cache/arat-ray]",
)
"""As text, to be given again in a command that goes on."""


def again(data: str | None) -> list[str]:
    """The words that give it again."""
    return [] if data is None else ["--data", data]


def experiment_of(file: Path, data: str | None, stack: ExitStack) -> Experiment:
    """Read an experiment file of the user's own, its data at `data` until the stack is closed."""
    from arat_ray.experiment.config import load

    stack.enter_context(_given(data))
    experiment = load(file)
    if not remember(experiment) and data is not None and not experiment.base.dataset.places:
        raise ValueError(_needless(data, experiment.base.dataset.name))
    return experiment


def remember(experiment: Experiment) -> list[str]:
    """The places that a file of the user's own names, and where they were found: they are not asked for again."""
    from arat_ray.storage import trust
    from arat_ray.training.identity import places_in

    written = experiment.model_dump(mode="json", include={"train", "search", "first"})
    runs = [experiment.base.model_dump(mode="json"), experiment.base.located().model_dump(mode="json")]
    places = list(places_in([written, *runs]))
    trust.remember(places)
    return places


@contextmanager
def data_of(
    source: object,
    runs: Iterable[Mapping[str, Any]],
    data: str | None,
    *,
    test: bool = True,
    is_needed: bool = True,
) -> Iterator[None]:
    """Within the block, the data of runs (as JSON) that `source`, a checkpoint or a study, says it has can be read.

    It is read where `--data` says, or where a file of the user's own named it on this machine, or in the user's own
    folders; elsewhere it is when a person says yes. ValueError where nobody can be asked. Without `test`, a place of
    test images is left alone; where no data `is_needed`, places that are not known are, and nothing is asked.
    """
    from arat_ray.storage import finding, trust
    from arat_ray.training.data.splits import DATASETS
    from arat_ray.training.identity import places_in

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
    _ask(source, missing)
    trust.remember(foreign)
    yield


def say_unchecked(source: object, state: Checkpoint) -> None:
    """What cannot be known of the data of a checkpoint that an earlier version wrote."""
    if state.content is None and state.train_spec.dataset.places:
        echo(
            f"note: {source} was written by a version that kept no fingerprint of its data: whether the images "
            "are still the same is not checked, but for which of them were held out",
            err=True,
        )


@contextmanager
def _given(data: str | None) -> Iterator[None]:
    from arat_ray.storage import finding

    with finding.given(None if data is None else finding.location(data)):
        yield


def _needless(data: str, name: str) -> str:
    return f"--data {data}: {name} is part of an installed package and lies nowhere else; leave --data out"


def _missing(datasets: Iterable[Mapping[str, Any]], foreign: Iterable[str], *, test: bool) -> Iterator[str]:
    """The places that have to be opened where they are, since the user's own folders have nothing of that name."""
    from arat_ray.storage import finding

    for dataset in datasets:
        for key in ("train", "test") if test else ("train",):
            place = dataset.get(key)
            if isinstance(place, str) and place in foreign and not finding.is_found(place):
                yield place


def _ask(source: object, places: Iterable[str]) -> None:
    from arat_ray.storage import trust

    named = plain(", ".join(places))
    why = f"{plain(source)} names its data: {named}, which no experiment file of yours named on this machine"
    if not is_terminal():
        raise ValueError(
            f"{why}; give --data PATH, with that place where you trust it, or with your own copy of the data. What "
            f"`arat-ray validate FILE` reads of your own is not asked for (it is kept in {trust.record()})"
        )
    if not click.confirm(f"{why}. Open it?", default=False, err=True):
        raise ValueError(f"{named} is left alone; give --data PATH with your own copy of the data")


def is_terminal() -> bool:
    """Whether somebody can answer."""
    return sys.stdin.isatty() and sys.stderr.isatty()
