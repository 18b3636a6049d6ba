"""What is drawn with rich: tables, lines and the console, none of which read markup, emoji or escape codes in a text.

This is the only module that makes tables and the only one that prints on a console, so that nothing foreign gets by.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import rich.console
import rich.table
from rich.console import ConsoleOptions, RenderableType
from rich.errors import ConsoleError
from rich.segment import Segment
from rich.text import Text

from arat_ray.text import line, plain

UNSHOWN = (ConsoleError, OSError, ValueError)
"""How showing something fails: what rich cannot draw, a terminal that is gone, a closed file or an unknown letter."""


class Console(rich.console.Console):
    """Shows every text as it is, also one that was not passed through `say` or a table of this module."""

    def render_str(self, text: str, **options: Any) -> Text:
        kept = {name: value for name, value in options.items() if name in ("style", "justify", "overflow")}
        return Text(plain(text), **{name: value for name, value in kept.items() if value is not None})

    def on_broken_pipe(self) -> None:
        """The BrokenPipeError goes on, which a study survives, in the place of the process's end."""
        raise

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(plain(segment.text), segment.style)


class Table(rich.table.Table):
    """A table without lines, whose title, headings and cells are shown as they are on any console."""

    def __init__(self, *, title: object = None, **how: Any) -> None:
        heading = None if title is None else Text(plain(title), style="table.title")
        super().__init__(box=None, pad_edge=False, title=heading, title_justify="left", **how)

    def add_column(self, header: RenderableType = "", footer: RenderableType = "", **how: Any) -> None:
        super().add_column(_shown(header, plain), _shown(footer, plain), **how)

    def add_row(self, *cells: RenderableType | None, **how: Any) -> None:
        super().add_row(*(_shown(cell, line) for cell in cells), **how)


def say(console: rich.console.Console, text: object, *, style: str = "") -> None:
    """Print a text as it is, on lines that only the terminal breaks."""
    console.print(Text(plain(text), style), highlight=False, soft_wrap=True)


def report(console: rich.console.Console, text: object, *, style: str = "") -> None:
    """The same of a study that goes on, also where its terminal is gone."""
    with harmless(console):
        say(console, text, style=style)


@contextmanager
def harmless(console: rich.console.Console) -> Iterator[None]:
    """What a study shows may fail, as when its terminal is gone or lacks a letter, without ending the study."""
    try:
        yield
    except UNSHOWN:
        with suppress(*UNSHOWN):  # what could not be written is not tried again with all that follows
            console.begin_capture()
            console.end_capture()


def _shown(cell: Any, spell: Callable[[object], str]) -> Any:
    return Text(spell(cell)) if isinstance(cell, str) else cell
