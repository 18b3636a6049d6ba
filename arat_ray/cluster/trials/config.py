"""The configuration of a trial, as Ray carries it to the actor that trains it."""

from __future__ import annotations

from typing import Any, TypedDict


class TrialConfig(TypedDict):
    """What Ray carries to a trial: JSON of the specs, where its checkpoints go (`address`, where that is a bucket), and
    the epochs that decide on it."""

    study: str
    number: int
    sampled: dict[str, Any]
    train: dict[str, Any]
    validate: dict[str, Any]
    resources: dict[str, Any]
    folder: str
    address: str | None
    rungs: list[int]
