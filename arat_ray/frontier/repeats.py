"""Trials that differ only in the seed, as one point: the mean of their goals and the standard deviation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from arat_ray.frontier.dominance import Floats
from arat_ray.results import reader


class Repeats(NamedTuple):
    """Of each point [N] the first of its rows, their seeds, and the goals' means and deviations [N, G].

    A deviation is that of a sample (n - 1), and NaN of a single run.
    """

    first: list[int]
    seeds: list[list[int]]
    means: Floats
    sds: Floats


def of(studies: Sequence[Path], table: pa.Table, origin: Sequence[str], points: Floats) -> Repeats:
    """Of rows of trials, each of the study `origin` [M] with the goals `points` [M, G].

    Runs belong together, in whichever of the studies, where their configurations are equal but for `seed`; settings of
    a dial where they are equal as well. Of several with the same seed, which differ by nothing, the last counts.
    ValueError where no two runs belong together.
    """
    configs = {(f"{study}", name): config for study in studies for name, config in _configs(study)}
    dials = table["dial"].to_pylist() if "dial" in table.column_names else [None] * len(origin)
    groups: dict[object, dict[int, int]] = {}
    for row, (study, trial, dial) in enumerate(zip(origin, table["trial_id"].to_pylist(), dials, strict=True)):
        config = json.loads(configs[study, trial] or "{}")
        seed = config.pop("seed", 0)
        key = json.dumps(config, sort_keys=True) if config else (study, trial)
        groups.setdefault((key, dial), {})[seed] = row
    if all(len(rows) == 1 for rows in groups.values()):
        raise ValueError(
            f"--seeds: no two of the {len(groups)} trials differ only in the seed; arat-ray confirm STUDY --seeds 3 "
            "trains the members of a front again, and pareto takes the folder of that"
        )
    rows_of = [list(rows.values()) for rows in groups.values()]
    return Repeats(
        [rows[0] for rows in rows_of],
        [sorted(rows) for rows in groups.values()],
        np.array([points[rows].mean(axis=0) for rows in rows_of]),
        np.array([points[rows].std(axis=0, ddof=1) if len(rows) > 1 else points[rows][0] * np.nan for rows in rows_of]),
    )


def _configs(study: Path) -> list[tuple[str, str | None]]:
    """By trial_id; all attempts at one have the same."""
    table = reader.read(study, "trials", ["trial_id", "config"])
    return list(zip(table["trial_id"].to_pylist(), table["config"].to_pylist(), strict=True))
