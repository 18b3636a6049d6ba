"""JSON schemas made strict, and what breaks them in the words of the file."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path as File
from typing import TYPE_CHECKING, Any

from arat_ray.launchers.document import PLACEHOLDER
from arat_ray.launchers.problems import Path, Problem, shown
from arat_ray.text import did_you_mean

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

NEEDED = "cluster check needs the package {package}: pip install 'arat-ray[launchers]'"
WORDS = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "null",
}
"""The types of JSON schema in plain words."""
SHORT = 200


def folder_of(package: str) -> File:
    """Where a package lies, without importing it. Raises ValueError, naming the extra, where it is not installed."""
    found = find_spec(package)
    if found is None or found.origin is None:
        raise ValueError(NEEDED.format(package=package))
    return File(found.origin).parent


def strict(schema: Any) -> Any:
    """The schema with every object that names its keys closed to others."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and not schema.get("patternProperties"):
        closed.setdefault("additionalProperties", False)
    return closed


def against(schema: dict[str, Any], data: Any, *, prefix: Path = ()) -> list[Problem]:
    """Where data breaks a JSON schema. Raises ValueError where jsonschema is not installed."""
    folder_of("jsonschema")
    from jsonschema import Draft202012Validator

    errors = sorted(Draft202012Validator(schema).iter_errors(data), key=lambda error: [str(x) for x in error.path])
    return [problem for error in errors for problem in _explain(error, prefix)]


def _explain(error: ValidationError, prefix: Path) -> Iterator[Problem]:
    path, value, wanted = (*prefix, *error.absolute_path), error.instance, error.validator_value
    if isinstance(value, str) and PLACEHOLDER.search(value):
        return
    match error.validator:
        case "additionalProperties":
            assert isinstance(error.schema, dict)
            known = error.schema.get("properties", {})
            for key in value:
                if key not in known:
                    yield unknown(path, key, known)
        case "required":
            for key in wanted:
                if key not in value:
                    yield Problem((*path, key), "is missing", "add it")
        case "type":
            kinds = [wanted] if isinstance(wanted, str) else [kind for kind in wanted if kind != "null"]
            yield wrong_kind(path, value, " or ".join(WORDS[kind] for kind in kinds))
        case "enum" | "const":
            yield not_among(path, value, wanted if error.validator == "enum" else [wanted])
        case "anyOf" | "oneOf":
            yield Problem(path, f"{shown(value)} is of no kind that is allowed here", "see the reference of this field")
        case _:
            yield Problem(path, error.message, "see the reference of this field")


def unknown(path: Path, key: str, known: Any) -> Problem:
    """A key that the model has not, with the nearest one that it has."""
    return Problem((*path, key), f"unknown key {str(key)!r}", hint(str(key), known) if known else "leave it out")


def wrong_kind(path: Path, value: Any, wanted: str) -> Problem:
    """A value of the wrong type."""
    return Problem(path, f"{shown(value)} is not {wanted}", f"write {wanted}")


def not_among(path: Path, value: Any, allowed: Any) -> Problem:
    """A value outside of a closed list."""
    return Problem(path, f"{shown(value)} is not known", hint(str(value), [str(each) for each in allowed]))


def hint(word: str, known: Any) -> str:
    """`did you mean 'x'?`, or what is known as far as that is short."""
    text = did_you_mean(word, known).removeprefix("; ")
    return text if len(text) <= SHORT else f"nothing like it is known; there are {len(known)} others"
