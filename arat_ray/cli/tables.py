"""Verbs of the tables: `results ...`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from arat_ray.cli.common import PATH, bring, user_errors


@click.group()
def results() -> None:
    """What the tables of a study say, as text.

    Example: arat-ray results why results/quickstart 3
    """


@results.command()
@click.argument("study", type=PATH)
@click.argument("trial")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def why(study: Path, trial: str, as_json: bool) -> None:
    """Why a trial was stopped early or went on: at which epoch, with which values, against which trials.

    TRIAL is its number, or its trial_id.

    Example: arat-ray results why results/layers 3
    """
    with user_errors():
        from arat_ray.results import why as reasons

        bring(study)
        found = reasons.why(study, trial)
        if as_json:
            click.echo(json.dumps(found, indent=2))
        else:
            for line in reasons.lines(found):
                click.echo(line)
