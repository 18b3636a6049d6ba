"""A front trained again with new seeds: what is left of it.

The values of a front's members were selected, the best of many noisy ones, and are therefore optimistic; their means
over seeds that had no part in the selection are not. So the original run is no part of any statistic here. A front is
redrawn within each seed: what is non-dominated there, and what the seeds attain together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np

from arat_ray.frontier import confirmed_dials, evaluations
from arat_ray.frontier.attainment import level, surfaces
from arat_ray.frontier.confirmed_dials import MeanCurve, Point, mean_curve
from arat_ray.frontier.dominance import Floats, non_dominated
from arat_ray.results import reader
from arat_ray.results.statuses import ENDED

PERCENTS = (25, 50, 75)
ENOUGH = 0.5
"""A member is confirmed when it is on the front in at least this share of the seeds."""
Values = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Member:
    """A trial of the front, and what came of it with other seeds.

    `runs` are its goals by seed, without the seeds with which it failed; `mean` and `std` (of a sample, so none for one
    seed) are over these. `share` is that of the seeds, failed ones included, in which it is non-dominated.
    """

    number: int
    trial_id: str
    params: dict[str, Any]
    selected: Values
    epochs: int
    runs: dict[int, Values]
    mean: Values | None
    std: Values | None
    share: float
    mean_is_on_front: bool = False

    @property
    def is_confirmed(self) -> bool:
        return self.share >= ENOUGH

    @property
    def optimism(self) -> Values | None:
        """By how much the selected values lie above the means."""
        return self.mean and {goal: self.selected[goal] - mean for goal, mean in self.mean.items()}


@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """All members, best first goal first, and the surfaces that their seeds attain: [P, 2] by the number of seeds.

    `seeds` are those with which every member has ended; `unfinished` counts the others, which are left out.
    """

    study: Path
    folder: Path
    goals: tuple[str, ...]
    attack: str | None
    norm: str | None
    epsilon: float | None
    split: str | None
    images: int | None
    epochs: int
    seeds: list[int]
    unfinished: int
    members: list[Member]
    surfaces: list[Floats] = field(default_factory=list)
    dials: list[MeanCurve] = field(default_factory=list)
    """Of the members whose runs were measured at settings of their dials, alike; the best first goal first."""

    @property
    def optimism(self) -> Values:
        """By how much selected values lie above the means, on average over the members."""
        known = [member.optimism for member in self.members if member.optimism]
        return {goal: fmean(each[goal] for each in known) for goal in self.goals} if known else {}

    @property
    def confirmed(self) -> list[Member]:
        return [member for member in self.members if member.is_confirmed]

    @property
    def is_shorter(self) -> bool:
        """Whether the seeds were trained for another number of epochs than what was selected."""
        return any(member.epochs != self.epochs for member in self.members)

    def surface(self, percent: int) -> Floats:
        """[P, 2] of the points that at least so many percent of the seeds attain; empty where there are none."""
        wanted = level(percent, len(self.seeds))
        return self.surfaces[wanted - 1] if wanted <= len(self.surfaces) else np.empty((0, 2))


def load(study: Path, folder: Path) -> Confirmation:
    """The confirmation in `folder` of the front of `study`.

    ValueError where it is none, and where no seed has ended with every member yet.
    """
    goals = reader.metadata(study).goals
    if "param_member" not in reader.schema(folder).names:
        raise ValueError(f"{folder} is not a confirmation: its trials have no `param_member`")
    conditions = ("attack", "norm", "epsilon", "split", "images")
    columns = ["trial_id", "attempt", "status", "param_member", "param_seed", "config", *goals, *conditions]
    rows = _latest(folder, list(dict.fromkeys(columns)))
    originals = {row["number"]: row for row in _latest(study, None)}
    numbers = list(dict.fromkeys(row["param_member"] for row in rows))
    if missing := [number for number in numbers if number not in originals]:
        raise ValueError(f"{folder} has members that {study} has no trial of: {', '.join(map(str, missing))}")
    ended: dict[int, dict[int, Mapping[str, Any]]] = {}
    for row in rows:
        of_seed = ended.setdefault(row["param_seed"], {})
        if row["status"] in ENDED:
            of_seed[row["param_member"]] = row
    seeds = [seed for seed, of_seed in ended.items() if len(of_seed) == len(numbers)]
    if not seeds:
        raise ValueError(f"{folder}: no seed has ended with all of its {len(numbers)} members yet; go on with it first")
    complete = [row for row in rows if row["status"] == "complete" and row["param_seed"] in seeds]
    runs = {seed: {row["param_member"]: row for row in complete if row["param_seed"] == seed} for seed in seeds}
    members = summaries(
        {number: originals[number] for number in numbers},
        {seed: {n: {goal: row[goal] for goal in goals} for n, row in of.items()} for seed, of in runs.items()},
        goals,
    )
    points = [_points([of_seed[goal] for goal in goals] for of_seed in each.values()) for each in runs.values()]
    first: Mapping[str, Any] = complete[0] if complete else dict.fromkeys(conditions)
    return Confirmation(
        study=study,
        folder=folder,
        goals=goals,
        **{name: first[name] for name in conditions},
        epochs=reader.config(folder, rows[0])["epochs"],
        seeds=seeds,
        unfinished=len(ended) - len(seeds),
        members=members,
        surfaces=surfaces(points) if len(goals) == 2 else [],
        dials=_curves(folder, members, complete),
    )


def _curves(folder: Path, members: Sequence[Member], complete: Sequence[Mapping[str, Any]]) -> list[MeanCurve]:
    """The curve of each member whose runs were measured at settings of their dials, as they were in the search."""
    runs = {row["trial_id"]: row for row in complete}
    whole = ["epochs_done", "is_full_fidelity"]
    same = ("attack", "norm", "epsilon", "split", "images")
    rows = [
        row
        for row in evaluations.read(folder, dialled=True)
        if (run := runs.get(row.trial_id)) and all(getattr(row, name) == run[name] for name in same)
    ]
    if not any(row.dial is not None for row in rows):
        return []
    table = reader.read(folder, "trials", ["trial_id", "attempt", "checkpoint", "config", *whole])
    table = reader.keep(table, reader.latest_attempt(table))
    points: dict[int, dict[int, dict[float, Point]]] = {}
    for (trial_id, dial), alike in evaluations.of_trials(folder, table, rows).items():
        run, newest = runs[trial_id], alike[-1]
        curve = points.setdefault(run["param_member"], {}).setdefault(run["param_seed"], {})
        curve[dial or 0.0] = newest.clean_correct / newest.images, newest.correct / newest.images
    found = (mean_curve(member.number, points.get(member.number, {})) for member in members)
    return [curve for curve in found if curve and len(curve.settings) > 1]


def summaries(
    originals: Mapping[int, Mapping[str, Any]], runs: Mapping[int, Mapping[int, Values]], goals: Sequence[str]
) -> list[Member]:
    """A Member of each original trial (by its number), from its goals by seed and number; a failed run is not there."""
    on_front = dict.fromkeys(originals, 0)
    for of_seed in runs.values():
        mask = non_dominated(_points([values[goal] for goal in goals] for values in of_seed.values()))
        for number, is_on_front in zip(of_seed, mask.tolist(), strict=True):
            on_front[number] += is_on_front
    members = []
    for number, row in originals.items():
        own = {seed: dict(of_seed[number]) for seed, of_seed in runs.items() if number in of_seed}
        values = {goal: [each[goal] for each in own.values()] for goal in goals}
        params = {name.removeprefix("param_"): value for name, value in row.items() if name.startswith("param_")}
        members.append(
            Member(
                number=number,
                trial_id=row["trial_id"],
                params={name: value for name, value in params.items() if value is not None},
                selected={goal: row[goal] for goal in goals},
                epochs=row["epochs_done"],
                runs=own,
                mean={goal: fmean(values[goal]) for goal in goals} if own else None,
                std={goal: stdev(values[goal]) for goal in goals} if len(own) > 1 else None,
                share=on_front[number] / len(runs),
            )
        )
    means = [[member.mean[goal] if member.mean else np.nan for goal in goals] for member in members]
    marked = [
        Member(**(vars(member) | {"mean_is_on_front": is_on_front}))
        for member, is_on_front in zip(members, non_dominated(_points(means)).tolist(), strict=True)
    ]
    return sorted(marked, key=lambda member: ([-member.selected[goal] for goal in goals], member.number))


def is_finished(folder: Path, trials: int) -> bool:
    """Whether as many trials of a study have ended already."""
    if not reader.part_files(folder / "trials"):
        return False
    status = [row["status"] for row in _latest(folder, ["trial_id", "attempt", "status"])]
    return sum(each in ENDED for each in status) >= trials and "running" not in status and "stopped" not in status


def as_json(confirmation: Confirmation) -> dict[str, Any]:
    """Everything, in fractions."""
    conditions = ("goals", "attack", "norm", "epsilon", "split", "images", "epochs", "seeds", "unfinished", "optimism")
    members = [
        vars(member) | {"is_confirmed": member.is_confirmed, "optimism": member.optimism}
        for member in confirmation.members
    ]
    return {
        "study": f"{confirmation.study}",
        "confirmation": str(confirmation.folder),
        **{name: getattr(confirmation, name) for name in conditions},
        "confirmed": [member.number for member in confirmation.confirmed],
        "members": members,
        "dials": [confirmed_dials.as_json(curve) for curve in confirmation.dials],
        "surfaces": {str(percent): confirmation.surface(percent).tolist() for percent in PERCENTS},
    }


def _latest(study: Path, columns: Sequence[str] | None) -> list[dict[str, Any]]:
    trials = reader.read(study, "trials", columns)
    rows: list[dict[str, Any]] = reader.keep(trials, reader.latest_attempt(trials)).to_pylist()
    return rows


def _points(rows: Any) -> Floats:
    points = np.array(list(rows), dtype=np.float64)
    return points if points.ndim == 2 else np.empty((0, 2))
