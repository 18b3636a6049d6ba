"""The verb that sends an experiment to a cluster: `submit`."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import click

from arat_ray.cli.common import FILE, FOLDER, echo, user_errors
from arat_ray.cli.data import again as given_again
from arat_ray.cli.jobs import ADDRESS, commands, follow_to_end
from arat_ray.text import command


@click.command(short_help="Run `tune FILE` as a job on a cluster.")
@click.argument("file", type=FILE)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
@ADDRESS
@click.option("--results", default="results", show_default=True, help="Where the study's folder goes, on the cluster.")
@click.option(
    "--data", metavar="PATH", help="Where the data lies on the cluster, for `tune --data`: a whole path or an address."
)
@click.option("--resume", is_flag=True, help="Go on with an interrupted study; starts one where there is none.")
@click.option("--follow", is_flag=True, help="Print the job's log until it ends; Ctrl-C leaves the job alone.")
@click.option("--folder", type=FOLDER, help="A folder around FILE that is sent along.  [default: FILE alone]")
@click.option("--include", multiple=True, metavar="NAME", help="Sent as well, even what looks secret; repeatable.")
@click.option("--exclude", multiple=True, metavar="NAME", help="Left out of what is sent, such as 'old*'; repeatable.")
@click.option("--env", multiple=True, metavar="NAME[=VALUE]", help="A variable of the job, and no secret; repeatable.")
@click.option("--no-validate", is_flag=True, help="Leave the check to the cluster, where only it has the data set.")
@click.option("--dry-run", is_flag=True, help="Print what would be sent, and end.")
def submit(
    file: Path,
    options: tuple[str, ...],
    address: str | None,
    results: str,
    data: str | None,
    resume: bool,
    follow: bool,
    folder: Path | None,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    env: tuple[str, ...],
    no_validate: bool,
    dry_run: bool,
) -> None:
    """Run `tune FILE` as a job on a cluster, which goes on when this machine is switched off.

    FILE is checked here and sent; the search runs on the head. Other options of `tune` stand behind `--`. A relative
    --results is below the home folder of the head: with several nodes, name a folder that all of them share, or
    s3://BUCKET/PREFIX.

    What is sent is listed before. With --folder all of a folder goes, but for results, data, checkpoints, archives
    and names that begin with a dot; what looks like a key or a token is refused, unless --include names that very
    file. No link out of the folder is followed.

    --env NAME takes the value that the variable has here. Values stand in the cluster's records and logs: whoever may
    list its jobs can read them.

    The token is read as Ray does: RAY_AUTH_TOKEN, the file RAY_AUTH_TOKEN_PATH names, ~/.ray/auth_token.

    \b
    Example: arat-ray submit layers.yaml --address http://127.0.0.1:8265 --results /shared/results --follow
             arat-ray submit layers.yaml --results s3://bucket/studies --resume -- --trials 200
    """
    with user_errors():
        options = (*given_again(data), *options)
        study = name_of(file) if no_validate else _check(file, options)
        variables = dict(_variable(number, text) for number, text in enumerate(env, 1))
        from arat_ray.cluster.jobs import keys, package

        sent = package.pack(file, folder=folder, include=include, exclude=exclude)
        for line in sent.listing():
            echo(line, err=not dry_run)
        if open_to_all := [
            name
            for name, value in variables.items()
            if keys.named_like_one(PurePosixPath(name)) or keys.known(os.fsencode(value))
        ]:
            echo(
                f"note: {', '.join(open_to_all)} will stand in the cluster's list of jobs and in its logs, for all who "
                "use it; keys belong to the nodes, by their role or a file",
                err=True,
            )
        if dry_run:
            return
        from arat_ray.cluster.jobs import client, submission
        from arat_ray.storage.address import without_login

        connected = client.connect(address)
        server = without_login(connected.get_address())
        again = [word for word in ("--folder", folder) if folder]
        again += [word for name in include for word in ("--include", name)]
        again += [word for name in exclude for word in ("--exclude", name)]
        again += [word for name in variables for word in ("--env", name)]
        again += [*(["--no-validate"] if no_validate else []), *(["--", *options] if options else [])]
        go_on = ["arat-ray", "submit", file, "--address", server, "--results", results, "--resume", *again]
        job = submission.submit(
            connected,
            submission.Submission(
                study=study,
                verb="tune",
                results=results,
                options=[*(["--resume"] if resume else []), *options],
                go_on=command(*go_on),
                env=variables,
            ),
            package=sent,
            log=lambda text: echo(text, err=True),
        )
        where = f"{results.rstrip('/')}/{study}"
        if submission.is_relative(results):
            where = f"~/{where}"
            echo(
                f"note: results go to {where} on the head, which other nodes do not see unless it is shared; "
                "give --results a shared folder or s3://BUCKET/PREFIX",
                err=True,
            )
        echo(f"submitted {job}; results: {where}")
        echo(commands(job, server))
        if follow:
            follow_to_end(connected, job)


def _check(file: Path, options: Sequence[str]) -> str:
    """The study's name, when the head would take this file and these options of `tune`."""
    from arat_ray.api.data import remember
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
        **{key: given[key] for key in ("trials", "hours", "device_hours", "gain", "stall", "max_failures")},
        usd=given["budget_usd"],
    )
    if not experiment.search:
        train = command("arat-ray", "train", file)
        raise ValueError(f"{file}: there is no `search:`, so there is nothing to tune; `{train}` runs it")
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


def _variable(number: int, text: str) -> tuple[str, str]:
    """A variable and its value, its own or that of the environment here. No value is ever said."""
    name, equals, value = text.partition("=")
    if not name.isidentifier() or not name.isascii():
        raise ValueError(f"--env, the {number}. of them: write NAME=VALUE, or NAME for the value that it has here")
    if not equals and name not in os.environ:
        raise ValueError(f"--env {name}: there is no such variable here; write {name}=VALUE")
    return name, value if equals else os.environ[name]
