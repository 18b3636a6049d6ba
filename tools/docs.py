"""Generated pages: docs/experiment.md from the specs, docs/commands.md from `--help`, docs/results.md from the schema.

    python -m tools.docs            # writes them
    python -m tools.docs --check    # exit code 1 where one is not what the code says

The meaning of a key is the text below the field in its class; that of a column too, in `arat_ray/results/rows.py`.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import os
import re
import sys
import textwrap
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import click
import pyarrow as pa
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from arat_ray.cli import main as arat_ray
from arat_ray.experiment.spec import Experiment
from arat_ray.results.rows import ROWS
from arat_ray.results.schema import TABLES
from arat_ray.spec import Spec, Written
from arat_ray.training.run import Train

DOCS = Path(__file__).parents[1] / "docs"
WIDTH = 100
"""Columns of a terminal in which `--help` is shown."""
NOTE = "<!-- made by `python -m tools.docs`; write in the code, not here -->\n"


def experiment() -> str:
    """Every key of an experiment file: a table for the file, one for `train`, one for each thing that is chosen."""
    parts = [
        "# Keys of an experiment file",
        NOTE,
        "A key without a default must be given. Lengths in pixel units may be written as fractions, 8/255. What is "
        "unknown or impossible is refused with the key, the value and the fix. [What a search is](search.md), "
        "[what each method does](methods.md), [more on data sets](datasets.md).",
    ]
    done: list[type[Spec]] = []
    for spec in (Experiment, Train):
        parts += _sections(spec, done)
    return "\n\n".join(parts).replace(NOTE + "\n", NOTE) + "\n"


def _sections(spec: type[Spec], done: list[type[Spec]]) -> Iterator[str]:
    if spec in done:
        return
    done.append(spec)
    yield f"## {_title(spec)}"
    if about := inspect.cleandoc(spec.__doc__ or ""):
        yield about.split("\n\n")[0].replace("\n", " ") if spec.__doc__ != Spec.__doc__ else ""
    rows = [
        f"| `{field.alias or key}` | {_kind(field)} | {_default(field)} | {meaning(spec, key)} |"
        for key, field in spec.model_fields.items()
    ]
    yield "\n".join(["| key | type | default | meaning |", "|---|---|---|---|", *rows])
    for field in spec.model_fields.values():
        for other in _specs(field.annotation):
            yield from _sections(other, done)


def _title(spec: type[Spec]) -> str:
    name = spec.model_fields.get("name")
    words = get_args(name.annotation) if name is not None else ()
    return f"{spec.__name__}: `name: {words[0]}`" if len(words) == 1 else spec.__name__


def meaning(spec: type[Spec], key: str) -> str:
    """The text below a field, in the class or in the one it inherits the field from; ValueError where there is none."""
    for kind in spec.__mro__:
        found = _texts(kind).get(key) if kind.__module__.startswith("arat_ray") else None
        if found:
            return _cell(found)
    words = get_args(spec.model_fields[key].annotation)
    if key == "name" and words:
        return "Says which it is."
    raise ValueError(f"{spec.__module__}.{spec.__name__}.{key} has no meaning: write it as a text below the field")


def _texts(kind: type) -> dict[str, str]:
    tree = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(tree, ast.ClassDef)
    return {
        field.target.id: inspect.cleandoc(below.value.value)
        for field, below in zip(tree.body, tree.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
        and isinstance(below.value.value, str)
    }


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _specs(kind: Any) -> Iterator[type[Spec]]:
    if isinstance(kind, type) and issubclass(kind, Spec):
        yield kind
    for part in get_args(kind):
        yield from _specs(part)


def _kind(field: FieldInfo) -> str:
    """What may be written for a field: as it says itself, where its type cannot, else by its type."""
    own = [said.words for said in field.metadata if isinstance(said, Written)]
    return own[0] if own else _type(field.annotation)


def _type(kind: Any) -> str:
    """What a value may be, in words of YAML."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _type(parts[0])
    if origin is Literal:
        return ", ".join(f"`{part}`" for part in parts)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_type(part) for part in parts))
    if origin is tuple:
        items = parts[:-1] if parts[-1] is Ellipsis else parts
        return f"list of {' and '.join(dict.fromkeys(map(_type, items)))}"
    if origin is list:
        return f"list of {_type(parts[0])}"
    if origin is dict:
        return f"mapping to {_type(parts[1])}"
    if isinstance(kind, type) and issubclass(kind, Spec):
        return f"[{kind.__name__}](#{_anchor(_title(kind))})"
    names = {int: "integer", float: "number", bool: "true or false", str: "text", Path: "path", type(None): "null"}
    return names.get(kind, "value")


def _anchor(title: str) -> str:
    kept = "".join(letter for letter in title.lower() if letter.isalnum() or letter in "_- ")
    return kept.replace(" ", "-")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return ""
    value = field.get_default(call_default_factory=True)
    assert value is not PydanticUndefined
    return _value(value)


def _value(value: Any) -> str:
    if isinstance(value, Spec):
        return f"[{type(value).__name__}](#{_anchor(_title(type(value)))})"
    if value is None or isinstance(value, bool):
        return f"`{str(value).lower().replace('none', 'null')}`"
    if isinstance(value, tuple | list):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{value}`" if value != {} else "none"


def commands() -> str:
    """`--help` of every command."""
    parts = ["# Commands", NOTE]
    for context in _contexts(arat_ray, "arat-ray", None):
        text = context.command.get_help(context).rstrip()
        parts += [f"## {context.command_path}", f"```\n{text}\n```"]
    return "\n\n".join(parts).replace(NOTE + "\n", NOTE) + "\n"


def _contexts(command: click.Command, name: str, parent: click.Context | None) -> Iterator[click.Context]:
    """Of a command and those below it."""
    context = click.Context(
        command,
        info_name=name,
        parent=parent,
        terminal_width=WIDTH,
        max_content_width=WIDTH,
        **arat_ray.context_settings,
    )
    yield context
    if isinstance(command, click.Group):
        for below, its in command.commands.items():
            yield from _contexts(its, below, context)


def results() -> str:
    """Every column of every table."""
    parts = [
        "# Tables and their columns",
        NOTE,
        "A table is a folder of Parquet parts below the study ([how they are read](studies.md)). Accuracies are shares "
        "in [0, 1]; times are microseconds, UTC. A column is also null in what was written before it was added, and "
        "what `arat-ray results rebuild` had to make from checkpoints alone has more nulls, which it says. Only "
        "the columns of the key are never null, whatever happens.",
    ]
    for name, table in TABLES.items():
        rows, texts = [], columns(ROWS[name])
        for field in table.schema:
            meaning, unit, null = texts[field.name]
            null = "key" if field.name in table.key else null or "never"
            rows.append(f"| `{field.name}` | {_arrow(field.type)} | {unit} | {null} | {meaning} |")
        parts += [
            f"## {name}",
            "\n".join(["| column | type | unit | null when | meaning |", "|---|---|---|---|---|", *rows]),
        ]
        if name == "trials":
            parts.append(
                "After `seed`, a column `param_<path>` for each domain of the search, of its type: what was sampled, "
                "the label of a labelled choice; null where its `when` did not hold."
            )
    return "\n\n".join(parts).replace(NOTE + "\n", NOTE) + "\n"


class Column(NamedTuple):
    """What the text below a column says."""

    meaning: str
    unit: str
    null: str
    """When it is null; empty where it never is."""


_COLUMN = re.compile(r"(.+?)(?: Unit: ([^:]+)\.)?(?: Null: ([^:]+)\.)?")


def columns(row: type) -> dict[str, Column]:
    """By name, the columns of a row; ValueError where one has no text below it."""
    texts, found = _texts(row), {}
    for name in row.__annotations__:
        match = _COLUMN.fullmatch(_cell(texts.get(name, "")))
        if match is None:
            raise ValueError(f"{row.__name__}.{name} has no meaning: write it as a text below the column")
        found[name] = Column(*(part or "" for part in match.groups()))
    return found


def _arrow(kind: pa.DataType) -> str:
    return str(kind).replace("timestamp[us, tz=UTC]", "time, UTC").replace("double", "float64").replace("<", "\\<")


PAGES = {"experiment.md": experiment, "commands.md": commands, "results.md": results}


def main() -> None:
    parser = argparse.ArgumentParser(description="The generated pages of docs/.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a page is not as the code says")
    check = parser.parse_args().check
    os.environ["NO_COLOR"] = "1"
    stale = [name for name, make in PAGES.items() if not _is(DOCS / name, make())]
    if check and stale:
        sys.exit(f"{', '.join(stale)}: not as the code says; run `python -m tools.docs`")
    for name in stale:
        (DOCS / name).write_text(PAGES[name](), encoding="utf-8")


def _is(page: Path, text: str) -> bool:
    return page.is_file() and page.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    main()
