"""Errors of an experiment file, in the words of the file: which key, which value, what to do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from arat_ray.text import did_you_mean
from arat_ray.yaml_bounds import YamlError, text_of
from arat_ray.yaml_core import parse

SHOWN_AT_MOST = 80
WANTED = {
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number that is not as large",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be text, in quotes where YAML reads it as something else",
    "path_type": "must be a path",
    "list_type": "must be a list, [...]",
    "tuple_type": "must be a list, [...]",
    "dict_type": "must be a mapping of keys to values, {{key: value, ...}}",
    "model_type": "must be a mapping of keys to values, {{key: value, ...}}",
    "model_attributes_type": "must be a mapping of keys to values, {{name: ..., ...}}",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "too_short": "must hold at least {min_length} value(s)",
    "too_long": "must hold at most {max_length} value(s)",
}
"""pydantic's error types in words that need no pydantic."""


class ExperimentError(ValueError):
    """An experiment file that cannot be used, with one line for each problem."""

    def __init__(self, path: Path, problems: Sequence[str]) -> None:
        super().__init__("\n".join(f"{path}: {problem}" for problem in problems))
        self.path, self.problems = path, list(problems)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises ExperimentError, with the line, for what is no YAML or leaves its bounds."""
    try:
        raw = parse(text_of(path))
    except YamlError as error:
        raise ExperimentError(path, [str(error)]) from error
    if not isinstance(raw, dict):
        raise ExperimentError(path, ["is not an experiment: it must hold `name:`, `train:` and `validate:`"])
    return raw


def shown(value: object) -> str:
    """A value as the file writes it (null, true), shortened."""
    try:
        text = repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, TypeError, RecursionError):  # refers to itself; has keys that JSON has not
        text = type(value).__name__
    return text if len(text) <= SHOWN_AT_MOST else f"{text[:SHOWN_AT_MOST]}..."


def explain(error: ValidationError, raw: Any, *, prefix: str = "") -> list[str]:
    """One line for each problem: its key as written in the file, then what is wrong with the value."""
    lines = []
    for details in error.errors(include_url=False):
        key = ".".join(filter(None, [prefix, _written_key(details["loc"], raw)])).replace(".[", "[")
        lines.append(f"{key}: {_sentence(details)}" if key else _sentence(details))
    return list(dict.fromkeys(lines))


def _written_key(location: Sequence[int | str], raw: Any) -> str:
    """The location without the names of union members, which pydantic adds and the file does not have."""
    written: list[str] = []
    node = raw
    for depth, part in enumerate(location):
        last = depth == len(location) - 1
        if isinstance(node, dict) and (part in node or part in (known := {str(key): key for key in node})):
            written.append(str(part))
            node = node[part] if part in node else node[known[str(part)]]
        elif isinstance(node, list) and isinstance(part, int):
            written.append(f"[{part}]")
            node = node[part] if part < len(node) else None
        elif last and part != "[key]" and isinstance(node, dict) and node.get("name") != part:
            written.append(str(part))
    return ".".join(written)


def _sentence(details: ErrorDetails) -> str:
    message, given = details["msg"].removeprefix("Value error, "), details["input"]
    context = details.get("ctx", {})
    if details["loc"][-1:] == ("[key]",):
        return f"a key must be text; YAML reads this one as {shown(given)}, so put it in quotes"
    match details["type"]:
        case "missing":
            return "missing"
        case "union_tag_not_found":
            return "missing `name`"
        case "union_tag_invalid":
            known = [name.strip(" '") for name in str(context["expected_tags"]).split(",")]
            return f"unknown name {shown(context['tag'])}{did_you_mean(str(context['tag']), known)}"
        case "list_type" | "tuple_type" if isinstance(given, str):
            return f"must be a list; write [{shown(given)}]"
        case "model_attributes_type" if isinstance(given, str):
            return f"must be a mapping; write {{name: {given}, ...}}"
        case kind if kind in WANTED:
            return f"{WANTED[kind].format(**context)}, not {shown(given)}"
        case _:
            return message
