"""What a run or an evaluation says while it goes on: on the terminal where it is asked to, else to `logging`.

The logger is `arat_ray`: warnings are shown by Python as it is; `logging.basicConfig(level="INFO")` shows all.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

from rich.text import Text

from arat_ray.terminal import Console
from arat_ray.text import line

log = logging.getLogger("arat_ray")


class LogConsole(Console):
    """A console whose lines are records of the log, the red ones warnings."""

    def print(self, *objects: Any, **how: Any) -> None:
        del how
        for each in objects:
            is_red = isinstance(each, Text) and "red" in str(each.style)
            log.log(logging.WARNING if is_red else logging.INFO, "%s", each)


def console(progress: bool) -> Console:
    return Console() if progress else LogConsole(width=160, force_terminal=False)


def tell(text: str) -> None:
    """What the user should know."""
    log.warning("%s", text)


def batches(progress: bool) -> Callable[[str], None]:
    """Called with a line after each batch."""
    return _rewrite if progress else lambda text: log.debug("%s", text)


def _rewrite(text: str) -> None:
    sys.stderr.write(f"\r{line(text):<100}")
