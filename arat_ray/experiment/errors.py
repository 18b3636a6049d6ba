"""Errors of an experiment file, in the words of the file: which key, which value, what to do."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from arat_ray.spec import did_you_mean


class ExperimentError(ValueError):
    """An experiment file that cannot be used, with one line for each problem."""

    def __init__(self, path: Path, problems: Sequence[str]) -> None:
        super().__init__("\n".join(f"{path}: {problem}" for problem in problems))
        self.path, self.problems = path, list(problems)


class _Loader(yaml.SafeLoader):
    """Safe YAML, where a key that stands twice is an error instead of a silent overwrite."""


def _mapping_without_duplicates(loader: _Loader, node: yaml.MappingNode) -> dict[Hashable, Any]:
    seen: set[Hashable] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        if key in seen:
            raise yaml.MarkedYAMLError(problem=f"key {key!r} stands twice", problem_mark=key_node.start_mark)
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping_without_duplicates)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises ExperimentError with the line for what is no YAML."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        raise ExperimentError(path, [f"cannot be read: {reason}"]) from error
    try:
        raw = yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ExperimentError(path, [f"{line}{error.problem}"]) from error
    if not isinstance(raw, dict):
        raise ExperimentError(path, ["is not an experiment: it must hold `name:`, `train:` and `validate:`"])
    return raw


def explain(error: ValidationError, raw: Any, *, prefix: str = "") -> list[str]:
    """One line for each problem: its key as written in the file, then what is wrong with the value."""
    lines = []
    for details in error.errors(include_url=False):
        key = ".".join(filter(None, [prefix, _written_key(details["loc"], raw)]))
        lines.append(f"{key or 'file'}: {_sentence(details)}")
    return list(dict.fromkeys(lines))


def _written_key(location: Sequence[int | str], raw: Any) -> str:
    """The location without the names of union members, which pydantic adds and the file does not have."""
    written: list[str] = []
    node = raw
    for depth, part in enumerate(location):
        last = depth == len(location) - 1
        if isinstance(node, dict) and part in node:
            written.append(str(part))
            node = node[part]
        elif isinstance(node, list) and isinstance(part, int):
            written.append(str(part))
            node = node[part] if part < len(node) else None
        elif last and isinstance(node, dict) and node.get("name") != part:
            written.append(str(part))
    return ".".join(written)


def _sentence(details: ErrorDetails) -> str:
    message, given = details["msg"].removeprefix("Value error, "), details["input"]
    context = details.get("ctx", {})
    match details["type"]:
        case "missing":
            return "missing"
        case "union_tag_not_found":
            return "missing `name`"
        case "union_tag_invalid":
            known = [name.strip(" '") for name in str(context["expected_tags"]).split(",")]
            return f"unknown name {context['tag']!r}{did_you_mean(str(context['tag']), known)}"
        case "unknown_key" | "pixel_units" | "no_attack" | "depth" | "value_error" | "fraction":
            return message
        case _:
            return f"{message[0].lower()}{message[1:]}, not {given!r}"
