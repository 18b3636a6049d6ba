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
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from arat_ray.report import carried, view
from arat_ray.text import line
from arat_ray.version import __version__


def page(studies: Sequence[Path]) -> bytes:
    """The file for these studies. ValueError as `view.of` has it."""
    shown = view.of(studies)
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    shown |= {"made": made, "version": __version__}
    style, script = _asset("page.css"), _asset("page.js")
    policy = f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}"
    filled = Template(_asset("page.html")).substitute(
        title=html.escape(", ".join(line(study["name"]) for study in shown["studies"])),
        policy=f"{policy}; base-uri 'none'; form-action 'none'",
        style=style,
        script=script,
        view=packed(shown),
        tables=base64.b64encode(carried.pack(studies)).decode(),
    )
    return filled.encode()


def packed(shown: Any) -> str:
    """JSON, compressed, as base64: letters that are no markup."""
    text = json.dumps(shown, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def _asset(name: str) -> str:
    return resources.files("arat_ray.report").joinpath("html", name).read_text(encoding="utf-8")


def _hash(inline: str) -> str:
    """Of the text between the tags, as a policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()}'"
