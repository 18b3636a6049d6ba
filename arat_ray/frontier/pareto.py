"""The Pareto front of one or several studies, from their tables alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from arat_ray import text
from arat_ray.frontier import evaluations, repeats
from arat_ray.frontier.attributes import dataset
from arat_ray.frontier.dominance import Floats, hypervolume, non_dominated, wilson
from arat_ray.frontier.evaluations import Conditions
from arat_ray.results import reader
from arat_ray.results.schema import ACCURACIES

OF_FILES = ("image_folder", "parquet")
"""Data sets that may hold any images."""


class Others(NamedTuple):
    """The candidates that are not on the front: where each comes from, and points [M, G]."""

    studies: list[str]
    trial_ids: list[str]
    points: Floats
    dials: Sequence[float | None] = ()
    """The setting of each, None as deployed; empty where no settings compete."""


class Coverage(NamedTuple):
    """How many of the trials that may compete were evaluated, and so do."""

    evaluated: int
    trials: int
    are_complete: bool

    def __str__(self) -> str:
        return f"{self.evaluated:,} of {self.trials:,} {'complete ' * self.are_complete}trials evaluated"


class Searched(NamedTuple):
    """What the search measured of the trials on a front of evaluations, points [F, G] in their order, and how."""

    points: Floats
    attack: str | None
    norm: str | None
    epsilon: float | None
    split: str | None
    images: int | None


@dataclass(frozen=True, kw_only=True)
class Front:
    """The non-dominated trials of one or several studies, with the conditions under which they were measured.

    `trials` is sorted by the goals, the best first goal first. Each has study (its path), trial_id, attempt,
    number, status, is_full_fidelity, images, epochs_done, checkpoint, every goal with `<goal>_low` and
    `<goal>_high` (Wilson, 95 %; None for a goal that is not an accuracy) and `params`, without the null ones.
    `images` is None where the trials differ. The accuracies are those of the trials' validation, or of the evaluations
    that were asked for; then `coverage` says how many trials have one. Where settings of dials compete, each trial has
    `dial`, None as deployed, and may be there several times. With `over_seeds` each stands for all trials that differ
    from it only in the seed: its goals are their means, `<goal>_sd` their standard deviations (None of one run),
    `seeds` theirs, and there are no intervals.
    """

    goals: tuple[str, ...]
    reference_point: tuple[float, ...]
    hypervolume: float
    attack: str | None
    norm: str | None
    epsilon: float | None
    split: str | None
    images: int | None
    trials: list[dict[str, Any]]
    others: Others
    counts: dict[str, int]  # all trials, by status
    coverage: Coverage | None = None
    settings: int = 0  # of dials that compete beside the networks as deployed
    infeasible: int = 0  # complete trials that broke a constraint
    searched: Searched | None = None  # where `coverage` is, and no dials compete: they were not in the search
    ahead: int = 0  # trials before their last epoch that would be on the front, did they compete
    over_seeds: bool = False
    studies: tuple[str, ...] = ()


def load_front(
    studies: Sequence[Path],
    *,
    include_partial: bool = False,
    asked: Conditions | None = None,
    dials: bool = False,
    over_seeds: bool = False,
) -> Front:
    """The front over all trials of these studies; of each trial the last attempt counts.

    Only complete trials of full fidelity that broke no constraint compete; `include_partial` lets the last values of
    trials in that are not complete. The accuracies are the trials' own or, where `asked`, those of the evaluations, and
    trials without one do not compete. With `dials` each measured setting of a trial's dial competes beside it, and with
    `over_seeds` trials that differ only in the seed are one point, their mean.
    ValueError where studies differ in goals, reference point, data set, attack or split, and where nothing competes.
    """
    if not studies:
        raise ValueError("no study given")
    metadata = [reader.metadata(study) for study in studies]
    _refuse_mixed("goals", studies, [[each.goals] for each in metadata])
    _refuse_mixed("reference point", studies, [[each.reference_point] for each in metadata])
    goals, reference = metadata[0].goals, metadata[0].reference_point
    counts: Counter[str] = Counter()
    infeasible: Counter[bool] = Counter()
    unfinished: list[Floats] = []
    tables = [
        _candidates(
            study,
            goals,
            include_partial=include_partial,
            is_evaluated=bool(asked) or dials,
            counts=counts,
            broken=infeasible,
            unfinished=unfinished,
        )
        for study in studies
    ]
    competing = sum(each.num_rows for each in tables)
    if not competing:
        if infeasible[True]:
            raise ValueError(_none_feasible(studies, infeasible[True]))
        raise ValueError(_why_empty(studies, counts, partial=sum(map(len, unfinished))))
    before = tables
    if len(studies) > 1:
        _refuse_other_data(studies)
    if asked or dials:
        asked = asked or Conditions()
        if not set(goals) & set(ACCURACIES):
            raise ValueError(f"no goal of {', '.join(goals)} is an accuracy: leave {f'{asked}' or '--dial'} out")
        tables = evaluations.in_place(studies, tables, asked, dials=dials)
    table = pa.concat_tables(tables, promote_options="permissive")  # studies may differ in their params
    for condition in ("attack", "norm", "epsilon", "split"):
        _refuse_mixed(condition, studies, [each[condition].unique().to_pylist() for each in tables])

    points = _points(table, goals)
    origin = np.repeat([f"{study}" for study in studies], [each.num_rows for each in tables])
    alike = repeats.of(studies, table, origin.tolist(), points) if over_seeds else None
    if alike:
        table, origin, points = reader.take(table, alike.first), origin[alike.first], alike.means
    mask = non_dominated(points)
    rows = reader.keep(table, mask).to_pylist()
    trials = [_trial(row, study, goals) for row, study in zip(rows, origin[mask].tolist(), strict=True)]
    if alike:
        trials = [
            _mean(trial, alike, row, goals) for trial, row in zip(trials, np.flatnonzero(mask).tolist(), strict=True)
        ]
    trials.sort(key=lambda trial: [-trial[goal] for goal in goals])
    images = table["images"].unique().to_pylist()
    return Front(
        goals=goals,
        reference_point=reference,
        hypervolume=hypervolume(points[mask], reference),
        **{name: table[name][0].as_py() for name in ("attack", "norm", "epsilon", "split")},
        images=images[0] if len(images) == 1 else None,
        trials=trials,
        others=Others(
            origin[~mask].tolist(),
            reader.keep(table, ~mask)["trial_id"].to_pylist(),
            points[~mask],
            reader.keep(table, ~mask)["dial"].to_pylist() if dials else (),
        ),
        counts=dict(counts),
        coverage=Coverage(_evaluated(tables), competing, not include_partial) if asked else None,
        settings=sum(len(each) - each["dial"].null_count for each in tables) if dials else 0,
        infeasible=infeasible[True],
        searched=_searched(studies, before, trials, goals) if asked and not dials and not alike else None,
        ahead=0 if asked or alike else _ahead(points[mask], unfinished),
        over_seeds=over_seeds,
        studies=tuple(f"{study}" for study in studies),
    )


def _evaluated(tables: Sequence[pa.Table]) -> int:
    return sum(len(table["trial_id"].unique()) for table in tables)


def _searched(
    studies: Sequence[Path], tables: Sequence[pa.Table], trials: Sequence[Mapping[str, Any]], goals: Sequence[str]
) -> Searched | None:
    """None where the trials of the front were not measured alike in the search."""
    rows = {
        (f"{study}", row["trial_id"]): row
        for study, table in zip(studies, tables, strict=True)
        for row in table.select([*dict.fromkeys(["trial_id", *evaluations.CONDITIONS, *goals])]).to_pylist()
    }
    own = [rows[trial["study"], trial["trial_id"]] for trial in trials]
    points = np.array([[row[goal] for goal in goals] for row in own], dtype=np.float64)
    conditions = {tuple(row[name] for name in evaluations.CONDITIONS) for row in own}
    if len(conditions) != 1 or np.isnan(points).any():
        return None
    return Searched(points, *conditions.pop())


def _ahead(front: Floats, unfinished: Sequence[Floats]) -> int:
    """How many of the points that do not compete no point of the front dominates."""
    others = np.concatenate([front[:0], *unfinished])
    return int(non_dominated(np.concatenate([front, others]))[len(front) :].sum())


def _candidates(
    study: Path,
    goals: Sequence[str],
    *,
    include_partial: bool,
    is_evaluated: bool,
    counts: Counter[str],
    broken: Counter[bool],
    unfinished: list[Floats],
) -> pa.Table:
    """The trials of a study that may compete; every trial is counted by its status, and by whether it is infeasible.

    To `unfinished` go the points of those that would compete if partial ones were included.
    Where evaluations give the accuracies, a trial needs its other goals and a checkpoint.
    """
    names = reader.schema(study).names
    columns = ["trial_id", "attempt", "number", "status", "is_full_fidelity", *goals, "images", "attack", "norm"]
    columns += ["epsilon", "split", "epochs_done", "checkpoint", *(n for n in names if n.startswith("param_"))]
    columns += ["config"] if is_evaluated else []
    columns += ["feasible"]
    table = reader.read(study, "trials", list(dict.fromkeys(columns)))
    table = reader.keep(table, reader.latest_attempt(table))
    status = table["status"].to_pylist()
    counts.update(Counter(status))
    own = [goal for goal in goals if goal not in ACCURACIES] if is_evaluated else goals
    mask = np.asarray(~np.isnan(_points(table, own)).any(axis=1))
    infeasible = np.array([value is False for value in table["feasible"].to_pylist()], dtype=bool)
    broken.update(infeasible.tolist())
    mask &= ~infeasible
    table = table.drop_columns(["feasible"])
    if not include_partial:
        full = table["is_full_fidelity"].to_pylist()
        whole = np.array([a == "complete" and b is True for a, b in zip(status, full, strict=True)], dtype=bool)
        unfinished.append(_points(table, goals)[mask & ~whole])
        mask &= whole
    return reader.keep(table, mask)


def _none_feasible(studies: Sequence[Path], infeasible: int) -> str:
    shown = text.command("arat-ray", "pareto", *studies, "--infeasible")
    return f"every trial that could compete, {infeasible}, broke a constraint: {shown}"


def at_setting(trial: Mapping[str, Any]) -> str:
    """` at t = 0.4` of a member that is a setting of its trial's dial; empty of a deployed one."""
    dial = trial.get("dial")
    return "" if dial is None else f" at t = {dial:g}"


def _trial(row: Mapping[str, Any], study: str, goals: Sequence[str]) -> dict[str, Any]:
    """One trial of the front as `Front.trials` has it."""
    trial: dict[str, Any] = {"study": study}
    trial |= {name: value for name, value in row.items() if not name.startswith("param_")}
    for goal in goals:
        low = high = None
        if goal in ACCURACIES and row["images"]:
            low, high = map(float, wilson(np.rint(row[goal] * row["images"]), row["images"]))
        trial |= {f"{goal}_low": low, f"{goal}_high": high}
    params = {name.removeprefix("param_"): value for name, value in row.items() if name.startswith("param_")}
    return trial | {"params": {name: value for name, value in params.items() if value is not None}}


def _mean(trial: dict[str, Any], alike: repeats.Repeats, row: int, goals: Sequence[str]) -> dict[str, Any]:
    """The trial as the one that stands for all with its configuration."""
    params = {name: value for name, value in trial["params"].items() if name != "seed"}
    found = {**trial, "seeds": alike.seeds[row], "params": params}
    for goal, mean, sd in zip(goals, alike.means[row].tolist(), alike.sds[row].tolist(), strict=True):
        found |= {goal: mean, f"{goal}_low": None, f"{goal}_high": None, f"{goal}_sd": None if np.isnan(sd) else sd}
    return found


def _points(table: pa.Table, goals: Sequence[str]) -> Floats:
    """float [N, G], NaN where a goal is null."""
    columns = [table[goal].to_pylist() for goal in goals]
    return np.array(columns, dtype=np.float64).reshape(len(goals), table.num_rows).T


def _refuse_other_data(studies: Sequence[Path]) -> None:
    """One front needs one data set."""
    names = [dataset([study]) for study in studies]
    known = {name for name in names if name not in (None, *OF_FILES)}
    if len(known) > 1:
        _refuse_mixed("their data set", studies, [[name] for name in names])


def _refuse_mixed(what: str, studies: Sequence[Path], values: Sequence[Sequence[Any]]) -> None:
    """One front needs one answer; values holds those of each study."""
    if len({value for each in values for value in each}) > 1:
        each_study = (f"{study}: {', '.join(map(str, each))}" for study, each in zip(studies, values, strict=True))
        raise ValueError(f"cannot compare trials that differ in {what} ({'; '.join(each_study)})")


def _why_empty(studies: Sequence[Path], counts: Mapping[str, int], *, partial: int) -> str:
    where = ", ".join(map(str, studies))
    if not counts:
        return f"no trial yet in {where}"
    trials = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    if not partial:
        return f"no trial with a measurement yet in {where} ({trials})"
    shown = text.command("arat-ray", "pareto", *studies, "--partial")
    return f"no complete trial at full fidelity yet in {where} ({trials}); the front of what they reached: {shown}"
