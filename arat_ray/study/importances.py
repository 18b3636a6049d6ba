"""How much each knob of a study moves each goal, for its report: computed where that takes seconds, else a sentence."""

from __future__ import annotations

from pathlib import Path

from arat_ray.frontier.importance import Importance
from arat_ray.json_files import read_json
from arat_ray.results import reader

KNOBS_AT_MOST = 20
"""The time grows with them: of three, half a second of CPU after the model is loaded."""
LEAST = 8
"""Trials below which no model of the knobs is fitted."""


def of(study: Path) -> list[Importance] | str:
    """The knobs, those that move the front most first, or why they are not there."""
    try:
        description = read_json(study / "study.json", fix=reader.rebuild_with(study), shape={"experiment?": dict})
        search = (description.get("experiment") or {}).get("search") or {}
        trials = len(set(reader.read(study, "trials", ["trial_id"])["trial_id"].to_pylist()))
        if not search:
            return "Nothing varies in this study."
        if len(search) > KNOBS_AT_MOST:
            return f"It is not computed here for more than {KNOBS_AT_MOST} knobs; there are {len(search)}."
        if trials < LEAST:
            return f"A model of the knobs needs {LEAST} trials that have measured something; there are {trials} trials."
        from arat_ray.study import known_curves

        return known_curves.importance_of(study)
    except FileNotFoundError:
        return "There is no study.json beside the tables, which says what varied."
    except (ValueError, KeyError) as error:
        return f"It cannot be computed: {error}"
