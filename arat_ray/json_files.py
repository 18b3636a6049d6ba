"""JSON that arat-ray wrote, read back: a file that cannot be read, or holds something else, is named with its fix."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Shape = type | tuple[type, ...] | Mapping[str, Any]
"""Of a value: its type, or of a mapping the shapes of its keys. A key that ends in `?` may be missing, or null."""
NAMES = {dict: "mapping", list: "list", str: "text", int: "whole number", float: "number", bool: "true or false"}


def read_json(path: Path, *, fix: str, shape: Shape = dict) -> Any:
    """What a file holds. Raises ValueError `PATH is cut off: line 3, column 5; FIX`, on one line."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}; {fix}") from error
    return parse_json(content, f"{path}", fix=fix, shape=shape)


def parse_json(content: bytes | str, where: str, *, fix: str, shape: Shape = dict) -> Any:
    """What JSON says; `where` it stands is named in the ValueError for what is none, or has another shape."""
    text = content.decode(errors="replace") if isinstance(content, bytes) else content
    if not text.strip("\0 \t\r\n"):
        raise ValueError(f"{where} {'holds nothing but zeros' if text.strip() else 'is empty'}; {fix}")
    try:
        value = json.loads(content)
        _check(value, shape, "")
    except json.JSONDecodeError as error:
        raise ValueError(f"{where} {_what(text, error)}; {fix}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is no text (byte {error.start + 1}); {fix}") from error
    except RecursionError as error:
        raise ValueError(f"{where} is nested too deeply; {fix}") from error
    except ValueError as error:
        raise ValueError(f"{where} {error}; {fix}") from error
    return value


def _what(text: str, error: json.JSONDecodeError) -> str:
    if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string"):
        return f"is cut off at line {error.lineno}"
    return f"is no JSON (line {error.lineno}, column {error.colno}: {error.msg})"


def _check(value: Any, shape: Shape, at: str) -> None:
    """ValueError in words that follow a file's name, where a value has another shape."""
    wanted: Any = dict if isinstance(shape, Mapping) else shape
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is int):
        kinds = wanted if isinstance(wanted, tuple) else (wanted,)
        name = " or ".join(NAMES.get(kind, kind.__name__) for kind in kinds)
        there = NAMES.get(type(value), "nothing")
        raise ValueError(f"holds a {there} where a {name} should be" + (f", at {at!r}" if at else ""))
    if not isinstance(shape, Mapping):
        return
    for key, inner in shape.items():
        name, path = key.rstrip("?"), f"{at}.{key.rstrip('?')}".lstrip(".")
        if name in value and not (key.endswith("?") and value[name] is None):
            _check(value[name], inner, path)
        elif not key.endswith("?"):
            raise ValueError(f"lacks {path!r}")
