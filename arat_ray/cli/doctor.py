"""The verb that examines a cluster: `doctor`."""

from __future__ import annotations

import json
import os
import sys
from contextlib import ExitStack
from pathlib import Path

import click

from arat_ray.cli.common import FILE, POSITIVE, echo, user_errors
from arat_ray.cli.data import DATA, again
from arat_ray.cli.submitting import name_of
from arat_ray.cluster import fork_server
from arat_ray.exit_codes import FAILED


@click.command(short_help="Examine a cluster before money is spent.")
@click.argument("experiment", type=FILE, required=False)
@click.option("--address", help="Ray cluster to join, or the http:// address of its job server (default: RAY_ADDRESS).")
@click.option("--results", default="results", show_default=True, help="Where results would go; a folder or an URL.")
@DATA
@click.option("--timeout", type=POSITIVE, default=180.0, show_default=True, help="Seconds that one check may take.")
@click.option("--json", "as_json", is_flag=True, help="Print the checks as JSON.")
@click.option("--no-validate", is_flag=True, help="Through a job server, where only the cluster has the data set.")
def doctor(
    experiment: Path | None,
    address: str | None,
    results: str,
    data: str | None,
    timeout: float,
    as_json: bool,
    no_validate: bool,
) -> None:
    """Examine a cluster before money is spent: software, GPUs, storage, data, network, gradients, speed and cost.

    With an EXPERIMENT a trial of it is rehearsed: a few steps on its own network and data, and from them the forecast
    of the search's hours and cost. Ends with 1 when a check failed.

    \b
    Example: arat-ray doctor layers.yaml --address auto --results /shared/results
             arat-ray doctor layers.yaml --address http://127.0.0.1:8265 --results s3://bucket/studies
    """
    with user_errors(), ExitStack() as stack:
        from arat_ray.experiment.config import load

        if address and address.startswith(("http://", "https://")):
            if experiment is None:
                raise ValueError("through a job server the doctor needs an experiment file, which is sent along")
            name = name_of(experiment) if no_validate else load(experiment).name
            options = [*again(data), "--timeout", f"{timeout:g}", *(["--json"] if as_json else [])]
            _as_a_job(experiment, name, address, results, options)
            return
        stack.enter_context(fork_server.started(address))
        from arat_ray.api.data import experiment_of

        loaded = stack.enter_context(experiment_of(experiment, data)) if experiment else None
        from arat_ray.cluster.doctor.examine import examine
        from arat_ray.cluster.nodes import cluster

        quiet = as_json or not sys.stderr.isatty()
        found = []
        with cluster(address or os.environ.get("RAY_ADDRESS"), verbose=False):
            for check in examine(
                loaded,
                results=results,
                limit_s=timeout,
                log=lambda text: None if quiet else echo(text, err=True),
            ):
                found.append(check)
                if not as_json:
                    echo(f"{check.status:8} {check.name:11} {check.seen}")
                    if check.todo:
                        echo(f"{'':20} -> {check.todo}")
    if as_json:
        echo(json.dumps([check._asdict() for check in found], indent=2))
    if failed := [check.name for check in found if check.status == "failed"]:
        echo(f"failed: {', '.join(failed)}", err=True)
        sys.exit(FAILED)


def _as_a_job(experiment: Path, name: str, address: str, results: str, options: list[str]) -> None:
    """The same on the head of a cluster that is reached through its job server alone."""
    from arat_ray.cli.jobs import follow_to_end
    from arat_ray.cluster.jobs import client, package, submission

    sent = package.pack(experiment)
    for line in sent.listing():
        echo(line, err=True)
    connected = client.connect(address)
    examination = submission.Submission(f"doctor-{name}", "doctor", results, options)
    job = submission.submit(connected, examination, package=sent, log=lambda text: echo(text, err=True))
    follow_to_end(connected, job)
