"""What a study's folder holds, at a glance, from its tables and its study.json."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from arat_ray import locks
from arat_ray.frontier import evaluations
from arat_ray.frontier.eligibility import competes
from arat_ray.frontier.pareto import load_front
from arat_ray.json_files import read_json
from arat_ray.report.listing import measured
from arat_ray.results import evaluation_records, reader
from arat_ray.results.schema import TABLES, goal_text
from arat_ray.results.segments import FOLDER
from arat_ray.text import command, line
from arat_ray.units import number

REASONS_AT_MOST = 5
BUDGETS = {
    "trials": "--trials",
    "hours": "--hours",
    "device_hours": "--device-hours",
    "usd": "--budget-usd",
    "gain": "--gain",
    "stall": "--stall",
}
"""Options of `tune` by the keys under `budget:`: a search that was given a limit keeps it when it goes on."""
FAILURES = 5
"""`max_failures` where nobody says another."""
COLUMNS = [
    "trial_id",
    "attempt",
    "number",
    "status",
    "is_full_fidelity",
    "stop_reason",
    "error",
    "device_s",
    "cost_usd",
]


def overview(study: Path) -> dict[str, Any]:
    """All of it, as JSON has it. ValueError where the folder is no study, and where a part of it is damaged."""
    goals = reader.metadata(study).goals
    table = reader.read(study, "trials", list(dict.fromkeys([*COLUMNS, *goals, "feasible"])))
    every = table.to_pylist()
    rows = [row for row, last in zip(every, reader.latest_attempt(table), strict=True) if last]
    statuses = Counter(row["status"] for row in rows)
    description = _description(study)
    _check_whole(study, description)
    competing = [row for row in rows if competes(row, goals)]
    front = load_front([study]) if competing else None
    total = _total(description)
    costs = [row["cost_usd"] for row in every if row["cost_usd"] is not None]
    best = {}
    for goal in goals:
        first = max(competing, key=lambda row: float(row[goal]), default=None)
        best[goal] = first and {"value": first[goal], "number": first["number"]}
    found = {
        "study": f"{study}",  # of a bucket its address
        "name": description.get("name", study.name),
        "kind": description.get("kind", "tune"),
        "goals": list(goals),
        "started_at": description.get("started_at") or [],
        "state": _state(study, statuses, total),
        "trials": dict(sorted(statuses.items())),
        "trials_in_all": total,
        "infeasible": sum(row.get("feasible") is False for row in rows),
        "best": best,
        "front": len(front.trials) if front else 0,
        "hypervolume": front.hypervolume if front else None,
        "measured": {name: getattr(front, name) for name in ("attack", "norm", "epsilon", "split", "images")}
        if front
        else None,
        "device_hours": sum(row["device_s"] or 0.0 for row in every) / 3600,
        "usd": sum(costs) if costs else None,
        "failed": _failed(rows),
        "evaluations": _evaluations(study),
        "rows": {name: _rows(study, name) for name in TABLES if reader.part_files(study / name)},
    }
    return found | {"next": list(_next(study, found, description))}


def is_live(study: Path) -> bool:
    """Whether a process writes to the study now: it holds the folder's lock."""
    return locks.is_held(study / ".lock")


def lines(found: dict[str, Any]) -> Iterator[str]:
    """What `overview` found, for people."""
    return map(line, _lines(found))


def _lines(found: dict[str, Any]) -> Iterator[str]:
    trials = sum(found["trials"].values())
    of = f" of {found['trials_in_all']}" if found["trials_in_all"] else ""
    counts = ", ".join(f"{count:,} {status}" for status, count in found["trials"].items()) or "none yet"
    starts = [datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M:%S UTC") for text in found["started_at"]]
    began = f"; started {starts[0]}" if starts else ""
    began += f", last {starts[-1]} ({len(starts)} times)" if len(starts) > 1 else ""
    yield f"{found['study']}: {found['state']}{began}"
    yield f"trials: {trials:,}{of}: {counts}" + (f"; {found['infeasible']} infeasible" if found["infeasible"] else "")
    values = [
        f"{goal.replace('_', ' ')} {goal_text(goal, best['value'])} (trial {best['number']})"
        for goal, best in found["best"].items()
        if best
    ]
    yield f"best: {', '.join(values) or 'nothing complete yet'}"
    if found["front"]:
        yield (
            f"front: {found['front']:,} trials, hypervolume {found['hypervolume']:.4f}; {measured(found['measured'])}"
        )
    usd = f", {found['usd']:.2f} usd" if found["usd"] is not None else ""
    yield f"cost: {number(found['device_hours'])} device-hours{usd}"
    for reason in found["failed"][:REASONS_AT_MOST]:
        yield f"failed: {reason['trials']:,}, as trial {reason['first']}: {reason['reason']}"
    if len(found["failed"]) > REASONS_AT_MOST:
        yield f"failed: for {len(found['failed']) - REASONS_AT_MOST} more reasons"
    for each in found["evaluations"]:
        yield f"evaluated: {each['checkpoints']:,} checkpoint(s) under {measured(each)}"
    yield "rows: " + ", ".join(f"{name} {count:,}" for name, count in found["rows"].items())
    for words in found["next"]:
        yield f"next: {words}"


def _description(study: Path) -> dict[str, Any]:
    """study.json; nothing where the tables were copied without it, ValueError where it cannot be read."""
    path, fix = study / "study.json", reader.rebuild_with(study)
    if not path.exists():
        return {}
    shape = {"name?": str, "kind?": str, "started_at?": list, "experiment?": {"budget?": {"trials?": int}}}
    description: dict[str, Any] = read_json(path, fix=fix, shape=shape)
    try:
        for moment in description.get("started_at") or []:
            datetime.fromisoformat(moment)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: started_at: {error}; {fix}") from error
    return description


def _check_whole(study: Path, description: dict[str, Any]) -> None:
    """ValueError where a file is missing, or is another study's; tables that were copied alone have no record."""
    fix = reader.rebuild_with(study)
    if not (study / FOLDER).is_dir():
        return
    if not description:
        raise ValueError(f"{study / 'study.json'} is missing; {fix}")
    evaluated = list(evaluation_records.TABLE_OF.values()) if evaluation_records.files(study) else []
    stops = (description.get("experiment") or {}).get("early_stopping")
    for name in ("epochs", *(["decisions"] if stops else []), *evaluated):
        if not reader.part_files(study / name):
            raise ValueError(f"{study} has lost its table {name!r}; {fix}")
    for part in [part for name in TABLES for part in reader.part_files(study / name)]:
        if not reader.is_of(part, description.get("record") or ""):
            raise ValueError(f"{part} is made from another record than the one that study.json names; {fix}")


def _total(description: dict[str, Any]) -> int | None:
    """How many trials the study is to have, where its file says so."""
    if description.get("kind") == "train":
        return 1
    total: int | None = ((description.get("experiment") or {}).get("budget") or {}).get("trials")
    return total


def _state(study: Path, statuses: Counter[str], total: int | None) -> str:
    if is_live(study):
        return "running"
    going_on = statuses["running"] + statuses["stopped"]
    if going_on or (total is not None and statuses.total() < total):
        return "interrupted"
    return "complete"


def _failed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Trials by why they failed, the most frequent reason first; numbers in a reason do not tell it apart."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["status"] == "failed":
            reason = row["error"] or "no reason given"
            kind = "".join(letter for letter in reason if not letter.isdigit() and letter not in ".+-")
            groups.setdefault(kind, []).append(row)
    found = [
        {"reason": each[0]["error"] or "no reason given", "trials": len(each), "first": each[0]["number"]}
        for each in groups.values()
    ]
    return sorted(found, key=lambda each: -each["trials"])


def _evaluations(study: Path) -> list[dict[str, Any]]:
    """What was evaluated: under which conditions how many checkpoints."""
    counts = Counter(row.conditions for row in evaluations.read(study))
    return [{**dict(zip(evaluations.CONDITIONS, each, strict=True)), "checkpoints": n} for each, n in counts.items()]


def _rows(study: Path, table: str) -> int:
    """From the footers alone."""
    return sum(map(reader.rows_in, reader.parts_without_a_gap(study / table)))


def _next(study: Path, found: dict[str, Any], description: dict[str, Any]) -> Iterator[str]:
    """What to type now."""
    if found["state"] == "interrupted" and description:
        limits = ((description.get("experiment") or {}).get("budget") or {}) if found["kind"] == "tune" else {}
        given = [(option, limits.get(name)) for name, option in BUDGETS.items()]
        given += [("--max-failures", most)] if (most := limits.get("max_failures")) != FAILURES else []
        budget = [word for option, limit in given if isinstance(limit, int | float) for word in (option, f"{limit}")]
        file = study / "study.yaml"
        yield command("arat-ray", found["kind"], file, "--results", study.parent, *budget, "--resume")
    if found["failed"]:
        yield command("arat-ray", "results", "trials", study, "--status", "failed")
    if found["front"]:
        yield command("arat-ray", "pareto", study, "--plot", "front.png")
    how = found["measured"]
    if found["state"] == "complete" and how and not found["evaluations"] and how["epsilon"] is not None:
        yield evaluations.with_autoattack(study, norm=how["norm"], epsilon=how["epsilon"], split="test")
    elif found["state"] == "complete" and found["front"] and found["kind"] == "tune":
        yield command("arat-ray", "confirm", study, "--seeds", 3)
