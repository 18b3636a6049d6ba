"""Verbs of the jobs that a cluster has: status, stop."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from arat_ray.cli.common import console, echo, user_errors
from arat_ray.exit_codes import INTERRUPTED
from arat_ray.text import command, uncoloured

if TYPE_CHECKING:
    from rich.console import Console

    from arat_ray.cluster.jobs.client import Jobs

ADDRESS = click.option(
    "--address",
    help="Of the head's dashboard, such as http://127.0.0.1:8265.  [default: RAY_API_SERVER_ADDRESS]",
)
LAST_LINES = 20
COLUMNS = ("job", "study", "state", "since", "took", "progress")


@click.command(short_help="The jobs of a cluster, how far they are, and their logs.")
@click.argument("job", required=False)
@ADDRESS
@click.option("--follow", is_flag=True, help="Print the log of JOB until it ends; Ctrl-C leaves the job alone.")
@click.option("--json", "as_json", is_flag=True, help="Print the jobs as JSON.")
def status(job: str | None, address: str | None, follow: bool, as_json: bool) -> None:
    """The jobs of a cluster and how far they are; of one JOB, its last words.

    \b
    Example: arat-ray status --address http://127.0.0.1:8265
             arat-ray status layers-20260131-093000 --follow
    """
    with user_errors():
        if follow and not job:
            raise ValueError("--follow needs a job: arat-ray status JOB --follow")
        from arat_ray.cluster.jobs import client

        connected = client.connect(address)
        if job and follow:
            follow_to_end(connected, job)
        found = [connected.get_job_info(job)] if job else [each for each in connected.list_jobs() if _is_ours(each)]
        rows = [_row(connected, details) for details in sorted(found, key=lambda each: each.start_time or 0)]
        if as_json:
            echo(json.dumps(rows, indent=2))
        elif job:
            for key, value in rows[0].items():
                echo(f"{key:9} {value}")
            log = connected.get_job_logs(job) if found[0].submission_id else ""
            for line in uncoloured(log).splitlines()[-LAST_LINES:]:
                echo(f"  {line}")
        elif rows:
            print_table(rows, console())
        else:
            echo(f"no job of arat-ray on {connected.get_address()}")


@click.command(short_help="Stop a job; what was measured is saved.")
@click.argument("job")
@ADDRESS
def stop(job: str, address: str | None) -> None:
    """Stop a job; its study saves what was measured, which takes up to a minute, and can be resumed.

    Example: arat-ray stop layers-20260131-093000 --address http://127.0.0.1:8265
    """
    with user_errors():
        from arat_ray.cluster.jobs import client, follow

        connected = client.connect(address)
        before = connected.get_job_logs(job)
        if not connected.stop_job(job):
            echo(f"{job} has ended already: {follow.state(connected.get_job_info(job))}")
            return
        echo(f"stopping {job}; what was measured is being saved")
        try:
            _write_until_end(connected, job, after=len(before))
        except KeyboardInterrupt:
            echo("not waiting any more; the job is stopping", err=True)
            sys.exit(INTERRUPTED)
        details = connected.get_job_info(job)
        echo(f"{job}: {follow.state(details)}")
        if go_on := (details.metadata or {}).get("go_on"):
            echo(f"go on with: {go_on}")


def _is_ours(details: Any) -> bool:
    """Whether a job runs arat-ray, submitted by it or by `ray job submit`."""
    return "arat_ray" in (details.metadata or {}) or "arat-ray " in details.entrypoint


def _row(jobs: Jobs, details: Any) -> dict[str, str]:
    from datetime import datetime

    from arat_ray.cluster.jobs import follow
    from arat_ray.units import duration

    known = details.metadata or {}
    name = details.submission_id or details.job_id
    log = jobs.get_job_logs(name) if details.submission_id else ""  # a driver that joined by itself keeps its own
    row = {"job": name, "study": known.get("study", ""), "state": follow.state(details)}
    if details.start_time:
        began, ended = datetime.fromtimestamp(details.start_time / 1000), (details.end_time or 0) / 1000
        took = (datetime.fromtimestamp(ended) if ended else datetime.now()) - began
        row |= {"since": f"{began:%Y-%m-%d %H:%M}", "took": duration(took.total_seconds())}
    row |= {"progress": follow.progress(log), "results": known.get("results", "")}
    return row if details.status == "SUCCEEDED" else row | {"go on": known.get("go_on", "")}


def print_table(rows: Sequence[dict[str, str]], console: Console) -> None:
    """One line a job."""
    from arat_ray.terminal import Table

    table = Table()
    for name in COLUMNS:
        table.add_column(name, no_wrap=name != "state")
    for row in rows:
        table.add_row(*(row.get(name, "") for name in COLUMNS))
    console.print(table)


def commands(job: str, server: str) -> str:
    """What can be done with a job."""
    follow = command("arat-ray", "status", job, "--follow", "--address", server)
    return f"  {follow}\n  {command('arat-ray', 'stop', job, '--address', server)}"


def _write_until_end(jobs: Jobs, job: str, *, after: int = 0) -> int:
    from arat_ray.cluster.jobs.follow import follow

    return follow(
        jobs,
        job,
        after=after,
        write=lambda text: echo(uncoloured(text), nl=False),
        log=lambda text: echo(text, err=True),
    )


def follow_to_end(jobs: Jobs, job: str) -> None:
    """Print the log of a job until it ends, and end as it did."""
    try:
        code = _write_until_end(jobs, job)
    except KeyboardInterrupt:
        echo(f"\nthe job goes on; follow it again or stop it with\n{commands(job, jobs.get_address())}", err=True)
        sys.exit(INTERRUPTED)
    from arat_ray.cluster.jobs.follow import state

    echo(f"{job}: {state(jobs.get_job_info(job))}", err=True)
    sys.exit(code)
