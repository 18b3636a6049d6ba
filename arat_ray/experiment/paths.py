"""Dotted paths into `train:`: a value put at one, and what was meant by one that leads nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from arat_ray.experiment.errors import shown
from arat_ray.text import nearest
from arat_ray.training.run import Train

MEMBER = "member"
"""The search path that stands for all of `train`: a choice of whole runs, `member: {choice: {8: {...}, 12: {...}}}`."""


def whole_run(value: Any) -> dict[str, Any]:
    """What `member` stands for."""
    if not isinstance(value, dict):
        raise ValueError(f"{MEMBER} stands for all of `train`, not for {shown(value)}; give each of its labels a run")
    return value


def _with_defaults(train: dict[str, Any]) -> dict[str, Any]:
    """`train` with what it leaves out; as it is where it is not valid (yet)."""
    try:
        return Train.model_validate(train).model_dump()
    except ValidationError:
        return train


def put(train: dict[str, Any], path: str, value: Any) -> None:
    """Put a value at a dotted path, which must exist in `train` with its defaults; ValueError where it does not."""
    complete: Any = _with_defaults(train)
    node, parts = train, path.split(".")
    for depth, part in enumerate(parts):
        if not isinstance(complete, dict) or part not in complete:
            raise ValueError(f"path {path!r} is not in train{_nearest(train, path, parts[:depth], complete)}")
        if depth == len(parts) - 1:
            node[part] = value
            return
        complete = complete[part]
        if not isinstance(node.get(part), dict):  # no more than it takes, so that a preset can fill in the rest
            node[part] = {"name": complete["name"]} if isinstance(complete, dict) and "name" in complete else {}
        node = node[part]


def _nearest(train: dict[str, Any], path: str, parents: list[str], complete: Any) -> str:
    """What a path that does not exist was probably meant to be."""
    if near := nearest(path, _paths(_with_defaults(train))):
        return f"; did you mean {near!r}?"
    if not isinstance(complete, dict):
        return f": {'.'.join(parents)} is {shown(complete)} there"
    return f"; known: {', '.join('.'.join([*parents, key]) for key in complete)}"


def _paths(node: Any, prefix: str = "") -> Iterator[str]:
    """Every dotted path of nested mappings."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield f"{prefix}{key}"
            yield from _paths(value, f"{prefix}{key}.")
