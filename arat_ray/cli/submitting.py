"""The verb that sends an experiment to a cluster: `submit`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import click

from arat_ray.cli.common import FILE, FOLDER, user_errors
from arat_ray.cli.data import again as given_again
from arat_ray.cli.data import remember
from arat_ray.cli.jobs import ADDRESS, commands, follow_to_end


@click.command()
@click.argument("file", type=FILE)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
@ADDRESS
@click.option("--results", default="results", show_default=True, help="Where the study's folder goes, on the cluster.")
@click.option(
    "--data", metavar="PATH", help="Where the data lies on the cluster, for `tune --data`: a whole path or an address."
)
@click.option("--resume", is_flag=True, help="Go on with an interrupted study; starts one where there is none.")
@click.option("--follow", is_flag=True, help="Print the job's log until it ends; Ctrl-C leaves the job alone.")
@click.option("--folder", type=FOLDER, help="What is sent along.  [default: the folder of FILE]")
@click.option("--exclude", multiple=True, metavar="NAME", help="Left out of what is sent, such as 'old*'; repeatable.")
@click.option("--env", multiple=True, metavar="NAME=VALUE", help="An environment variable of the job; repeatable.")
@click.option("--no-validate", is_flag=True, help="Leave the check to the cluster, where only it has the data set.")
def submit(
    file: Path,
    options: tuple[str, ...],
    address: str | None,
    results: str,
    data: str | None,
    resume: bool,
    follow: bool,
    folder: Path | None,
    exclude: tuple[str, ...],
    env: tuple[str, ...],
    no_validate: bool,
) -> None:
    """Run `tune FILE` as a job on a cluster, which goes on when this machine is switched off.

    FILE is checked here, and sent along with what lies beside it; the search runs on the head. Other options of `tune`
    stand behind `--`. A relative --results is below the home folder of the head: with several nodes, name a folder
    that all of them share, or s3://BUCKET/PREFIX.

    The token is read as Ray does: RAY_AUTH_TOKEN, the file RAY_AUTH_TOKEN_PATH names, ~/.ray/auth_token.

    \b
    Example: arat-ray submit layers.yaml --address http://127.0.0.1:8265 --results /shared/results --follow
             arat-ray submit layers.yaml --results s3://bucket/studies --resume -- --trials 200
    """
    with user_errors():
        options = (*given_again(data), *options)
        study = name_of(file) if no_validate else _check(file, options)
        variables = dict(_variable(text) for text in env)
        from arat_ray.cluster import jobs, submission

        connected = jobs.connect(address)
        server = connected.get_address()
        again = [word for word in ("--folder", str(folder)) if folder]
        again += [word for name in exclude for word in ("--exclude", name)]
        again += [word for text in env for word in ("--env", text)]
        again += [*(["--no-validate"] if no_validate else []), *(["--", *options] if options else [])]
        go_on = ["arat-ray", "submit", str(file), "--address", server, "--results", results, "--resume", *again]
        job = submission.submit(
            connected,
            submission.Submission(
                study=study,
                verb="tune",
                file=file,
                results=results,
                options=[*(["--resume"] if resume else []), *options],
                go_on=shlex.join(go_on),
                env=variables,
            ),
            folder=folder or file.absolute().parent,
            exclude=exclude,
            say=lambda text: click.echo(text, err=True),
        )
        where = f"{results.rstrip('/')}/{study}"
        if submission.is_relative(results):
            where = f"~/{where}"
            click.echo(
                f"note: results go to {where} on the head, which other nodes do not see unless it is shared; "
                "give --results a shared folder or s3://BUCKET/PREFIX",
                err=True,
            )
        click.echo(f"submitted {job}; results: {where}")
        click.echo(commands(job, server))
        if follow:
            follow_to_end(connected, job)


def _check(file: Path, options: Sequence[str]) -> str:
    """The study's name, when the head would take this file and these options of `tune`."""
    from arat_ray.cli.studies import tune
    from arat_ray.experiment.config import load
    from arat_ray.experiment.errors import ExperimentError, read_yaml

    given = tune.make_context("submit", [str(file), *options]).params
    if (data := given["data"]) and not _is_whole(data):
        raise ValueError(f"--data {data} is relative, and a job has a folder of its own; write the whole path there")
    train = read_yaml(file).get("train")
    dataset = train.get("dataset") if isinstance(train, dict) else None
    for key, value in dataset.items() if isinstance(dataset, dict) else ():
        if key in ("train", "test", "root") and value is not None and not data and not _is_whole(str(value)):
            raise ValueError(
                f"{file}: train.dataset.{key}: {value} is relative, and a job has a folder of its own; write the path "
                "that the data set has on every node"
            )
    try:
        experiment = load(file)
    except ExperimentError as error:
        if isinstance(dataset, dict) and dataset.get("name") in ("parquet", "image_folder"):
            raise ValueError(f"{error}\nwhere only the cluster has the data set, add --no-validate") from error
        raise
    for taken in ("address", "dry_run", "resume"):
        if given[taken]:
            raise ValueError(f"--{taken.replace('_', '-')} stands before `--`, or not at all in a job")
    if str(given["results"]) != "results":
        raise ValueError("--results stands before `--`")
    for earlier in given["earlier"]:
        if not earlier.is_absolute() and "://" not in str(earlier):
            raise ValueError(f"--from {earlier} is relative, and a job has a folder of its own; write the whole path")
    remember(experiment)
    experiment.with_budget(
        **{key: given[key] for key in ("trials", "hours", "device_hours", "stall")}, usd=given["budget_usd"]
    )
    if not experiment.search:
        raise ValueError(f"{file}: there is no `search:`, so there is nothing to tune; `arat-ray train` runs it")
    return experiment.name


def name_of(file: Path) -> str:
    """The study's name, of a file of which nothing else was checked."""
    from arat_ray.experiment.errors import read_yaml

    name = read_yaml(file).get("name")
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]*", name):
        raise ValueError(f"{file}: name: {name} becomes the name of the job: use letters, digits, '-', '_' and '.'")
    return name


def _is_whole(path: str) -> bool:
    """Whether a path, or an address, is the same in every folder."""
    return path.startswith(("/", "~", "$")) or "://" in path


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise ValueError(f"--env {text}: write NAME=VALUE")
    return name, value
