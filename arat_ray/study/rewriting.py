"""All that is known of a study, written down again: as the events of a new record, and as tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from arat_ray.experiment import constraints
from arat_ray.experiment.spec import Experiment
from arat_ray.frontier.dominance import non_dominated
from arat_ray.frontier.eligibility import competes
from arat_ray.results import merging
from arat_ray.results.rows import TrialRow
from arat_ray.results.schema import PARAM, TABLES
from arat_ray.results.segments import Event
from arat_ray.study.facts import Facts, Key, attempt_of, key_of, schema
from arat_ray.study.state import number_of


def table(facts: Facts, name: str, experiment: Experiment, study: Path) -> pa.Table:
    """A table as all facts have it; rows of epochs in the order of `events`."""
    if name == "trials":
        return merging.from_rows(_marked(facts.trials, experiment.maximize), schema(name, experiment, study))
    found = facts.tables.get(name)
    if found is None:
        return schema(name, experiment, study).empty_table()
    return _in_order(found) if name == "epochs" else found


def events(facts: Facts, experiment: Experiment) -> Iterator[Event]:
    """A record that says all of it: every trial asked, then the epochs, then the decisions and how trials ended."""
    yield from ({"study": start} for start in facts.starts)
    yield from ({"learned": each} for each in facts.learned)
    attempts: dict[str, list[TrialRow]] = {}
    for row in sorted(facts.trials.values(), key=attempt_of):
        attempts.setdefault(row["trial_id"], []).append(row)
    rows = {number_of(name): of_trial[-1] for name, of_trial in attempts.items()}
    for number in sorted(facts.asked.keys() | rows.keys()):
        asked = facts.asked.get(number)
        yield {"asked": asked or {"number": number, "sampled": _sampled(rows[number], experiment)}}
    at = dict.fromkeys(attempts, 0)

    def until(name: str, attempt: int) -> Iterator[Event]:
        """Start the attempts at a trial up to this one, each before it lost."""
        while at[name] < len(attempts[name]) and (not at[name] or attempts[name][at[name] - 1]["attempt"] < attempt):
            if at[name]:
                yield {"lost": attempts[name][at[name] - 1]}
            began = {"status": "running", "error": None, "stop_reason": None, "ended_at": None}
            yield {"started": {**attempts[name][at[name]], **began}}
            at[name] += 1

    for chunk in _in_order(facts.tables["epochs"]).to_batches(max_chunksize=merging.AT_ONCE):
        for epoch in chunk.to_pylist():
            yield from until(epoch["trial_id"], epoch["attempt"])
            yield {"epoch": _plain(epoch, "epochs")}
    for name, of_trial in attempts.items():
        yield from until(name, of_trial[-1]["attempt"])
    if "decisions" in facts.tables:
        for row in sorted(facts.tables["decisions"].to_pylist(), key=lambda row: int(row["order"])):
            yield {"decision": _plain(row, "decisions")}
    order = {key: i for i, key in enumerate(facts.order)}
    ended = [of_trial[-1] for of_trial in attempts.values() if of_trial[-1]["status"] != "running"]
    more = _missing_more(facts, ended, experiment)
    for row in sorted(ended, key=lambda row: (order.get(key_of(row), len(order)), str(row.get("ended_at")))):
        yield {"ended": row, **more.get(key_of(row), {})}


def _plain(row: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A row as it is reported: without nulls, and what is by name by name."""
    maps = {field.name for field in TABLES[name].schema if pa.types.is_map(field.type)}
    return {column: dict(value) if column in maps else value for column, value in row.items() if value is not None}


def _marked(trials: Mapping[Key, TrialRow], goals: tuple[str, ...]) -> list[Mapping[str, Any]]:
    """The rows with `on_front`, as a running study marks it."""
    rows: Mapping[Key, Mapping[str, Any]] = trials
    competing = [key for key, row in rows.items() if competes(row, goals)]
    points = np.array([[rows[key][goal] for goal in goals] for key in competing]).reshape(-1, len(goals))
    front = {key for key, on in zip(competing, non_dominated(points), strict=True) if on}
    return [{**row, "on_front": key in front} for key, row in rows.items()]


def _in_order(epochs: pa.Table) -> pa.Table:
    """The rows where they are, but those of each trial in the order of its attempts and epochs."""
    places: dict[str, list[int]] = {}
    keys = merging.keys(epochs, TABLES["epochs"].key)
    for place, (name, _, _) in enumerate(keys):
        places.setdefault(name, []).append(place)
    order = np.arange(len(keys))
    for of_trial in places.values():
        order[of_trial] = sorted(of_trial, key=lambda place: keys[place][1:])
    return epochs if (order == np.arange(len(keys))).all() else epochs.take(pa.array(order))


def _sampled(row: TrialRow, experiment: Experiment) -> dict[str, Any]:
    """What a trial has sampled, from its row."""
    values: Mapping[str, Any] = row
    sampled = {path: values.get(f"{PARAM}{path}") for path in experiment.search}
    found = {path: value for path, value in sampled.items() if value is not None}
    for path, value in found.items():
        if labels := experiment.search[path].labels:
            found[path] = labels[labels.index(value)]  # a whole number again, where the column is of floats
    return found


def _missing_more(facts: Facts, ended: list[TrialRow], experiment: Experiment) -> dict[Key, Event]:
    """What the end of a trial says beside its row, where the record does not have it: from the trial's epochs."""
    goals, more = experiment.maximize, dict(facts.more)
    wanted = {key_of(row): row for row in ended if key_of(row) not in more}
    if experiment.constraints or experiment.early_stopping:
        names = {name for name, _ in wanted}
        columns = [name for name in experiment.constraints if name in constraints.OF_EPOCHS]
        columns += [f"validation_{goal}" for goal in goals]
        epochs = facts.tables["epochs"].select([*dict.fromkeys(["trial_id", "epoch", "validation_images", *columns])])
        of_trial: dict[str, list[Mapping[str, Any]]] = {}
        for row in epochs.to_pylist():
            if row["trial_id"] in names:
                of_trial.setdefault(row["trial_id"], []).append(row)
        for key, trial in wanted.items():
            measured = of_trial.get(key[0], [])
            if trial["status"] == "complete" and experiment.constraints:
                last = {name: row[name] for row in measured for name in columns if row[name] is not None}
                values: Mapping[str, Any] = trial
                known = last | {name: values.get(name) for name in constraints.OF_TRIALS}
                more[key] = {"violations": constraints.check(experiment.constraints, known).violations}
            if trial["status"] == "pruned":
                curve = {row["epoch"]: row for row in measured if row["validation_images"]}
                points = {goal: [row[f"validation_{goal}"] for row in curve.values()] for goal in goals}
                more[key] = {"curve": {"epoch": list(curve), **points}}
    return more
