"""What is wrong in a cluster file: where, what, why and the fix; and the rules that find it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

Path = tuple[str | int, ...]
"""A key inside nested YAML: ("provider", "region")."""
SHOWN_AT_MOST = 80
ENDLESS = 10**9
"""More than any cluster has."""


class Problem(NamedTuple):
    """One thing to mend; `line` (from 1) where the path alone does not say it."""

    path: Path
    says: str
    fix: str
    line: int | None = None


class Violation(NamedTuple):
    """Where a rule is broken, and what stands there (None: nothing)."""

    path: Path
    value: Any = None


class Rule(NamedTuple):
    """A default that a file must keep: what the value must be, why, and what to write."""

    name: str
    reason: str
    fix: str
    broken: Callable[[Any], Iterator[Violation]]


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


def in_words(data: Any, path: Path = ()) -> tuple[Any, list[Problem]]:
    """The same nested data with keys of text alone, and a problem for each that was none, such as 7 or `yes`."""
    if isinstance(data, list):
        parts = [in_words(each, (*path, index)) for index, each in enumerate(data)]
        return [part for part, _ in parts], [problem for _, found in parts for problem in found]
    if not isinstance(data, dict):
        return data, []
    clean, problems = {}, []
    for key, value in data.items():
        word = shown(key) if isinstance(key, bool | None) else str(key)
        if not isinstance(key, str):
            problems.append(Problem((*path, word), f"the key {word} is not text", "write it in quotes, or another one"))
        clean[word], found = in_words(value, (*path, word))
        problems += found
    return clean, problems


def values_by_name(items: Any, name: str = "name", value: str = "value") -> dict[str, Any]:
    """A list of {name: ..., value: ...} as a mapping."""
    return {str(at(each, name)): at(each, value) for each in listed(items)}


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


def amount(value: Any) -> float:
    """The value where it is a number that something can have of something, else 0."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and 0 <= value < ENDLESS else 0


def mapping(value: Any) -> dict[Any, Any]:
    """The value where it is a mapping, else an empty one: its kind is the schema's business."""
    return value if isinstance(value, dict) else {}


def listed(value: Any) -> list[Any]:
    """The value where it is a list, else an empty one."""
    return value if isinstance(value, list) else []
