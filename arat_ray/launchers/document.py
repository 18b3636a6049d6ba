"""A cluster file as text: its YAML with the line of each key, and the placeholders that wait to be filled in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path as File
from typing import Any, NamedTuple

import yaml

from arat_ray import yaml_bounds
from arat_ray.launchers.problems import Path, Problem
from arat_ray.yaml_bounds import YamlError

PLACEHOLDER = re.compile(r"<your-[a-z0-9-]+>")
MERGE = "tag:yaml.org,2002:merge"


class Document(NamedTuple):
    """One YAML document: what it says, and the line (from 1) on which each key stands."""

    data: Any
    lines: dict[Path, int]
    placeholders: list[Problem]

    def line(self, path: Path) -> int:
        """The line of a key, or of the nearest one around it."""
        while path not in self.lines and path:
            path = path[:-1]
        return self.lines[path]


def text_of(file: File) -> str:
    """The text of a file. Raises ValueError where it cannot be read."""
    try:
        return yaml_bounds.text_of(file)
    except YamlError as error:
        raise ValueError(f"{file}: {error}") from error


def documents(file: File) -> list[Document]:
    """The YAML documents of a file, read as Ray and Kubernetes read them, by YAML 1.1.

    Raises ValueError with the line where it is no YAML, leaves its bounds or a key stands twice.
    """
    text = text_of(file)
    try:
        for _ in yaml_bounds.events(text):
            pass
        nodes = [node for node in yaml.compose_all(text, yaml.SafeLoader) if node is not None]
        data = [each for each in yaml.safe_load_all(text) if each is not None]
        return [_document(node, each) for node, each in zip(nodes, data, strict=True)]
    except YamlError as error:
        where = f"{file}:{error.line}" if error.line else str(file)
        raise ValueError(f"{where}: {error.problem}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{file}:{mark.line + 1}" if mark else str(file)
        raise ValueError(f"{where}: {', '.join(filter(None, [error.context, error.problem]))}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{file}: is not YAML: {' '.join(str(error).split())}") from error


def _document(node: yaml.Node, data: Any) -> Document:
    lines: dict[Path, int] = {}
    unfilled: dict[tuple[int, str], Problem] = {}  # once a line, wherever it is merged
    for path, line, scalar in _walk(node, (), node.start_mark.line + 1):
        lines[path] = line
        for name in PLACEHOLDER.findall(scalar or ""):
            unfilled.setdefault((line, name), Problem(path, *_not_filled_in(name), line))
    return Document(data, lines, list(unfilled.values()))


def _not_filled_in(name: str) -> tuple[str, str]:
    return f"{name} is not filled in", "write your own value; the head of the file says how to find it"


def placeholders_in(line: str, number: int) -> list[Problem]:
    """The placeholders in one line of a file that is no YAML."""
    return [Problem((), *_not_filled_in(name), number) for name in PLACEHOLDER.findall(line)]


def _walk(node: yaml.Node, path: Path, line: int) -> Iterator[tuple[Path, int, str | None]]:
    """Each path with its line and its text where it is a single value; what `<<` merges counts where it is written."""
    yield path, line, node.value if isinstance(node, yaml.ScalarNode) else None
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _walk(item, (*path, index), item.start_mark.line + 1)
    elif isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in sorted(node.value, key=lambda pair: pair[0].tag != MERGE):
            if key.tag == MERGE:
                for merged in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    yield from _walk(merged, path, line)
                continue
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key must be a word", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"key {key.value!r} stands twice", problem_mark=key.start_mark)
            seen.add(key.value)
            yield from _walk(value, (*path, key.value), key.start_mark.line + 1)
