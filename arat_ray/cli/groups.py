"""Groups of commands: listed in the order of work under headings, with messages that are harmless to a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import click

from arat_ray.text import plain


class Sections(click.Group):
    """A group whose help has a heading for each of its `sections`, commands in the order in which they are named."""

    def __init__(self, *args: Any, sections: Mapping[str, Sequence[str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sections = dict(sections)

    def list_commands(self, ctx: click.Context) -> list[str]:
        order = [name for names in self.sections.values() for name in names]
        return [name for name in order if name in self.commands] + sorted(self.commands.keys() - set(order))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        names = self.list_commands(ctx)
        width = max(map(len, names), default=0)
        placed = {name for of_section in self.sections.values() for name in of_section}
        for heading, chosen in {**self.sections, "Others": [name for name in names if name not in placed]}.items():
            rows = [
                (f"{name:{width}}", self.commands[name].get_short_help_str(100)) for name in chosen if name in names
            ]
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        with _plain_messages():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        with _plain_messages():
            return super().invoke(ctx)


@contextmanager
def _plain_messages() -> Iterator[None]:
    try:
        yield
    except click.ClickException as error:
        error.message = plain(error.message)  # type: ignore[misc]  # final since click 8.4
        raise
