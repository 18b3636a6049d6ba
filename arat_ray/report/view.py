"""What the report shows of its studies, from their tables alone: values that JSON has, numbers rounded for the eye.

Of each trial the last attempt counts; its curves are the epochs of all attempts, where one was run twice the later one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from arat_ray.frontier import attributes, evaluations, references
from arat_ray.frontier.dominance import hypervolume, non_dominated, wilson
from arat_ray.frontier.eligibility import competes
from arat_ray.frontier.evaluations import Conditions, Evaluation
from arat_ray.frontier.importance import Importance
from arat_ray.json_files import read_json
from arat_ray.pixels import format_pixels
from arat_ray.report import epoch_curves, facts, ladders, timeline
from arat_ray.report.carried import name_of
from arat_ray.results import reader
from arat_ray.results.schema import ACCURACIES, PARAM
from arat_ray.text import command, plain
from arat_ray.version import __version__

DIGITS = 5
"""Of a number that is drawn; the tables that the report carries have all of them."""
NOT_LIVE = "A live page does not compute it."
Row = Mapping[str, Any]


def of(studies: Sequence[Path], importances: Sequence[Sequence[Importance] | str] = ()) -> dict[str, Any]:
    """Everything on the page; of the importance of knobs what is given.

    ValueError where a folder is no study, and for studies that do not lie on one plot."""
    goals = [reader.metadata(study).goals for study in studies]
    if len(set(goals)) > 1:
        each = "; ".join(f"{study}: {', '.join(names)}" for study, names in zip(studies, goals, strict=True))
        raise ValueError(f"one report shows studies of the same goals, these differ ({each}): write a report of each")
    found = [_study(study, goals[0]) for study in studies]
    for shown_of, study, known in zip(found, studies, importances or [NOT_LIVE] * len(studies), strict=True):
        shown_of["importance"] = _importance(study, known)
    _refuse_mixed(studies, [each["measured"] for each in found])
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    shown: dict[str, Any] = _plain({"goals": list(goals[0]), "studies": found, "made": made, "version": __version__})
    return shown


def _importance(study: Path, known: Sequence[Importance] | str) -> dict[str, Any]:
    """The knobs with their effects on each goal and last on the front, or why there are none; and the command."""
    shown: dict[str, Any] = {"command": command("arat-ray", "results", "importance", study), "knobs": [], "why": None}
    if isinstance(known, str):
        return shown | {"why": known}
    knobs = [
        {
            "knob": each.knob,
            "moved": [[_rounded(moved.best), _rounded(moved.worst), *map(_rounded, moved.by)] for moved in moves],
            "members": {member: [list(map(_rounded, effect)) for effect in by] for member, by in each.members.items()},
        }
        for each in known
        for moves in [[*each.goals, each.front]]
    ]
    return shown | {"knobs": knobs}


def _refuse_mixed(studies: Sequence[Path], measured: Sequence[Sequence[str]]) -> None:
    if len({how for each in measured for how in each}) > 1 and len(studies) > 1:
        each = "; ".join(
            f"{study}: {', '.join(how) or 'nothing'}" for study, how in zip(studies, measured, strict=True)
        )
        raise ValueError(f"studies that were measured unlike cannot lie on one plot ({each}): write a report of each")


def _study(study: Path, goals: Sequence[str]) -> dict[str, Any]:
    table = reader.read(study, "trials")
    every = table.to_pylist()
    rows = [row for row, last in zip(every, reader.latest_attempt(table), strict=True) if last]
    rows.sort(key=lambda row: row["number"] or 0)
    description = _description(study)
    competing = [row for row in rows if competes(row, goals) and all(math.isfinite(row[goal]) for goal in goals)]
    points = np.array([[row[goal] for goal in goals] for row in competing], dtype=np.float64).reshape(-1, len(goals))
    front = {row["trial_id"]: bool(on) for row, on in zip(competing, non_dominated(points), strict=True)}
    curves, decisions, measured = epoch_curves.of(study, goals), _decisions(study), evaluations.read(study)
    dialled = evaluations.read(study, dialled=True)
    beside = _beside(study, measured)
    knots, ended = timeline.of(every)
    evaluated: dict[str, list[dict[str, Any]]] = {}
    for each in dialled:
        evaluated.setdefault(each.trial_id, []).append(_evaluation(each))
    searched, images = _searched_dials(study, rows), {row["trial_id"]: row["images"] for row in rows}
    for dials in searched:
        for curve in dials["curves"]:
            evaluated.setdefault(curve["trial"], []).extend(_settings(dials["how"], curve, images[curve["trial"]]))
    params = [name for name in table.column_names if name.startswith(PARAM)]
    trials = [
        {
            "number": row["number"],
            "id": row["trial_id"],
            "status": row["status"],
            "kind": _kind(row, front),
            "goals": [_rounded(row[goal]) for goal in goals],
            "intervals": [_interval(row, goal) for goal in goals],
            "params": [_rounded(row[name]) for name in params],
            "epochs": row["epochs_done"],
            "knots": knots[row["trial_id"]],
            "ended": ended[row["trial_id"]],
            "seed": row["seed"],
            "device_s": _rounded(row["device_s"]),
            "reason": row["error"] or row["stop_reason"] or row["broken_constraints"],
            "proposed": _proposed(row, description),
            "config": row["config"],
            "curves": curves.get(row["trial_id"], {}),
            "decisions": decisions.get(row["trial_id"], []),
            "evaluations": evaluated.get(row["trial_id"], []),
            "commands": list(_commands(study, row)),
        }
        for row in rows
    ]
    return {
        "name": description.get("name") or name_of(study),
        "params": [name.removeprefix(PARAM) for name in params],
        "log": [_is_log(description, name.removeprefix(PARAM)) for name in params],
        "measured": sorted({facts.measured(row) for row in rows if row["images"]}),
        "trials": trials,
        "beside": beside,
        "ladders": ladders.of(measured),
        "published": _published(study, rows, measured),
        "dials": _dials(dialled) + searched,
        "hypervolume": _hypervolumes(competing, points, reader.metadata(study).reference_point, timeline.spent(every)),
        "facts": list(facts.of(study, description, rows, every)),
    }


def _kind(row: Row, on_front: Mapping[str, bool]) -> str:
    """How a trial is drawn; those that compete are either on the front or not."""
    if row["feasible"] is False:
        return "infeasible"
    if row["trial_id"] in on_front:
        return "front" if on_front[row["trial_id"]] else "dominated"
    return {"failed": "failed", "pruned": "early-stopped"}.get(row["status"], "unfinished")


def _interval(row: Row, goal: str) -> list[float | None] | None:
    """Wilson's, 95 %."""
    if goal not in ACCURACIES or row[goal] is None or not math.isfinite(row[goal]) or not row["images"]:
        return None
    return [_rounded(float(end)) for end in wilson(np.rint(row[goal] * row["images"]), row["images"])]


def _decisions(study: Path) -> dict[str, list[dict[str, Any]]]:
    """By trial_id, in the order of the rungs."""
    found: dict[str, list[dict[str, Any]]] = {}
    if reader.part_files(study / "decisions"):
        columns = ["trial_id", "rung", "goes_on", "why"]
        for row in sorted(reader.read(study, "decisions", columns).to_pylist(), key=lambda row: row["rung"]):
            found.setdefault(row["trial_id"], []).append(row)
    return found


def _evaluation(row: Evaluation) -> dict[str, Any]:
    ends = [[_rounded(float(end)) for end in wilson(count, row.images)] for count in (row.clean_correct, row.correct)]
    return {
        "how": f"{row}",
        "checkpoint": row.checkpoint,
        "clean": _rounded(row.clean_correct / row.images),
        "robust": _rounded(row.correct / row.images),
        "intervals": ends,
        "warnings": row.warnings,
    }


def _beside(study: Path, rows: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """Under each of the conditions of the evaluations, both accuracies by trial_id: those that a front would take.

    Of conditions under which no front could be drawn, because the trials were not measured alike, there is nothing.
    """
    columns = ["trial_id", "checkpoint", "config", "clean_accuracy", "robust_accuracy", "epochs_done"]
    columns += ["is_full_fidelity"]
    columns += evaluations.CONDITIONS
    trials, found = reader.read(study, "trials", columns), []
    trials = reader.keep(trials, reader.latest_attempt(reader.read(study, "trials", ["trial_id", "attempt"])))
    for how, row in {f"{row}": row for row in rows}.items():
        attack, norm, epsilon, split, images = row.conditions
        asked = Conditions(attack=attack, norm=norm, epsilon=epsilon, split=split, images=images, mode=row.mode)
        try:
            (table,) = evaluations.in_place([study], [trials], asked)
        except ValueError:
            continue
        values = zip(*(table[name].to_pylist() for name in columns[:1] + columns[3:5]), strict=True)
        found.append({"how": how, "points": {name: [_rounded(x), _rounded(y)] for name, x, y in values}})
    return sorted(found, key=lambda each: ("autoattack" not in each["how"], -len(each["points"])))


def _published(study: Path, rows: Sequence[Row], measured: Sequence[Evaluation]) -> dict[str, Any]:
    """Published points by the evaluations that were measured like them, with a sentence where there are none."""
    dataset, known = attributes.dataset_of(row["config"] for row in rows), references.published()
    points: dict[str, list[list[Any]]] = {}
    why: dict[str, str] = {}
    for how, row in {f"{row}": row for row in measured}.items():
        conditions = {name: getattr(row, name) for name in ("split", "attack", "norm", "epsilon")} | {
            "dataset": dataset
        }
        if found := references.fitting(known, conditions):
            columns = ("label", "clean_accuracy", "robust_accuracy", "clean_sd", "robust_sd", "source", "note")
            points[how] = [[getattr(each, name) for name in columns] for each in found]
        else:
            why[how] = "; ".join(references.reasons(known, conditions))
    return {"points": points, "why": why}


def _dials(rows: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """Under each of the conditions, of each network, soup and mixture its settings, with clean and robust accuracy."""
    found: dict[str, dict[tuple[str, str, str], dict[float, list[float]]]] = {}
    for row in rows:
        if row.dial is not None:
            shares = [_rounded(count / row.images) for count in (row.clean_correct, row.correct)]
            network = row.trial_id, row.checkpoint, row.checkpoint_sha256
            found.setdefault(f"{row._replace(dial=None)}", {}).setdefault(network, {})[row.dial] = [row.dial, *shares]
    return [{"how": how, "curves": list(map(_dial, networks.items()))} for how, networks in found.items()]


def _searched_dials(study: Path, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The same of what the search itself measured last of each trial, where it did (`validate.dials`)."""
    columns = ["validation_dial_clean_accuracy", "validation_dial_robust_accuracy"]
    if not reader.part_files(study / "epochs") or not {*columns} <= {*reader.schema(study, "epochs").names}:
        return []
    table = reader.read(study, "epochs", ["trial_id", "attempt", "epoch", *columns])
    last: dict[str, tuple[tuple[int, int], Row]] = {}
    for row in table.filter(table[columns[0]].is_valid()).to_pylist():
        at = row["attempt"], row["epoch"]
        if row["trial_id"] not in last or last[row["trial_id"]][0] < at:
            last[row["trial_id"]] = at, row
    found: dict[str, list[dict[str, Any]]] = {}
    for trial in rows:
        if trial["trial_id"] in last:
            clean, robust = (dict(last[trial["trial_id"]][1][column]) for column in columns)
            points = [[float(t), _rounded(clean[t]), _rounded(robust[t])] for t in sorted(clean, key=float)]
            curve = {"trial": trial["trial_id"], "weights": "last", "points": points}
            how = f"in the search, {facts.measured(trial)}, {trial['images']:,} images"
            found.setdefault(how, []).append(curve)
    return [{"how": how, "curves": curves} for how, curves in found.items()]


def _settings(how: str, curve: Mapping[str, Any], images: int) -> Iterator[dict[str, Any]]:
    """The settings of a curve as the evaluations of its trial."""
    for t, *shares in curve["points"]:
        ends = [[_rounded(float(end)) for end in wilson(np.rint(share * images), images)] for share in shares]
        named = {"how": f"{how}, dial {t:g}", "checkpoint": curve["weights"], "warnings": None}
        yield named | {"clean": shares[0], "robust": shares[1], "intervals": ends}


def _dial(network: tuple[tuple[str, str, str], dict[float, list[float]]]) -> dict[str, Any]:
    (trial, weights, _), points = network
    return {"trial": trial, "weights": weights, "points": sorted(points.values())}


def _hypervolumes(
    competing: Sequence[Row], points: Any, reference: Sequence[float], spent: Callable[[Any], Sequence[float | None]]
) -> list[list[float | None]]:
    """After each competing trial, in the order in which they ended: their number, hypervolume, and what was spent."""
    ends = [row["ended_at"].timestamp() if row["ended_at"] else math.inf for row in competing]
    front, found = points[:0], []
    for count, i in enumerate(np.argsort(ends, kind="stable"), 1):
        front = np.concatenate([front, points[i : i + 1]])
        front = front[non_dominated(front)]
        found.append([count, _rounded(hypervolume(front, reference)), *map(_rounded, spent(competing[i]["ended_at"]))])
    return found


def _description(study: Path) -> dict[str, Any]:
    """study.json; nothing where the tables were copied without it."""
    if not (study / "study.json").exists():
        return {}
    shape = {"name?": str, "experiment?": {"first?": list, "search?": dict, "sampler?": dict}, "versions?": dict}
    found: dict[str, Any] = read_json(study / "study.json", fix=reader.rebuild_with(study), shape=shape)
    return found


def _is_log(description: Row, name: str) -> bool:
    domain = ((description.get("experiment") or {}).get("search") or {}).get(name)
    return bool(isinstance(domain, dict) and domain.get("loguniform"))


def _proposed(row: Row, description: Row) -> str:
    """Where a trial's parameters come from, as far as the file of the study says."""
    experiment = description.get("experiment") or {}
    for given in experiment.get("first") or []:
        if isinstance(given, dict) and given and all(row.get(f"{PARAM}{name}") == given[name] for name in given):
            return "given in the file, under first:"
    sampler = (experiment.get("sampler") or {}).get("name")
    return f"by the sampler {sampler}" if sampler else "not known: there is no study.json beside the tables"


def _commands(study: Path, row: Row) -> Iterator[str]:
    """What to type about a trial."""
    if row["checkpoint"]:
        checkpoint = study / row["checkpoint"]
        if row["epsilon"] is not None:
            norm = ["--norm", row["norm"]] if row["norm"] not in (None, "linf") else []
            words = ["--attack", "autoattack", *norm, "--epsilon", format_pixels(row["epsilon"]), "--split", "test"]
            yield command("arat-ray", "evaluate", checkpoint, *words)
        yield command("arat-ray", "export", checkpoint, "-o", f"{row['trial_id']}.safetensors")
    yield command("arat-ray", "results", "why", study, row["trial_id"] if row["number"] is None else row["number"])


def _rounded(value: Any) -> Any:
    """A number with DIGITS digits, null where it is none; anything else as it is."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value


def _plain(value: Any) -> Any:
    """The same without anything in its texts that reorders or controls what stands around it."""
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, dict):
        return {plain(key): _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list) else value
