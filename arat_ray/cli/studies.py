"""Verbs of experiment files: check, train, search."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from arat_ray.cli.common import (
    FILE,
    FOLDER,
    POSITIVE,
    bring,
    console,
    echo,
    has_several_workers,
    refuse_second,
    shown,
    tell,
    user_errors,
)
from arat_ray.cli.data import DATA, again
from arat_ray.cluster import fork_server
from arat_ray.exit_codes import BUDGETS, FAILED, INTERRUPTED, NOT_SAVED, RAY_GONE
from arat_ray.text import command

if TYPE_CHECKING:
    from arat_ray.cluster.study import Outcome
    from arat_ray.experiment.spec import Experiment


@click.command(short_help="Check an experiment file and print its plan; no Ray.")
@click.argument("file", type=FILE)
@DATA
def validate(file: Path, data: str | None) -> None:
    """Check an experiment file and print what it would search; no Ray, a few seconds.

    Example: arat-ray validate search_spaces/layers.yaml
    """
    with user_errors(), ExitStack() as stack:
        from arat_ray.experiment.plan import describe

        for line in describe(_checked(file, data, stack)):
            echo(line)
        echo(f"{file} is valid")


@click.command(short_help="One training run, without a search.")
@click.argument("file", type=FILE)
@click.option("--results", type=FOLDER, default=Path("results"), show_default=True, help="Where the run's folder goes.")
@click.option("--resume", is_flag=True, help="Go on with an interrupted run.")
@DATA
@click.option("--address", help="Ray cluster to join when the run takes several workers.")
@click.option("--profile", is_flag=True, help="Say where a step's time goes; a trace lands in <name>/profile/.")
@click.option("-v", "--verbose", is_flag=True, help="Let Ray log, when the run takes several workers.")
def train(
    file: Path, results: Path, resume: bool, data: str | None, address: str | None, profile: bool, verbose: bool
) -> None:
    """One training run of `train:`, without a search; lands in RESULTS/<name>/.

    One worker trains in this process, more train through Ray. --profile measures a few steps by their parts and
    records a few more with torch's profiler; the run computes the same.

    Example: arat-ray train search_spaces/quickstart.yaml --results runs
    """
    with user_errors(), ExitStack() as stack:
        echo(f"checking {file}")  # at once: what is imported below takes its time
        refuse_second(file, results)
        if has_several_workers(file):
            stack.enter_context(fork_server.started(address, several_workers=True))
        from arat_ray.api import running
        from arat_ray.storage import session
        from arat_ray.study import single

        experiment = _checked(file, data, stack, searched=False)
        folder = results / experiment.name
        stack.enter_context(session.writing(folder, log=tell, names=running.written_by(experiment)))
        go_on = _again("train", file, results, {"--data": data, "--address": address})
        echo(f"{experiment.name}: {experiment.base.epochs} epochs, into {shown(folder)}")
        try:
            ended = running.run(
                experiment,
                file,
                folder,
                resume=resume,
                address=address,
                profile=profile,
                verbose=verbose,
                console=console(),
            )
        except KeyboardInterrupt:
            echo(f"interrupted; go on with: {go_on}", err=True)
            sys.exit(INTERRUPTED)
        except single.NotSavedError as error:
            echo(str(error), err=True)
            sys.exit(NOT_SAVED)
        if not isinstance(ended, Path):
            settle(ended, folder, go_on=go_on)
            _show_front(ended, folder)
            return
        echo(f"checkpoint: {shown(ended)}")
        from arat_ray.pixels import format_pixels

        attack = experiment.validation.attack
        norm = ["--norm", attack.norm] if attack.norm != "linf" else []
        epsilon = format_pixels(attack.epsilon)
        words = ["--attack", "autoattack", *norm, "--epsilon", epsilon, "--split", "test", *again(data)]
        echo(f"measure it: {command('arat-ray', 'evaluate', shown(ended), *words)}")


@click.command(short_help="Search: run trials until the budget is spent.")
@click.argument("file", type=FILE)
@click.option(
    "--results",
    type=FOLDER,
    default=Path("results"),
    show_default=True,
    help="Where the study's folder goes.",
)
@click.option("--trials", type=click.IntRange(min=1), help="Trials in all, instead of the file's budget.trials.")
@click.option("--hours", type=POSITIVE, help="Hours, instead of the file's budget.hours.")
@click.option("--device-hours", type=POSITIVE, help="Hours of GPUs, or of CPU workers, instead of budget.device_hours.")
@click.option("--budget-usd", type=POSITIVE, help="Cost, instead of the file's budget.usd; needs resources.price.")
@click.option("--gain", help="Least gain of another trial, such as 0.1% of the hypervolume, instead of budget.gain.")
@click.option("--stall", type=click.IntRange(min=1), help="Trials without a better front, instead of budget.stall.")
@click.option("--max-failures", type=click.IntRange(min=1), help="Failed trials in a row.  [default: the file's, or 5]")
@click.option("--resume", is_flag=True, help="Go on with an interrupted study; starts one where there is none.")
@DATA
@click.option("--from", "earlier", type=FOLDER, multiple=True, help="A study to learn from; repeatable.")
@click.option("--address", help="Ray cluster to join (default: RAY_ADDRESS, else one on this machine).")
@click.option("--dry-run", is_flag=True, help="Print the plan and an estimate of its cost; compute nothing else.")
@click.option("-v", "--verbose", is_flag=True, help="Let Ray log.")
def tune(
    file: Path,
    results: Path,
    trials: int | None,
    hours: float | None,
    device_hours: float | None,
    budget_usd: float | None,
    gain: str | None,
    stall: int | None,
    max_failures: int | None,
    resume: bool,
    data: str | None,
    earlier: tuple[Path, ...],
    address: str | None,
    dry_run: bool,
    verbose: bool,
) -> None:
    """Search: runs trials until the budget is spent, streams to RESULTS/<name>/, prints and draws the front.

    Samplers: curves, which asks what a trial would add to the front (at most 0.4 s a suggestion at 5,000 trials), tpe,
    gp for up to about 100 trials that are costly (seconds a suggestion), nsga2 for thousands, grid for choices that are
    all to be tried, random to compare with.

    A finished study goes on when it is given more --trials. Ctrl-C saves everything and exits with 130. With --from the
    sampler learns from the complete trials of an earlier study that was measured alike.

    Exit codes: 0 all trials have ended, 1 all have failed, 2 bad input, 3 rows not saved; ended before by its budget:
    4 hours, 5 device-hours, 6 usd, 7 stall, 8 failures in a row, 10 gain; 9 Ray on this machine has ended; 130
    interrupted. After any of them --resume goes on.

    \b
    Example: arat-ray tune search_spaces/quickstart.yaml
             arat-ray tune search_spaces/quickstart.yaml --trials 24
             arat-ray tune wider.yaml --from results/quickstart
    """
    with user_errors(), ExitStack() as stack:
        if not dry_run:
            echo(f"checking {file}")  # at once: what is imported below takes its time
            refuse_second(file, results)
            stack.enter_context(fork_server.started(address, several_workers=has_several_workers(file)))
        from arat_ray.api import running
        from arat_ray.experiment.plan import describe, estimate
        from arat_ray.storage import session

        given: dict[str, Any] = {"trials": trials, "hours": hours, "device_hours": device_hours, "usd": budget_usd}
        given |= {"gain": gain, "stall": stall, "max_failures": max_failures}
        experiment = running.with_budget(_checked(file, data, stack), file, **given)
        bring(*earlier)
        if dry_run:
            from arat_ray.study import warm_start

            learned = [line for study in earlier for line in warm_start.read(study, experiment).lines()]
            for line in chain(describe(experiment), learned, estimate(experiment)):
                echo(line)
            return
        folder = results / experiment.name
        until = f"{experiment.trials} trials of " if experiment.trials else "trials of "
        echo(f"{experiment.name}: {until}{experiment.base.epochs} epochs, into {shown(folder)}")
        stack.enter_context(session.writing(folder, log=tell))
        outcome = running.search(
            experiment,
            file,
            folder,
            resume=resume,
            address=address,
            verbose=verbose,
            console=console(),
            earlier=earlier,
        )
        options: dict[str, Any] = {f"--{name.replace('_', '-')}": value for name, value in given.items()}
        options |= {"--budget-usd": options.pop("--usd"), "--data": data, "--address": address}
        settle(outcome, folder, go_on=_again("tune", file, results, options, earlier))
        _show_front(outcome, folder)
        end_over_budget(outcome)
        echo(f"budget.trials: all {experiment.trials} trials have ended")


def _again(verb: str, file: Path, results: Path, given: Mapping[str, Any], earlier: Sequence[Path] = ()) -> str:
    """The command that goes on, with the options that were given."""
    options = [word for name, value in given.items() if value is not None for word in (name, _number(value))]
    options += [word for study in earlier for word in ("--from", study)]
    return command("arat-ray", verb, file, "--results", results, *options, "--resume")


def _number(value: Any) -> Any:
    return f"{value:g}" if isinstance(value, float) else value


def _checked(file: Path, data: str | None, stack: ExitStack, *, searched: bool = True) -> Experiment:
    """The experiment of a file, or its `train:` alone, held against the data and read for slips, which are told."""
    from arat_ray.api.data import checked

    return stack.enter_context(
        checked(file, data, searched=searched, warn=lambda slip: echo(f"warning: {slip}", err=True))
    )


def _show_front(outcome: Outcome, folder: Path) -> None:
    """Print and draw the front of a study that ended; exit code 1 where all its trials failed."""
    from arat_ray.frontier.pareto import load_front
    from arat_ray.report import printing
    from arat_ray.results import reader

    table = reader.read(folder, "trials", ["trial_id", "attempt", "status", "feasible"])
    ended = reader.keep(table, reader.latest_attempt(table)).to_pylist()
    complete = [row["feasible"] for row in ended if row["status"] == "complete"]
    if complete and not any(feasible is not False for feasible in complete):
        which = command("arat-ray", "pareto", shown(folder), "--infeasible")
        echo(f"none of {len(complete)} trials satisfies the constraints: {which}")
    elif complete:
        front = load_front([folder])
        printing.print_table(front, console())
        if len(front.goals) == 2:
            from arat_ray.report.figure import plot_front
            from arat_ray.report.looks import Look

            try:
                plot_front(front, folder / "front.png", Look(title=folder.name))
                echo(f"drew {shown(folder)}/front.png")
            except OSError as error:
                echo(f"{folder}/front.png cannot be written ({error.strerror}); nothing else is lost", err=True)
        for text in printing.next_steps(front, shown(folder)):
            echo(text)
    elif any(row["status"] == "failed" for row in ended) and not outcome.over:
        sys.exit(FAILED)


def end_over_budget(outcome: Outcome) -> None:
    """Say which budget ended a study before its last trial, if one did, and end with its exit code."""
    if outcome.over:
        echo(f"stopped by {outcome.stopped}; go on with --resume and {outcome.over.more}", err=True)
        sys.exit(BUDGETS[outcome.over.budget])


def settle(outcome: Outcome, folder: Path, *, go_on: str) -> None:
    """Say how a study on Ray ended; exit code 130 where it was interrupted, 9 where Ray has ended, 3 where
    rows are not on disk."""
    if outcome.failed:
        echo(f"{outcome.failed} trial(s) failed; the `error` column of {folder}/trials says why", err=True)
    if not outcome.saved:
        why = f"{outcome.stopped}; " if outcome.stopped and not outcome.over else ""
        echo(f"{why}some rows could not be written to {folder}: `--resume` measures them again", err=True)
        sys.exit(NOT_SAVED)
    if outcome.ray_is_gone:
        echo(f"{outcome.stopped}; everything measured is in {folder}; go on with: {go_on}", err=True)
        sys.exit(RAY_GONE)
    if outcome.stopped == "interrupted":
        echo(f"interrupted; everything measured is in {folder}; go on with: {go_on}", err=True)
        sys.exit(INTERRUPTED)
