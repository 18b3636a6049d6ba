"""What all verbs share: types of options, exit codes, the user's errors, the console."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from arat_ray.storage.place import is_uri, path_of

if TYPE_CHECKING:
    from rich.console import Console

BAD_INPUT, NOT_SAVED, INTERRUPTED = 2, 3, 130


class Number(click.FloatRange):
    """A finite number within bounds: click lets nan through all of them."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number.", param, ctx)
        return number


POSITIVE = Number(min=0, min_open=True)


class BadInput(click.ClickException):
    """What the user can mend: one clear message, exit code 2."""

    exit_code = BAD_INPUT


class NotSaved(click.ClickException):
    """What was computed is not where it belongs."""

    exit_code = NOT_SAVED


class PathOrAddress(click.Path):
    """A path, or the address of a bucket, which becomes the path of its mirror."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not (isinstance(value, str) and is_uri(value)):
            return super().convert(value, param, ctx)
        try:
            return path_of(value)
        except ValueError as error:
            raise BadInput(str(error)) from error


FILE = click.Path(path_type=Path, dir_okay=False)
HERE = click.Path(path_type=Path)
FOLDER = PathOrAddress(path_type=Path, file_okay=False)
PATH = PathOrAddress(path_type=Path)


@contextmanager
def user_errors() -> Iterator[None]:
    """A ValueError of the library is a message to the user; everything else is a bug and shows its traceback."""
    from arat_ray.storage.opening import NotPushedError

    try:
        yield
    except ValueError as error:
        raise BadInput(str(error)) from error
    except NotPushedError as error:
        raise NotSaved(str(error)) from error


def tell(text: str) -> None:
    """What the user should know while a command goes on."""
    click.secho(text, fg="red", bold=True, err=True)


def bring(*paths: Path, names: Sequence[str] | None = None) -> None:
    """Of studies in a bucket, bring the tables, or these `names`, up to date; nothing of folders."""
    from arat_ray.storage import mirror, opening

    for path in paths:
        opening.pull(path, names or mirror.TABLES, tell=tell)


def bring_any(target: Path) -> None:
    """Of a checkpoint, of the folder of a trial, of an evaluation or of a study in a bucket, all that it takes."""
    from arat_ray.storage import opening

    study, inside = opening.study_of(target)
    if not inside:
        bring(study)
    elif inside.endswith(".pt"):
        bring(study, names=[*_tables(), inside])
    else:
        bring(study, names=[*_tables(), f"{inside}/last.pt", f"{inside}/best.pt"])


def _tables() -> Sequence[str]:
    from arat_ray.storage import mirror

    return mirror.TABLES


def console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(width=160, stderr=stderr)


def shown(path: Path) -> Path:
    """A path as short as the user would write it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
