"""`arat-ray cluster`: cluster files and what they need in a cloud."""

from __future__ import annotations

import sys
from pathlib import Path

import click

BAD_INPUT = 2
FILE = click.Path(path_type=Path, dir_okay=False)


class BadInput(click.ClickException):
    """What the user can mend: one clear message, exit code 2."""

    exit_code = BAD_INPUT


@click.group()
def cluster() -> None:
    """Check a cluster file offline; prepare a cloud for it."""


@cluster.command()
@click.argument("file", type=FILE)
@click.option("--experiment", type=FILE, help="Also check that a trial of this experiment fits onto the nodes.")
def check(file: Path, experiment: Path | None) -> None:
    """Check a cluster file offline: schema, security, placeholders, room for a trial.

    FILE is one of `ray up` (AWS, Google Cloud, Azure, local), of KubeRay or a batch script of Slurm. Needs
    arat-ray[clusters].

    Example: arat-ray cluster check clusters/aws.yaml --experiment search_spaces/layers.yaml
    """
    from arat_ray.launchers.check import check as check_file

    try:
        resources = None
        if experiment is not None:
            from arat_ray.experiment.config import load

            resources = load(experiment).resources
        verdict = check_file(file, resources)
    except ValueError as error:
        raise BadInput(str(error)) from error
    for problem in verdict.problems:
        click.echo(problem)
    if verdict.problems:
        sys.exit(BAD_INPUT)
    click.echo(f"{file} is ready")
    for note in verdict.notes:
        click.echo(note)
