"""The verb that trains the front again: `confirm`."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from arat_ray.cli.attacking import as_shown, clear_line
from arat_ray.cli.common import FOLDER, PATH, bring, console, echo, shown, tell, user_errors
from arat_ray.cli.data import DATA, data_of
from arat_ray.cli.dialling import POINTS, settings_of, spread
from arat_ray.cli.studies import end_over_budget, settle
from arat_ray.cluster import fork_server
from arat_ray.text import command

if TYPE_CHECKING:
    from arat_ray.experiment.spec import Experiment


@click.command(short_help="Train the members of a front again with new seeds.")
@click.argument("study", type=PATH)
@click.option(
    "--seeds", type=click.IntRange(min=1, max=50), required=True, help="New seeds for each member of the front."
)
@click.option("--epochs", type=click.IntRange(min=1), help="Train for so many.  [default: as the members were]")
@click.option("--dial", "with_dials", is_flag=True, help="Measure each run between its norm branches as well.")
@click.option("--at", metavar="T,T,...", help=f"Settings of --dial.  [default: {POINTS} from 0 to 1]")
@click.option("--results", type=FOLDER, help="Where the confirmation's folder goes.  [default: beside the study]")
@DATA
@click.option("--resume", is_flag=True, help="As of `tune`; a confirmation goes on with what is there anyway.")
@click.option("--address", help="Ray cluster to join (default: RAY_ADDRESS, else one on this machine).")
@click.option("--dry-run", is_flag=True, help="Print what it trains, what is done and its cost; compute nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("-v", "--verbose", is_flag=True, help="Let Ray log.")
def confirm(
    study: Path,
    seeds: int,
    epochs: int | None,
    with_dials: bool,
    at: str | None,
    results: Path | None,
    data: str | None,
    resume: bool,
    address: str | None,
    dry_run: bool,
    as_json: bool,
    verbose: bool,
) -> None:
    """Train the members of a study's front again with new seeds, and redraw the front from these runs.

    A front is the best of many noisy runs, so its values are optimistic. This tells how much: mean and standard
    deviation of each member over the seeds, in how many of them it is on the front, and what the seeds attain together.
    The selected runs are in none of these numbers.

    With --dial each run is measured at settings between its norm branches too, as in the search: mean and 95 % interval
    of the curve over the seeds, and of the area that it dominates. Runs without two branches are left out, and named.

    The runs are a study of their own, STUDY-confirm. The same command goes on after any interruption, more --seeds
    extend it, and the file in it, study.yaml, is an experiment file.

    \b
    Example: arat-ray confirm results/quickstart --seeds 3
             arat-ray confirm results/quickstart --seeds 10
             arat-ray confirm results/quickstart --seeds 3 --dial --at -0.5,-0.25,0,0.5,1
    """
    del resume
    if at is not None and not with_dials:
        raise click.UsageError("--at says the settings of --dial; add it")
    with user_errors():
        dials = (spread(POINTS) if at is None else settings_of(at)) if with_dials else None
    with user_errors(), ExitStack() as stack:
        from arat_ray import locks
        from arat_ray.study import rerun_config

        folder = rerun_config.confirmation_of(study, results)
        if not dry_run:
            locks.refuse(folder / ".lock")  # before torch and Ray are loaded
            stack.enter_context(fork_server.started(address))
        from arat_ray.frontier import confirm as confirming
        from arat_ray.frontier.pareto import load_front
        from arat_ray.storage import session
        from arat_ray.study import confirmation

        bring(study)
        members = [trial["trial_id"] for trial in load_front([study]).trials]
        if dry_run:
            bring(folder)
        else:
            stack.enter_context(session.writing(folder, log=tell))
        runs = [rerun_config.source_of(study, trial_id).train for trial_id in members]
        stack.enter_context(data_of(study, runs, data))
        with confirmation.planned(study, folder, members, seeds=seeds, epochs=epochs) as (experiment, source):
            if dry_run:
                from arat_ray.experiment.plan import describe, estimate

                plan = confirmation.lines(study, shown(folder), experiment)
                for line in [*describe(experiment), *plan, *estimate(experiment)]:
                    echo(line)
                return
            if not confirming.is_finished(folder, seeds * len(members)):
                given = {
                    "--seeds": seeds,
                    "--epochs": epochs,
                    "--results": results,
                    "--data": data,
                    "--address": address,
                    "--at": at,
                }
                options = [word for name, value in given.items() if value is not None for word in (name, value)]
                options += ["--dial"] * with_dials
                echo(f"{experiment.name}: {experiment.trials} runs, into {shown(folder)}", err=as_json)
                from arat_ray.cluster import study as tuning

                outcome = tuning.run(
                    experiment,
                    source,
                    folder,
                    resume=True,
                    address=address,
                    verbose=verbose,
                    console=console(stderr=as_json),
                )
                settle(outcome, folder, go_on=command("arat-ray", "confirm", study, *options))
                end_over_budget(outcome)
    with user_errors():
        if dials:
            _measure(folder, experiment, dials, data=data, quiet=as_json)
        _print_confirmation(study, shown(folder), as_json=as_json)


def _measure(folder: Path, experiment: Experiment, dials: list[float], *, data: str | None, quiet: bool) -> None:
    """All complete runs at these settings, as they were measured in the search; what was finished is not run again."""
    from arat_ray.api import measuring

    validate = experiment.validation
    for _ in measuring.reports(
        folder,
        attack=validate.attack,
        split=validate.split,
        data=data,
        front=False,
        images=validate.images if validate.split == "test" else None,
        subset=validate.subset if validate.split == "test" else None,
        subset_seed=validate.seed,  # as the search drew them
        seed=validate.seed,
        batch_size=validate.batch_size,
        averaged=True,
        dials=dials,
        device=None,
        workers=None,
        address=None,
        records=None,
        **as_shown(quiet=quiet, batch_size=validate.batch_size),
    ):
        pass
    clear_line()


def _print_confirmation(study: Path, folder: Path, *, as_json: bool) -> None:
    from arat_ray.frontier import confirm as confirming
    from arat_ray.report import printing

    found = confirming.load(study, folder)
    if as_json:
        echo(json.dumps(confirming.as_json(found), indent=2))
    else:
        printing.print_confirmation(found, console())
    if found.surfaces:
        from arat_ray.report.figure_confirm import plot_confirmation

        plot_confirmation(found, folder / "confirm.png")
        echo(f"drew {folder}/confirm.png", err=as_json)
