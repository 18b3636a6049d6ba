"""The report: one HTML file that opens from disk, needs no network, and carries the tables that it shows.

Its own policy forbids whatever it does not need: only the script and the style whose hashes stand in it run, nothing is
loaded and nothing evaluated. What is foreign (labels, errors, names) lies in it as compressed base64 and becomes text
nodes, never markup.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import zlib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from arat_ray.frontier.importance import Importance
from arat_ray.report import carried, view
from arat_ray.text import line

TABLES = b'<script type="text/plain" id="tables">'
"""After it lies what the page carries."""
SCRIPTS = (
    *("elements", "plots", "page", "tradeoff", "published", "trial", "tables", "parallel", "importance", "layers"),
    *("ladder", "time", "live", "start"),
)
"""The script's files, one after the other."""


def page(studies: Sequence[Path], importances: Sequence[Sequence[Importance] | str] = ()) -> bytes:
    """The file for these studies, with the importance of the knobs of each, or why it is not there. ValueError as
    `view.of` has it."""
    return filled(view.of(studies, importances), tables=carried.escaped(studies))


def filled(shown: dict[str, Any], *, tables: bytes = b"", version: int | None = None) -> bytes:
    """The page of a view; one that is served, of which this is a `version`, and not a file, may ask its server."""
    page = (
        Template(asset("page.html"))
        .substitute(
            title=html.escape(", ".join(line(study["name"]) for study in shown["studies"])),
            version="" if version is None else f' data-version="{version}"',
            policy=policy(is_served=version is not None),
            style=asset("page.css"),
            script=script(),
            view=packed(shown),
        )
        .encode()
    )
    return page.replace(TABLES, TABLES + tables, 1)


def policy(*, is_served: bool) -> str:
    """What the page may do."""
    asks = " connect-src 'self';" if is_served else ""
    return (
        f"default-src 'none';{asks} script-src {_hash(script())}; style-src {_hash(asset('page.css'))}; "
        "base-uri 'none'; form-action 'none'"
    )


def packed(shown: Any) -> str:
    """JSON, compressed, as base64: letters that are no markup."""
    text = json.dumps(shown, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def script() -> str:
    return "\n".join(asset(f"{name}.js") for name in SCRIPTS)


def asset(name: str) -> str:
    return resources.files("arat_ray.report").joinpath("html", name).read_text(encoding="utf-8")


def _hash(inline: str) -> str:
    """Of the text between the tags, as a policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()}'"
