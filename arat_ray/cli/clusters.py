"""`arat-ray cluster`: cluster files and what they need in a cloud."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from arat_ray.cli.common import FILE, BadInput, echo
from arat_ray.exit_codes import BAD_INPUT

if TYPE_CHECKING:
    from arat_ray.launchers.aws_account import PreparationStep


@click.group(short_help="Check a cluster file offline; prepare a cloud for it.")
def cluster() -> None:
    """Check a cluster file offline; prepare a cloud for it.

    \b
    Example: arat-ray cluster check clusters/aws.yaml
             arat-ray cluster prepare aws --region us-west-2 --bucket my-results --ssh-from 203.0.113.7/32
    """


@cluster.command(short_help="Check a cluster file offline.")
@click.argument("file", type=FILE)
@click.option("--experiment", type=FILE, help="Also check that a trial of this experiment fits onto the nodes.")
def check(file: Path, experiment: Path | None) -> None:
    """Check a cluster file offline: schema, security, placeholders, room for a trial.

    FILE is one of `ray up` (AWS, Google Cloud, Azure, local), of KubeRay or a batch script of Slurm. Needs
    arat-ray[launchers].

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
        echo(problem)
    if verdict.problems:
        sys.exit(BAD_INPUT)
    echo(f"{file} is ready")
    for note in verdict.notes:
        echo(note)


@cluster.group(short_help="Make what a cluster file needs in a cloud.")
def prepare() -> None:
    """Make what a cluster file needs in a cloud."""


@prepare.command(short_help="Security group, key, roles and bucket for clusters/aws.yaml.")
@click.option("--region", required=True, help="Such as us-west-2.")
@click.option("--bucket", required=True, help="For results; made where it does not exist.")
@click.option("--ssh-from", help="The one address that may reach the head by SSH, such as 203.0.113.7/32.")
@click.option("--vpc", help="The network (default: the account's default one).")
@click.option("--key", type=FILE, default=Path("~/.ssh/arat-ray.pem"), show_default=True, help="The private key.")
@click.option("--iam", type=FILE, default=Path("clusters/aws-iam.json"), show_default=True, help="The roles' policies.")
@click.option("--cluster", "file", type=FILE, help="The head may start its workers' types.  [default: aws.yaml there]")
@click.option("--write", type=FILE, help="Fill the values into this cluster file.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--destroy", is_flag=True, help="Take away what was made; a bucket only when it is empty.")
def aws(
    region: str,
    bucket: str,
    ssh_from: str | None,
    vpc: str | None,
    key: Path,
    iam: Path,
    file: Path | None,
    write: Path | None,
    yes: bool,
    destroy: bool,
) -> None:
    """Make security group, key, roles and bucket for clusters/aws.yaml; says first what, and asks.

    Run again, it compares all that it made, offers to put right what was changed since (rules, policies, who may take
    the roles, the bucket's doors, the key), and changes the address that SSH is open for.

    With the credentials of your environment (AWS_PROFILE, aws configure). Needs arat-ray[launchers].

    Example: arat-ray cluster prepare aws --region us-west-2 --bucket my-results --ssh-from 203.0.113.7/32
    """
    from arat_ray.launchers.schema import folder_of

    try:
        folder_of("boto3")
        from botocore.exceptions import BotoCoreError, ClientError
    except ValueError as error:
        raise BadInput(str(error)) from error
    from arat_ray.launchers import destroy_aws, prepare_aws

    try:
        connected = prepare_aws.connect(region)
        key = key.expanduser()
        if destroy:
            steps, kept = destroy_aws.plan(connected, bucket=bucket, key=key, vpc=vpc)
            for each in kept:
                echo(f"kept: {each}")
            _carry_out(steps, yes=yes)
            return
        if ssh_from is None:
            raise ValueError("--ssh-from is missing: the one address that may reach the head, such as 203.0.113.7/32")
        wanted = prepare_aws.Wanted(region, bucket, ssh_from, key, iam, vpc, file or write)
        steps, values = prepare_aws.plan(connected, wanted)
        _carry_out(steps, yes=yes)
        if write is not None:
            from arat_ray.launchers.document import text_of

            write.write_text(prepare_aws.fill(text_of(write), values), encoding="utf-8")
            echo(f"filled in: {write}")
    except (ValueError, ClientError, BotoCoreError, OSError) as error:
        raise BadInput(str(error)) from error
    for name, value in values.items():
        echo(f"{name}: {value}")


def _carry_out(steps: list[PreparationStep], *, yes: bool) -> None:
    """Say all steps, ask once, then do them one by one."""
    if not steps:
        echo("nothing is left to do")
        return
    echo("this will:")
    for step in steps:
        echo(f"  {step.says}")
    if not yes:
        click.confirm("go on?", abort=True)
    for step in steps:
        step.act()
        echo(f"done: {step.says}")
