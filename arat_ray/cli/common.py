"""What all verbs share: types of options, the user's errors, the console."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from arat_ray.exit_codes import BAD_INPUT, NOT_SAVED
from arat_ray.storage.address import Mirrored, is_uri, path_of
from arat_ray.text import line, nearest, plain

if TYPE_CHECKING:
    from arat_ray.terminal import Console

NAME_BYTES = 255
"""That the name of a file may have, on all usual file systems."""


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


class Word(click.Choice):  # type: ignore[type-arg]
    """One of several words; of another one it says which was probably meant."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            if near := nearest(str(value), map(str, self.choices)):
                self.fail(f"{error.message.rstrip('.')}; did you mean {near!r}?", param, ctx)
            raise


class Output(click.Path):
    """A file to write, in a folder that is there or can be made; said before anything is computed."""

    def __init__(self) -> None:
        super().__init__(path_type=Path, dir_okay=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        if problem := _why_not(path):
            raise BadInput(f"{path} cannot be written: {problem}")
        return path


def _why_not(path: Path) -> str | None:
    try:
        there = next(each for each in path.absolute().parents if each.exists())
    except OSError as error:
        return str(error.strerror)
    if not there.is_dir():
        return f"{there} is no folder"
    if not os.access(there, os.W_OK | os.X_OK):
        return f"no permission to write to {there}"
    longest = max(path.absolute().parts, key=lambda part: len(os.fsencode(part)))
    return "its name is too long" if len(os.fsencode(longest)) > NAME_BYTES else None


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Make the folder of a file that is written within the block; one line where that cannot be done."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror or error}") from error


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
OUTPUT = Output()
HERE = click.Path(path_type=Path)
FOLDER = PathOrAddress(path_type=Path, file_okay=False)
PATH = PathOrAddress(path_type=Path)


@contextmanager
def user_errors() -> Iterator[None]:
    """A ValueError of the library is a message to the user, and so is a file that cannot be read or written; everything
    else is a bug and shows its traceback."""
    from arat_ray import disk
    from arat_ray.storage.session import NotPushedError

    try:
        yield
    except ValueError as error:
        raise BadInput(str(error)) from error
    except NotPushedError as error:
        raise NotSaved(str(error)) from error
    except OSError as error:
        if error.filename is None or error.errno is None:
            raise
        raise BadInput(disk.reason(error)) from error


def refuse_second(file: Path, results: Path) -> None:
    """HeldError where another driver writes to the study of an experiment file; at once, before torch and Ray load."""
    from arat_ray import locks

    name = _glance(file).get("name")
    if isinstance(name, str):
        locks.refuse(results / name / ".lock")


def has_several_workers(file: Path) -> bool:
    """Whether a run of an experiment file takes more than one worker, and so Ray."""
    resources = _glance(file).get("resources")
    return isinstance(resources, dict) and resources.get("workers", 1) != 1


def _glance(file: Path) -> dict[str, Any]:
    """What a file says, as it stands there; what is wrong with it is told when it is read for good."""
    from arat_ray.experiment.errors import ExperimentError, read_yaml

    try:
        return read_yaml(file)
    except ExperimentError:
        return {}


def echo(text: object, *, nl: bool = True, err: bool = False, fg: str | None = None, bold: bool = False) -> None:
    """Print a text of which the terminal obeys nothing. All that the command line says goes through here."""
    shown = plain(text)
    click.echo(click.style(shown, fg=fg, bold=bold) if fg or bold else shown, nl=nl, err=err)


def rewrite(text: object) -> None:
    """Replace the line of the terminal that stderr is on."""
    click.echo(f"\r{line(text)}\x1b[K", nl=False, err=True)


class PlainOut:
    """Standard output for tables as text."""

    def write(self, text: str) -> int:
        return sys.stdout.write(plain(text))


def tell(text: str) -> None:
    """What the user should know while a command goes on."""
    echo(text, fg="red", bold=True, err=True)


def bring(*paths: Path, names: Sequence[str] | None = None) -> None:
    """Of studies in a bucket, bring the tables, or these `names`, up to date; nothing of folders."""
    from arat_ray.storage import mirror, session

    for path in paths:
        session.pull(path, names or mirror.TABLES, log=tell)


def bring_any(target: Path) -> None:
    """Of a checkpoint, of the folder of a trial, of an evaluation or of a study in a bucket, all that it takes."""
    from arat_ray.storage import session

    study, inside = session.study_of(target)
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
    """What is drawn on; as wide as the terminal, or wide enough for what is read later."""
    from arat_ray.terminal import Console

    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(width=160, stderr=stderr)


def shown(path: Path) -> Path:
    """A path as short as the user would write it; that of a mirror stays, as it reads as its address."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) and not isinstance(path, Mirrored) else path
