"""What is wrong in a cluster file: where, what, why and the fix; and the rules that find it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

Path = tuple[str | int, ...]
"""A key inside nested YAML: ("provider", "region")."""
SHOWN_AT_MOST = 80


class Problem(NamedTuple):
    """One thing to mend; `line` (from 1) where the path alone does not say it."""

    path: Path
    says: str
    fix: str
    line: int | None = None


class Found(NamedTuple):
    """Where a rule is broken, and what stands there (None: nothing)."""

    path: Path
    value: Any = None


class Rule(NamedTuple):
    """A default that a file must keep: what the value must be, why, and what to write."""

    name: str
    reason: str
    fix: str
    broken: Callable[[Any], Iterator[Found]]


def apply(rules: tuple[Rule, ...], config: Any) -> list[Problem]:
    """The rules that a file breaks, each once for each place."""
    return [
        Problem(
            path, f"{'is missing' if value is None else f'is {shown(value)}'} [{rule.name}]: {rule.reason}", rule.fix
        )
        for rule in rules
        for path, value in dict.fromkeys((found.path, _hashable(found.value)) for found in rule.broken(config))
    ]


def _hashable(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | None) else shown(value)


def shown(value: object) -> str:
    """A value as YAML would write it in one line, shortened."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=True, default=str)
    text = " ".join(text.split())
    return text if len(text) <= SHOWN_AT_MOST else f"{text[:SHOWN_AT_MOST]}..."


def dotted(path: Path) -> str:
    """`provider.region`, `SubnetIds[0]`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def at(config: Any, *path: str | int) -> Any:
    """The value at a path, None where there is none."""
    for part in path:
        if isinstance(config, dict):
            config = config.get(part)
        elif isinstance(config, list) and isinstance(part, int) and part < len(config):
            config = config[part]
        else:
            return None
    return config


def mapping(value: Any) -> dict[Any, Any]:
    """The value where it is a mapping, else an empty one: its kind is the schema's business."""
    return value if isinstance(value, dict) else {}


def listed(value: Any) -> list[Any]:
    """The value where it is a list, else an empty one."""
    return value if isinstance(value, list) else []
