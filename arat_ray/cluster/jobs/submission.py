"""Making a job of an experiment: what runs on the head, what goes along, and what is written on the job."""

from __future__ import annotations

import shlex
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from arat_ray.cluster.jobs.client import Jobs, NotReadyError
from arat_ray.cluster.jobs.package import Package
from arat_ray.version import __version__

STOP_S = 60
"""How long a job may take to save and end when it is stopped. A study gives Ray 20 s, and then ends without it."""

READY_S = 120
"""How long a head is waited for that answers and does not take jobs yet; it waits some seconds itself each time."""


class Submission(NamedTuple):
    """A command for the head of a cluster, about one experiment."""

    study: str
    verb: str
    results: str
    options: Sequence[str] = ()
    """Further options of the verb."""
    go_on: str = ""
    """The command that goes on with it when it was interrupted."""
    env: Mapping[str, str] = {}


def submit(jobs: Jobs, submission: Submission, *, package: Package, log: Callable[[str], None]) -> str:
    """Send the package, start the job; its name.

    A head that has only just started is waited for, and `log` is told.
    """
    jobs.check_version()
    with tempfile.TemporaryDirectory(prefix="arat-ray-") as temporary:
        package.write(Path(temporary))
        give_up = time.monotonic() + READY_S
        while True:
            try:
                return str(
                    jobs.submit_job(
                        entrypoint=entrypoint(submission, package.experiment),
                        submission_id=f"{submission.study}-{datetime.now():%Y%m%d-%H%M%S}",
                        runtime_env={
                            "working_dir": temporary,
                            "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_S), **submission.env},
                        },
                        metadata={
                            "arat_ray": __version__,
                            "study": submission.study,
                            "results": submission.results,
                            "go_on": submission.go_on,
                        },
                    )
                )
            except NotReadyError:
                if time.monotonic() > give_up:
                    raise
                log("the head does not take jobs yet; trying again")
                time.sleep(2)


def entrypoint(submission: Submission, file: str) -> str:
    """The shell command that runs on the head, in the folder that was packaged, about this file of it."""
    words = ["arat-ray", submission.verb, file]
    results = shlex.quote(submission.results)
    if is_relative(submission.results):
        results = f'"$HOME"/{results}'  # the job's own folder goes with the job
    return " ".join([shlex.join(words), "--results", results, shlex.join(submission.options)]).strip()


def is_relative(results: str) -> bool:
    """Whether results would go to a folder that only has a meaning on the head."""
    return "://" not in results and not results.startswith("/")
