"""Verbs of the tables: `results ...`."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click

from arat_ray.cli.common import HERE, PATH, PlainOut, Word, bring, console, echo, tell, user_errors
from arat_ray.cli.groups import Sections
from arat_ray.results.statuses import STATUSES
from arat_ray.tracking.tools import DEFAULT, TOOLS, look


@click.group(
    short_help="What the tables of a study say, as text.",
    cls=Sections,
    sections={"Commands": ("show", "trials", "why", "importance", "export", "verify", "rebuild")},
)
def results() -> None:
    """What the tables of a study say, as text.

    Example: arat-ray results show results/quickstart
    """


@results.command(short_help="Why a trial was proposed, and stopped early or went on.")
@click.argument("study", type=PATH)
@click.argument("trial")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def why(study: Path, trial: str, as_json: bool) -> None:
    """Why a trial was proposed, and why it was stopped early or went on: at which epoch, with which values, against
    which trials.

    TRIAL is its number, or its trial_id.

    Example: arat-ray results why results/layers 3
    """
    with user_errors():
        from arat_ray.report import why as reasons

        bring(study)
        found = reasons.why(study, trial)
        if as_json:
            echo(json.dumps(found, indent=2))
        else:
            for line in reasons.lines(found):
                echo(line)


@results.command(short_help="How much each knob moves each goal and the front.")
@click.argument("study", type=PATH)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def importance(study: Path, as_json: bool) -> None:
    """How much each knob of a search moves each goal, and the front, with 90 % intervals; the most important first.

    A model of the learning curves of all trials, whatever proposed them, says what the best value of a knob has over
    the worst, the other knobs averaged over; of a choice of layers also what each layer's inclusion did.

    \b
    Example: arat-ray results importance results/layers
             arat-ray results importance results/layers --json
    """
    with user_errors():
        from arat_ray.frontier.importance import importance as of_knobs
        from arat_ray.report import importance as report
        from arat_ray.results import reader
        from arat_ray.study import known_curves

        bring(study)
        curves, goals = known_curves.curves_of(study), reader.metadata(study).goals
        found = of_knobs(curves, sets=known_curves.sets_of(known_curves.search_of(study)))
        if as_json:
            echo(json.dumps(report.as_json(found, goals), indent=2))
        else:
            for line in report.lines(found, goals, trials=sum(map(bool, curves.values.values()))):
                echo(line)


@results.command(short_help="State, best values, cost, failures, and what is next.")
@click.argument("study", type=PATH)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def show(study: Path, as_json: bool) -> None:
    """What the study's folder holds: state, trials, best values, front, cost, failures, evaluations, and what is next.

    Example: arat-ray results show results/layers
    """
    with user_errors():
        from arat_ray.report import overview

        bring(study)
        found = overview.overview(study)
        if as_json:
            echo(json.dumps(found, indent=2))
        else:
            for line in overview.lines(found):
                echo(line)


@results.command(short_help="One line a trial: how it ended, goals, parameters, cost.")
@click.argument("study", type=PATH)
@click.option("--status", "statuses", type=Word(STATUSES), multiple=True, help="Only these; repeatable.")
@click.option("--sort", metavar="COLUMN", help="Goals the best first, others ascending.  [default: number]")
@click.option("--reverse", is_flag=True, help="The other way round.")
@click.option("--columns", metavar="A,B", help="These columns.  [default: those that say something]")
@click.option("--limit", type=click.IntRange(min=1), help="The first so many.")
@click.option("--attempts", is_flag=True, help="All attempts at each trial, not only the last.")
@click.option("--csv", "as_csv", is_flag=True, help="Print as CSV, every column but `config`.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON, every column but `config`.")
def trials(
    study: Path,
    statuses: tuple[str, ...],
    sort: str | None,
    reverse: bool,
    columns: str | None,
    limit: int | None,
    attempts: bool,
    as_csv: bool,
    as_json: bool,
) -> None:
    """One line a trial: how it ended, its goals and how they were measured, its parameters, epochs and cost.

    A parameter is named by its path or the end of it.

    \b
    Example: arat-ray results trials results/layers --sort robust_accuracy --limit 10
             arat-ray results trials results/layers --status failed --columns number,error
    """
    if as_csv and as_json:
        raise click.UsageError("choose one of --csv and --json")
    with user_errors():
        from arat_ray.report import listing

        bring(study)
        found = listing.load(
            study,
            statuses=statuses,
            sort=sort,
            reverse=reverse,
            columns=[name.strip() for name in (columns or "").split(",") if name.strip()],
            limit=limit,
            attempts=attempts,
            everything=as_csv or as_json,
        )
        if as_json:
            echo(json.dumps(listing.as_json(found), indent=2))
        elif as_csv:
            listing.write_csv(found, PlainOut())
        else:
            listing.print_table(found, console())


@results.command(short_help="To TensorBoard, MLflow, Weights & Biases or CSV.")
@click.argument("study", type=PATH)
@click.option("--to", type=Word(TOOLS), required=True, help="What it is to be looked at with.")
@click.option("--output", type=HERE, help=f"The folder to write to.  [default: {DEFAULT}/TO]")
@click.option("--follow", is_flag=True, help="Go on with what the study adds, until Ctrl-C.")
def export(study: Path, to: str, output: Path | None, follow: bool) -> None:
    """Bring a study to where you look at others: a run for each trial, from the tables, without a network.

    A run has what was sampled, the whole configuration, the measurements by epoch, the goals, the evaluations, and how
    it ended. Doing it again adds what is new and nothing twice, also while the study runs; --follow does so by itself.
    csv writes a file for each table. The others are extras: pip install 'arat-ray[tensorboard]', [mlflow] or [wandb].

    \b
    Example: arat-ray results export results/layers --to tensorboard --follow
             arat-ray results export s3://bucket/studies/layers --to mlflow --output runs
    """
    with user_errors():
        from arat_ray.tracking import exporting

        exporter = exporting.Exporter(study, to, output)

        def once() -> Path:
            bring(study)
            return exporter()

        echo(f"look at it with: {look(to, once())}")
        if follow:
            echo("it follows the study; Ctrl-C ends it")
            exporting.follow(once, log=tell, wait=time.sleep)


@results.command(short_help="Whether a study is whole: record, tables, checkpoints.")
@click.argument("study", type=PATH)
def verify(study: Path) -> None:
    """Hold a study's record, tables, checkpoints and study.json against each other: OK, or each damage and its remedy.

    Nothing is changed. Exit code 1 where something is damaged.

    \b
    Example: arat-ray results verify results/layers
             arat-ray results verify s3://bucket/studies/layers
    """
    with user_errors():
        from arat_ray.exit_codes import FAILED
        from arat_ray.study import verification

        bring(study, names=[""])
        found = verification.verify(study)
        for line in verification.lines(study, found):
            echo(line)
        if found.problems:
            raise SystemExit(FAILED)


@results.command(short_help="Make damaged or deleted files of a study again.")
@click.argument("study", type=PATH)
def rebuild(study: Path) -> None:
    """Make what is damaged or missing in a study again: tables from its record, and a damaged record from its tables,
    from checkpoints as well.

    What differs is swapped in when it is complete, and printed; the old ones stay, as TABLE.before-rebuild-TIME and
    journal/before-rebuild-TIME. No row that can be read is dropped. Refused while another process writes to the study.

    Example: arat-ray results rebuild results/layers
    """
    with user_errors():
        from arat_ray.storage import session
        from arat_ray.study import mending

        try:
            with session.writing(study, log=tell, names=[""]):
                result = mending.rebuild(study)
        except OSError as error:
            raise ValueError(f"{study} cannot be written ({error.strerror or error}); nothing was replaced") from error
        for line in mending.lines(result):
            echo(line)
