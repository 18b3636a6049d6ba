"""Where data lies, for all verbs: the option --data, and the question before a place is opened that results name."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import click

DATA = click.option(
    "--data",
    metavar="PATH",
    help="Where the data lies: the folder that holds what `dataset` names, or that itself.  [default: as named, else "
    "$ARAT_DATA, else ~/.cache/arat-ray]",
)
"""As text, to be given again in a command that goes on."""


def again(data: str | None) -> list[str]:
    """The words that give it again."""
    return [] if data is None else ["--data", data]


def data_of(
    source: object,
    runs: Iterable[Mapping[str, Any]],
    data: str | None,
    *,
    test: bool = True,
    is_needed: bool = True,
) -> AbstractContextManager[None]:
    """`api.data.data_of` that asks the person at the terminal, if there is one."""
    from arat_ray.api import data as data_

    return data_.data_of(source, runs, data, ask=ask, test=test, is_needed=is_needed)


def ask(why: str, places: str) -> None:
    """Whether a place may be opened that results from elsewhere name; ValueError where it may not."""
    if not is_terminal():
        from arat_ray.api.data import refuse

        refuse(why, places)
    if not click.confirm(f"{why}. Open it?", default=False, err=True):
        raise ValueError(f"{places} is left alone; give --data PATH with your own copy of the data")


def is_terminal() -> bool:
    """Whether somebody can answer."""
    return sys.stdin.isatty() and sys.stderr.isatty()
