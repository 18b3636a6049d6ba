"""Work in a process of its own, forked from one that has imported everything, and how it ended."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, NoReturn

TOLD, NOT_SAVED, BUG = 2, 3, 70
OUTCOMES = {0: "went on", TOLD: "ended and said so", NOT_SAVED: "ended with exit code 3", -signal.SIGKILL: "killed"}
"""By exit code; all others are bugs."""


class Ended(NamedTuple):
    """The exit code of a process, and what it said."""

    code: int
    said: str

    @property
    def outcome(self) -> str:
        return OUTCOMES.get(self.code, "a bug")


def in_process(work: Callable[[], None], said: Path) -> Ended:
    """Do it in a process that ends as a command would; what it says goes through the file `said`."""
    said.write_text("")
    if not (process := os.fork()):
        _end(work, said)
    return Ended(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), said.read_text())


def _end(work: Callable[[], None], said: Path) -> NoReturn:
    from arat_ray.storage.session import NotPushedError

    from .small_study import NotSavedError

    code = BUG
    try:
        work()
        code = 0
    except (NotSavedError, NotPushedError) as error:
        code = NOT_SAVED
        said.write_text(f"{error}")
    except (ValueError, OSError) as error:
        if isinstance(error, OSError) and (error.filename is None or error.errno is None):
            raise  # as `user_errors` of the command line does
        code = TOLD
        said.write_text(f"{error}")
    finally:
        if code == BUG:
            said.write_text(" | ".join(line.strip() for line in traceback.format_exc().splitlines()[-6:]))
        os._exit(code)
