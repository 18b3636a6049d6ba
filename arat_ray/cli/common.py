"""What all verbs share: types of options, exit codes, the user's errors, the console."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console

BAD_INPUT, NOT_SAVED, INTERRUPTED = 2, 3, 130
FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)
PATH = click.Path(path_type=Path)
POSITIVE = click.FloatRange(min=0, min_open=True)


class BadInput(click.ClickException):
    """What the user can mend: one clear message, exit code 2."""

    exit_code = BAD_INPUT


@contextmanager
def user_errors() -> Iterator[None]:
    """A ValueError of the library is a message to the user; everything else is a bug and shows its traceback."""
    try:
        yield
    except ValueError as error:
        raise BadInput(str(error)) from error


def console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(width=160, stderr=stderr)


def shown(path: Path) -> Path:
    """A path as short as the user would write it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
