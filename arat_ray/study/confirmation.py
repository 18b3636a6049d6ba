"""The experiment that trains the members of a study's front again with new seeds: a grid over seeds and members."""

from __future__ import annotations

import copy
import itertools
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from arat_ray.experiment.config import load
from arat_ray.experiment.errors import ExperimentError
from arat_ray.experiment.paths import MEMBER
from arat_ray.experiment.spec import Experiment
from arat_ray.results import reader
from arat_ray.results.statuses import ENDED
from arat_ray.study import rerun_config
from arat_ray.text import command

SEEDS_AT_MOST = 50
"""Seeds that the file lists. Those of them that are trained are a matter of its budget, so that more can follow: what
varies makes an experiment what it is, its budget does not."""


class Plan(NamedTuple):
    """A valid experiment, and the file that says it."""

    experiment: Experiment
    source: Path


@contextmanager
def planned(study: Path, folder: Path, members: Sequence[str], *, seeds: int, epochs: int | None) -> Iterator[Plan]:
    """What trains these trials of a study with so many seeds, as a file that is there within the block.

    The seeds are the smallest numbers that no trial of the study had, or those that `folder` has begun with. ValueError
    where `folder` confirms other members or other epochs.
    """
    given = rerun_config.description(study)
    sources = sorted(rerun_config.source_of(study, trial_id) for trial_id in members)  # by number
    runs = {each.number: each.train | ({"epochs": epochs} if epochs else {}) for each in sources}
    listed = _unused_seeds(study)
    if (folder / "study.json").exists():
        listed = _begun(study, folder, runs)
    file: dict[str, Any] = {
        "name": folder.name,
        "train": copy.deepcopy(next(iter(runs.values()))),  # were it the same object, YAML would write an anchor
        "search": {"seed": {"choice": listed}, MEMBER: {"choice": runs}},
        "maximize": given["maximize"],
        "validate": given["validate"],
        "sampler": {"name": "grid", "seed": 0},
        "budget": {"trials": seeds * len(runs)},
        "resources": {key: value for key, value in given["resources"].items() if value is not None},
    }
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / f"{folder.name}.yaml"
        path.write_text(rerun_config.as_yaml(file, _comments(study, folder, runs, seeds)))
        try:
            experiment = load(path)
        except ExperimentError as error:
            raise ValueError(f"{study} cannot be confirmed: {'; '.join(error.problems)}") from error
        yield Plan(experiment, path)


def lines(study: Path, folder: Path, experiment: Experiment) -> Iterator[str]:
    """Which members are trained with which seeds, and what of it is done already."""
    seeds: dict[int, list[int]] = {}
    for point in itertools.islice(experiment.grid(), experiment.trials):
        seeds.setdefault(int(point[MEMBER]), []).append(int(point["seed"]))
    ended = _ended(folder)
    runs, done = experiment.trials or 0, sum((number, seed) in ended for number in seeds for seed in seeds[number])
    yield f"  confirms {len(seeds)} member{'s' * (len(seeds) != 1)} of the front of {study}, in {folder}"
    yield f"    {runs} runs, {done} of them done already, {runs - done} to train"
    for number, listed in seeds.items():
        there = ", ".join(str(seed) for seed in listed if (number, seed) in ended)
        yield f"    trial {number}: seeds {', '.join(map(str, listed))}; done: {there or 'none'}"


def _ended(folder: Path) -> set[tuple[int, int]]:
    """Member and seed of the runs that need not be trained any more."""
    if not reader.part_files(folder / "trials"):
        return set()
    trials = reader.read(folder, "trials", ["trial_id", "attempt", "status", f"param_{MEMBER}", "param_seed"])
    rows = reader.keep(trials, reader.latest_attempt(trials)).to_pylist()
    return {(row[f"param_{MEMBER}"], row["param_seed"]) for row in rows if row["status"] in ENDED}


def _unused_seeds(study: Path) -> list[int]:
    used = set(reader.read(study, "trials", ["seed"])["seed"].to_pylist())
    return [seed for seed in range(SEEDS_AT_MOST + len(used)) if seed not in used][:SEEDS_AT_MOST]


def _begun(study: Path, folder: Path, runs: dict[int, dict[str, Any]]) -> list[int]:
    """The seeds of the confirmation that is there."""
    try:
        search = rerun_config.description(folder, whole=False)["search"]
        there, listed = search[MEMBER]["choice"], list(search["seed"]["choice"])
    except (KeyError, TypeError):
        raise ValueError(f"{folder} holds another study; choose another place with --results") from None
    elsewhere = "move that folder away, or choose another place with --results"
    if set(there) != set(map(str, runs)):
        raise ValueError(
            f"{folder} confirms the trials {', '.join(there)} of {study}, whose front now is "
            f"{', '.join(map(str, runs))}; {elsewhere}"
        )
    for number, run in runs.items():
        if there[str(number)]["epochs"] != run["epochs"]:
            raise ValueError(
                f"{folder} trains for {there[str(number)]['epochs']} epochs, not {run['epochs']}; give the same "
                f"--epochs, {elsewhere}"
            )
    return listed


def _comments(study: Path, folder: Path, runs: dict[int, dict[str, Any]], seeds: int) -> list[str]:
    return [
        f"The front of {study} with new seeds, as `arat-ray confirm` wrote it: its trials {', '.join(map(str, runs))},",
        "complete as they were run, except for the seed; `member` is the number of the trial there, and `seed` lists",
        f"numbers that none of its trials had. The budget covers the first {seeds} seeds; more can follow.",
        "",
        f"  {command('arat-ray', 'confirm', study, '--seeds', seeds)}",
        f"  {command('arat-ray', 'tune', folder / 'study.yaml', '--results', folder.parent, '--resume')}",
    ]
