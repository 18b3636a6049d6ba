"""What a row of `trials` says of a trial before it has run: what it is, how it is measured, why it was proposed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from arat_ray.experiment.spec import Experiment
from arat_ray.results.rows import TrialRow
from arat_ray.results.schema import PARAM
from arat_ray.study.state import TrialState, trial_id
from arat_ray.training.identity import without_places
from arat_ray.training.run import Train

PROPOSED = ("proposed_by", "proposed_expected", "proposed_deviation", "proposed_gain")


def config_hash(config: Mapping[str, Any]) -> str:
    """The same for two runs that differ in nothing but in where their data lies."""
    text = json.dumps(without_places(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def described(experiment: Experiment, number: int, sampled: Mapping[str, Any], train: Train) -> TrialRow:
    """What the row of a trial says before it has run: what it is and how it is measured."""
    config = train.model_dump(mode="json")
    attack = experiment.validation.attack
    row: TrialRow = {
        "trial_id": trial_id(experiment.name, number),
        "study": experiment.name,
        "number": number,
        "config": json.dumps(config, sort_keys=True),
        "config_hash": config_hash(config),
        "seed": train.seed,
        "attack": attack.label,
        "norm": attack.norm,
        "epsilon": attack.epsilon,
        "split": experiment.validation.split,
        "workers": experiment.resources.workers,
    }
    return cast(TrialRow, {**row, **{f"{PARAM}{path}": value for path, value in sampled.items()}})


def proposed(trial: TrialState, goals: Sequence[str]) -> TrialRow:
    """Why a trial was proposed: as its row says, where it has one."""
    if trial.row is not None:
        before: Mapping[str, Any] = trial.row
        return cast(TrialRow, {name: before[name] for name in PROPOSED if before.get(name) is not None})
    why = trial.proposal
    row: TrialRow = {"proposed_by": why["by"]} if why else {}
    if "gain" in why:
        row["proposed_expected"] = dict(zip(goals, why["expected"], strict=True))
        row["proposed_deviation"] = dict(zip(goals, why["deviation"], strict=True))
        row["proposed_gain"] = why["gain"]
    return row
