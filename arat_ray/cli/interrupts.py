"""Ctrl-C and SIGTERM, wherever a command is: while it imports, waits or computes, it ends with 130 and no traceback."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import click

from arat_ray.cli.common import echo
from arat_ray.exit_codes import INTERRUPTED


@contextmanager
def interrupted_is_130() -> Iterator[None]:
    """Within the block both signals raise KeyboardInterrupt, which ends the process; verbs that save say so before."""
    told = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal told
        told = True
        raise KeyboardInterrupt

    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except (click.ClickException, click.exceptions.Exit, SystemExit):
        raise
    except BaseException:
        if not told:  # an import that is interrupted may end with an error of its own
            raise
        echo("interrupted", err=True)
        sys.exit(INTERRUPTED)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
