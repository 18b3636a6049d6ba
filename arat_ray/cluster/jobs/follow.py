"""Following a job from afar: its log as it grows, through lost connections, and its exit code."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

from arat_ray.cluster.jobs.client import Jobs, NoAnswerError
from arat_ray.exit_codes import FAILED, INTERRUPTED, MEANINGS

INTERVAL_S = 1.0
AGAIN_AT_MOST_S = 30.0
PENDING_S = 10.0
_PROGRESS = re.compile(r"^\[(\d+(?:/\d+)?)\] trial ", re.MULTILINE)


def follow(
    jobs: Jobs,
    job: str,
    *,
    after: int = 0,
    write: Callable[[str], None],
    log: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Write a job's log behind its first `after` characters, until the job ends; its exit code.

    A connection that is lost is tried again for as long as it takes, which does not touch the job. Raises ValueError
    for a job that the cluster does not know.
    """
    shown, pause, pending_since = after, 0.0, time.monotonic()
    while True:
        began = time.monotonic()
        try:
            details = jobs.get_job_info(job)  # first: then the log of a job that has ended is whole
            text = jobs.get_job_logs(job)
        except NoAnswerError as error:
            if not pause:
                log(f"connection lost, the job goes on; trying again: {error}")
            pause = min(2 * pause or INTERVAL_S, AGAIN_AT_MOST_S)
            sleep(pause)
            continue
        if pause:
            log("connected again")
        pause = 0.0
        if len(text) > shown:
            write(text[shown:])
            shown = len(text)
        if details.status.is_terminal():
            return exit_code(details)
        if not shown and time.monotonic() - pending_since > PENDING_S:
            log(f"waiting for the job to start: {details.message or details.status}")
            pending_since = float("inf")
        sleep(max(INTERVAL_S, 10 * (time.monotonic() - began)))  # a slow answer is not asked for as often


def exit_code(details: Any) -> int:
    """The exit code of a job that has ended, as far as Ray kept it."""
    if details.status == "SUCCEEDED":
        return 0
    if details.status == "STOPPED":
        return INTERRUPTED
    code = details.driver_exit_code
    if code is None:
        return FAILED
    return 128 - code if code < 0 else int(code)


def state(details: Any) -> str:
    """Where a job stands, in a word or a few."""
    if details.status.is_terminal():
        code = exit_code(details)
        return MEANINGS.get(code, f"failed with exit code {code}")
    return str(details.status.value).lower()


def progress(log: str) -> str:
    """How many trials have ended, of how many: 3/12; empty where the log does not say."""
    found = _PROGRESS.findall(log)
    return str(found[-1]) if found else ""
