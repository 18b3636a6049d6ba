"""The learning curves of any study, whatever proposed its trials, from its tables and its study.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from arat_ray.experiment.search import Domain
from arat_ray.frontier.curves import Curves
from arat_ray.frontier.importance import Importance, importance
from arat_ray.results import reader
from arat_ray.results.schema import PARAM
from arat_ray.study import rerun_config
from arat_ray.study.curve_record import Hearing, of_goals, powers, space_of

LEAST = 8
"""Trials that have measured something, below which nothing is said of knobs."""


def search_of(study: Path) -> dict[str, Domain]:
    """The domains of a study; ValueError where nothing varies in it."""
    search = rerun_config.description(study).get("search") or {}
    if not search:
        raise ValueError(f"{study}: nothing varies in it; it was begun without `search:`")
    columns = reader.schema(study)
    integers = {path for path in search if pa.types.is_integer(columns.field(PARAM + path).type)}
    return {path: _domain(domain, integers=path in integers) for path, domain in search.items()}


def _domain(written: Mapping[str, Any], *, integers: bool) -> Domain:
    """As study.json has it, where the labels of a choice are text; of `integers` they were none."""
    given = {key: value for key, value in written.items() if value is not None}
    if integers and isinstance(choice := given.get("choice"), dict):
        given["choice"] = {int(label): value for label, value in choice.items()}
    return Domain.model_validate(given)


def curves_of(study: Path) -> Curves:
    """What all its trials have measured. ValueError where nothing varies, or fewer than LEAST measured anything."""
    goals, search = reader.metadata(study).goals, search_of(study)
    validation = rerun_config.description(study)["validate"]
    table = reader.read(study, "trials")
    rows = reader.keep(table, reader.latest_attempt(table)).to_pylist()
    epochs = [row for row in reader.read(study, "epochs").to_pylist() if row["validation_images"]]
    if (there := len({row["trial_id"] for row in epochs})) < LEAST:
        raise ValueError(f"{study}: {there} trials have measured something; a model of its knobs needs {LEAST}")
    last, every = max(row["epochs_done"] for row in rows), validation["every"]
    curves = Curves(
        space_of(search),
        last=last,
        every=every,
        keep=powers(every, last),
        reference=[0.0] * len(goals),
        floor=False,
        **of_goals(goals, validation["images"]),
    )
    hearing = Hearing(curves, goals, choose=validation["choose"])
    for row in sorted(rows, key=lambda row: row["number"]):
        hearing({"asked": {"number": row["number"], "sampled": _sampled(row)}})
    for row in epochs:
        hearing({"epoch": row})
    for row in rows:
        hearing({"ended": row})
        if row["epochs_done"] == last and (reached := hearing.reached.get(row["number"])):
            curves.measured(row["number"], last, reached)  # of one that has not ended
    return curves


def importance_of(study: Path) -> list[Importance]:
    """How much each knob of a study moves each goal and the front. ValueError as `curves_of` has it."""
    return importance(curves_of(study), sets=sets_of(search_of(study)))


def sets_of(search: Mapping[str, Domain]) -> dict[str, dict[Any, frozenset[str]]]:
    """Of each choice among lists of words, such as layers, what each label's list holds."""
    return {
        path: {label: frozenset(members) for label, members in domain.choice.items()}
        for path, domain in search.items()
        if isinstance(domain.choice, dict) and all(map(_is_list_of_words, domain.choice.values()))
    }


def _is_list_of_words(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _sampled(row: dict[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(PARAM): row[name] for name in row if name.startswith(PARAM) and row[name] is not None}
