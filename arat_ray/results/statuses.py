"""Statuses of a trial's attempt: what each says of whether the trial goes on."""

from __future__ import annotations

from typing import Literal, get_args

Status = Literal["running", "complete", "stopped", "failed", "pruned"]
STATUSES: tuple[Status, ...] = get_args(Status)

ENDED: tuple[Status, ...] = ("complete", "failed", "pruned")
"""The trial will not run again."""
