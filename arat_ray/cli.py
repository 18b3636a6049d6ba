"""The command line: verbs and paths. Each verb imports what it needs, calls one function and prints."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from arat_ray import __version__

if TYPE_CHECKING:
    from rich.console import Console

    from arat_ray.cluster.tuning import Outcome
    from arat_ray.evaluation.accuracy import Report
    from arat_ray.experiment.config import Experiment
    from arat_ray.frontier.evaluations import Asked

BAD_INPUT, NOT_SAVED, INTERRUPTED = 2, 3, 130
OVER = {"hours": 4, "device_hours": 5, "usd": 6, "stall": 7}
"""Exit codes of a study that a budget ended before its last trial."""
FILE = click.Path(path_type=Path, dir_okay=False)
POSITIVE = click.FloatRange(min=0, min_open=True)
FOLDER = click.Path(path_type=Path, file_okay=False)


class BadInput(click.ClickException):
    """What the user can mend: one clear message, exit code 2."""

    exit_code = BAD_INPUT


@contextmanager
def _user_errors() -> Iterator[None]:
    """A ValueError of the library is a message to the user; everything else is a bug and shows its traceback."""
    try:
        yield
    except ValueError as error:
        raise BadInput(str(error)) from error


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="arat-ray")
def main() -> None:
    """Search the trade-off between clean and robust accuracy of adversarially trained networks.

    \b
    arat-ray tune search_spaces/quickstart.yaml
    arat-ray pareto results/quickstart --plot front.png
    """


@main.command()
@click.argument("file", type=FILE)
def validate(file: Path) -> None:
    """Check an experiment file and print what it would search; no Ray, a few seconds.

    Example: arat-ray validate search_spaces/layers.yaml
    """
    with _user_errors():
        from arat_ray.experiment.config import load
        from arat_ray.experiment.plan import describe

        for line in describe(load(file)):
            click.echo(line)
        click.echo(f"{file} is valid")


@main.command()
@click.argument("file", type=FILE)
@click.option("--results", type=FOLDER, default=Path("results"), show_default=True, help="Where the run's folder goes.")
@click.option("--resume", is_flag=True, help="Go on with an interrupted run.")
@click.option("--address", help="Ray cluster to join when the run takes several workers.")
@click.option("-v", "--verbose", is_flag=True, help="Let Ray log, when the run takes several workers.")
def train(file: Path, results: Path, resume: bool, address: str | None, verbose: bool) -> None:
    """One training run of `train:`, without a search; lands in RESULTS/<name>/.

    One worker trains in this process, more train through Ray.

    Example: arat-ray train search_spaces/quickstart.yaml --results runs
    """
    with _user_errors():
        from arat_ray.experiment.config import load

        experiment = load(file).without_search()
        folder = results / experiment.name
        if experiment.resources.workers > 1:
            _run_study(experiment, file, folder, resume=resume, address=address, verbose=verbose, kind="train")
            return
        from arat_ray.study import single

        try:
            checkpoint = single.run(experiment, file, folder, resume=resume, console=_console())
        except KeyboardInterrupt:
            click.echo(f"interrupted; go on with: arat-ray train {file} --results {results} --resume", err=True)
            sys.exit(INTERRUPTED)
        except single.NotSavedError as error:
            click.echo(str(error), err=True)
            sys.exit(NOT_SAVED)
        click.echo(f"checkpoint: {_shown(checkpoint)}")
        click.echo(f"measure it: arat-ray evaluate {_shown(checkpoint)} --attack pgd --epsilon EPSILON --split test")


@main.command()
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
@click.option("--resume", is_flag=True, help="Go on with an interrupted study; starts one where there is none.")
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
    resume: bool,
    earlier: tuple[Path, ...],
    address: str | None,
    dry_run: bool,
    verbose: bool,
) -> None:
    """Search: runs trials until the budget is spent, streams to RESULTS/<name>/, prints and draws the front.

    Samplers: tpe by default (at most 0.3 s a suggestion at 5,000 trials), gp for up to about 100 trials that are costly
    (seconds a suggestion), nsga2 for thousands, grid for choices that are all to be tried, random to compare with.

    A finished study goes on when it is given more --trials. Ctrl-C saves everything and exits with 130. With --from the
    sampler learns from the complete trials of an earlier study that was measured alike.

    \b
    Example: arat-ray tune search_spaces/quickstart.yaml
             arat-ray tune search_spaces/quickstart.yaml --trials 24
             arat-ray tune wider.yaml --from results/quickstart
    """
    with _user_errors():
        from arat_ray.experiment.config import load
        from arat_ray.experiment.plan import describe, estimate

        experiment = load(file).with_budget(trials=trials, hours=hours, device_hours=device_hours, usd=budget_usd)
        if not experiment.search:
            raise ValueError(f"{file}: there is no `search:`; a single run is `arat-ray train {file}`")
        if dry_run:
            from arat_ray.study import warm_start

            learned = [line for study in earlier for line in warm_start.read(study, experiment).lines()]
            for line in [*describe(experiment), *learned, *estimate(experiment)]:
                click.echo(line)
            return
        folder = results / experiment.name
        options: dict[str, Any] = {"resume": resume, "address": address, "verbose": verbose, "earlier": earlier}
        _run_study(experiment, file, folder, kind="tune", **options)


def _run_study(
    experiment: Experiment,
    file: Path,
    folder: Path,
    *,
    resume: bool,
    address: str | None,
    verbose: bool,
    kind: Any,
    earlier: Sequence[Path] = (),
) -> None:
    """Run a study on Ray and print its front; exit code one of OVER where a budget ended it."""
    console = _console()
    go_on = f"arat-ray {kind} {file} --results {folder.parent} --resume"
    outcome = _on_ray(
        experiment,
        file,
        folder,
        resume=resume,
        address=address,
        verbose=verbose,
        kind=kind,
        console=console,
        go_on=go_on,
        earlier=earlier,
    )
    from arat_ray.frontier import show
    from arat_ray.frontier.pareto import load_front
    from arat_ray.results import reader

    ended = reader.read(folder, "trials", ["status", "feasible"]).to_pylist()
    complete = [row["feasible"] for row in ended if row["status"] == "complete"]
    if complete and not any(feasible is not False for feasible in complete):
        click.echo(f"none of {len(complete)} trials satisfies the constraints: arat-ray pareto {folder} --infeasible")
    elif complete:
        front = load_front([folder])
        show.print_table(front, console)
        if len(front.goals) == 2:
            from arat_ray.frontier.plot import plot_front

            plot_front(front, folder / "front.png")
            click.echo(f"drew {folder}/front.png")
    elif outcome.failed:
        sys.exit(1)
    if outcome.over:
        click.echo(f"stopped by {outcome.stopped}; go on with --resume and {outcome.over.more}", err=True)
        sys.exit(OVER[outcome.over.budget])
    if kind == "tune":
        click.echo(f"budget.trials: all {experiment.trials} trials have ended")


def _on_ray(
    experiment: Experiment,
    file: Path,
    folder: Path,
    *,
    resume: bool,
    address: str | None,
    verbose: bool,
    kind: Any,
    console: Console,
    go_on: str,
    earlier: Sequence[Path] = (),
) -> Outcome:
    """Run a study on Ray; exit code 130 where it was interrupted, 3 where rows are not on disk."""
    from arat_ray.cluster import tuning

    outcome = tuning.run(
        experiment,
        file,
        folder,
        resume=resume,
        address=address,
        verbose=verbose,
        console=console,
        kind=kind,
        earlier=earlier,
    )
    if outcome.failed:
        click.echo(f"{outcome.failed} trial(s) failed; the `error` column of {folder}/trials says why", err=True)
    if not outcome.saved:
        click.echo(f"some rows could not be written to {folder}: `--resume` measures them again", err=True)
        sys.exit(NOT_SAVED)
    if outcome.stopped == "interrupted":
        click.echo(f"interrupted; everything measured is in {folder}; go on with: {go_on}", err=True)
        sys.exit(INTERRUPTED)
    return outcome


@main.command()
@click.argument("study", type=click.Path(path_type=Path))
@click.option(
    "--seeds", type=click.IntRange(min=1, max=50), required=True, help="New seeds for each member of the front."
)
@click.option("--epochs", type=click.IntRange(min=1), help="Train for so many.  [default: as the members were]")
@click.option("--results", type=FOLDER, help="Where the confirmation's folder goes.  [default: beside the study]")
@click.option("--resume", is_flag=True, help="As of `tune`; a confirmation goes on with what is there anyway.")
@click.option("--address", help="Ray cluster to join (default: RAY_ADDRESS, else one on this machine).")
@click.option("--dry-run", is_flag=True, help="Print the plan and an estimate of its cost; compute nothing else.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("-v", "--verbose", is_flag=True, help="Let Ray log.")
def confirm(
    study: Path,
    seeds: int,
    epochs: int | None,
    results: Path | None,
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

    The runs are a study of their own, STUDY-confirm. The same command goes on after any interruption, more --seeds
    extend it, and the file in it, study.yaml, is an experiment file.

    \b
    Example: arat-ray confirm results/quickstart --seeds 3
             arat-ray confirm results/quickstart --seeds 10
    """
    del resume
    with _user_errors():
        from arat_ray.frontier import confirm as confirming
        from arat_ray.frontier.pareto import load_front
        from arat_ray.study import confirmation

        members = [trial["trial_id"] for trial in load_front([study]).trials]
        folder = confirmation.place(study, results)
        with confirmation.planned(study, folder, members, seeds=seeds, epochs=epochs) as (experiment, source):
            if dry_run:
                from arat_ray.experiment.plan import describe, estimate

                for line in [*describe(experiment), *estimate(experiment)]:
                    click.echo(line)
                return
            if not confirming.is_finished(folder, seeds * len(members)):
                given = {"--seeds": seeds, "--epochs": epochs, "--results": results}
                options = " ".join(f"{option} {value}" for option, value in given.items() if value is not None)
                _on_ray(
                    experiment,
                    source,
                    folder,
                    resume=True,
                    address=address,
                    verbose=verbose,
                    kind="tune",
                    console=_console(stderr=as_json),
                    go_on=f"arat-ray confirm {study} {options}",
                )
        _print_confirmation(study, _shown(folder), as_json=as_json)


def _print_confirmation(study: Path, folder: Path, *, as_json: bool) -> None:
    from arat_ray.frontier import confirm as confirming
    from arat_ray.frontier import show

    found = confirming.load(study, folder)
    if as_json:
        click.echo(json.dumps(confirming.as_json(found), indent=2))
    else:
        show.print_confirmation(found, _console())
    if found.surfaces:
        from arat_ray.frontier.plot_confirm import plot_confirmation

        plot_confirmation(found, folder / "confirm.png")
        click.echo(f"drew {folder}/confirm.png", err=as_json)


@main.command()
@click.argument("target", type=click.Path(path_type=Path))
@click.option(
    "--attack",
    "attack_name",
    metavar="NAME",
    required=True,
    help="autoattack, apgd, square, autoattack-10-steps, pgd or fgsm.",
)
@click.option("--epsilon", help="Radius in pixel units, such as 8/255; needed.")
@click.option("--split", type=click.Choice(["train", "validation", "test"]), required=True, help="Which images.")
@click.option("--front", is_flag=True, help="Of a study, only the trials on its front.")
@click.option("--norm", type=click.Choice(["linf", "l2"]), default="linf", show_default=True, help="Of the radius.")
@click.option("--steps", type=click.IntRange(min=1), help="Iterations of pgd.  [default: 20]")
@click.option("--step-size", help="Of pgd, in pixel units.  [default: epsilon / 4]")
@click.option("--images", type=click.IntRange(min=1), help="Only the first so many.  [default: all]")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the random starts.")
@click.option("--batch-size", type=click.IntRange(min=1), default=256, show_default=True, help="Images at once.")
@click.option(
    "--mode",
    type=click.Choice(["exact", "fast"]),
    default="exact",
    show_default=True,
    help="Of an ensemble: the reference's verdicts bit for bit, or up to rounding in less time.",
)
@click.option("--raw", is_flag=True, help="Measure the weights trained last, not their average (swa, ema).")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Where.  [default: cuda where there is one]")
@click.option("--workers", type=click.IntRange(min=1), help="Spread the batches of an ensemble over so many on Ray.")
@click.option("--address", help="Ray cluster to join with --workers (default: RAY_ADDRESS, else one on this machine).")
@click.option("--records", type=FOLDER, help="Where finished batches are kept.  [default: attacks/ by the checkpoint]")
@click.option("--json", "as_json", is_flag=True, help="Print rows of the `evaluations` table as JSON.")
def evaluate(
    target: Path,
    attack_name: str,
    epsilon: str | None,
    split: Any,
    front: bool,
    norm: str,
    steps: int | None,
    step_size: str | None,
    images: int | None,
    seed: int,
    batch_size: int,
    mode: str,
    raw: bool,
    device: str | None,
    workers: int | None,
    address: str | None,
    records: Path | None,
    as_json: bool,
) -> None:
    """Clean and robust accuracy of a deployed network; adds rows to its study's `evaluations` and `examples`.

    TARGET is a checkpoint, or a study, of which all complete trials are measured, or those on its front.

    autoattack is AutoAttack's standard version, the same verdicts as the reference code's for the same --batch-size
    and --seed; --mode fast runs the same attacks on a folded network. Interrupted at any moment, the same command goes
    on from the batches that were finished. Signs of masked gradients are part of the result.

    \b
    Example: arat-ray evaluate results/quickstart --front --attack autoattack --epsilon 0.2 --split test
             arat-ray evaluate results/quickstart/checkpoints/quickstart-00000/last.pt
             --attack pgd --epsilon 0.2 --split test
    """
    with _user_errors(), ExitStack() as stack:
        import torch

        from arat_ray.evaluation import accuracy
        from arat_ray.evaluation.autoattack import Runner, one_after_another
        from arat_ray.evaluation.request import attack_from, checkpoints_of, record

        attack = attack_from(attack_name, norm=norm, epsilon=epsilon, steps=steps, step_size=step_size, mode=mode)
        checkpoints = checkpoints_of(target, front=front)
        on = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if on.type == "cuda" and not torch.cuda.is_available():
            raise ValueError("--device cuda: torch sees no GPU on this machine; use --device cpu")
        runner: Runner = one_after_another
        if workers:
            from arat_ray.cluster import nodes
            from arat_ray.cluster.evaluate import spread

            stack.enter_context(nodes.cluster(address, verbose=False))
            runner = spread(workers, device=on)
        rows, studies, show = [], set(), _Line()
        for number, checkpoint in enumerate(checkpoints, start=1):
            if len(checkpoints) > 1:
                click.echo(f"{number}/{len(checkpoints)} {_shown(checkpoint)}", err=as_json)
            try:
                report = accuracy.evaluate(
                    checkpoint,
                    split=split,
                    attack=attack,
                    images=images,
                    seed=seed,
                    batch_size=batch_size,
                    averaged=not raw,
                    device=on,
                    records=records,
                    runner=runner,
                    progress=show,
                )
            except KeyboardInterrupt:
                click.echo("interrupted; the same command goes on from the finished batches", err=True)
                sys.exit(INTERRUPTED)
            studies.add(record(report))
            rows += report.rows()
            if not as_json:
                _print_report(report)
        if as_json:
            click.echo(json.dumps(rows, indent=2))
            return
        for study in filter(None, studies):
            click.echo(f"added to {_shown(study)}/evaluations and examples")


class _Line:
    """One line of a terminal, rewritten; elsewhere, as in the log of a job, a line a minute."""

    def __init__(self) -> None:
        self.next = time.monotonic() + 60

    def __call__(self, line: str) -> None:
        if sys.stderr.isatty():
            click.echo(f"\r{line}\x1b[K", nl=False, err=True)
        elif time.monotonic() >= self.next:
            self.next = time.monotonic() + 60
            click.echo(line, err=True)


def _print_report(report: Report) -> None:
    if sys.stderr.isatty():
        click.echo("\r\x1b[K", nl=False, err=True)
    for each in (report.clean, report.robust):
        low, high = each.interval
        click.echo(
            f"{each.attack or 'clean'}: {100 * each.accuracy:.2f} % [{100 * low:.2f}, {100 * high:.2f}] "
            f"of {each.images} {report.split} images"
        )
    for warning in report.warnings:
        click.secho(f"warning: {warning}", fg="yellow")


def _choosing_evaluations(command: Callable[..., None]) -> Callable[..., None]:
    """The options that choose among a study's evaluations, each by the name of the condition."""
    for option in reversed(
        [
            click.option("--attack", metavar="NAME", help="As `evaluate` reports it, such as autoattack or pgd-20."),
            click.option("--split", type=click.Choice(["train", "validation", "test"]), help="Which images."),
            click.option("--norm", type=click.Choice(["linf", "l2"]), help="Where there are several."),
            click.option("--epsilon", help="Where there are several: 8/255."),
            click.option("--images", type=click.IntRange(min=1), help="Where there are several: how many."),
        ]
    ):
        command = option(command)
    return command


def _asked(epsilon: str | None, **conditions: Any) -> Asked:
    from arat_ray.frontier.evaluations import Asked, radius

    return Asked(epsilon=None if epsilon is None else radius(epsilon), **conditions)


@main.command()
@click.argument("studies", nargs=-1, required=True, type=click.Path(path_type=Path))
@_choosing_evaluations
@click.option("--plot", type=FILE, help="Draw the front: FILE.png, .pdf or .svg.")
@click.option("--csv", "as_csv", is_flag=True, help="Print as CSV.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@click.option("--infeasible", is_flag=True, help="Show the trials that broke a constraint, and which, instead.")
@click.option("--partial", is_flag=True, help="Let trials compete that have not reached their last epoch.")
def pareto(
    studies: tuple[Path, ...],
    attack: str | None,
    split: str | None,
    norm: str | None,
    epsilon: str | None,
    images: int | None,
    plot: Path | None,
    as_csv: bool,
    as_json: bool,
    infeasible: bool,
    partial: bool,
) -> None:
    """The front: trials that no other beats in every goal, with 95 % intervals and the hypervolume.

    Several studies make one front when they were measured alike. The accuracies are those of the trials' validation;
    with --attack and --split those that `arat-ray evaluate` measured, and trials without them do not compete.

    \b
    Example: arat-ray pareto results/quickstart --plot front.png
             arat-ray pareto results/quickstart --attack autoattack --split test
    """
    if as_csv and as_json:
        raise click.UsageError("choose one of --csv and --json")
    if infeasible and (plot or partial or any(value is not None for value in (attack, split, norm, epsilon, images))):
        raise click.UsageError("--infeasible lists trials and draws no front: it goes with --csv and --json alone")
    if infeasible:
        _print_infeasible(studies, as_csv=as_csv, as_json=as_json)
        return
    with _user_errors():
        from arat_ray.frontier import show
        from arat_ray.frontier.pareto import load_front

        asked = _asked(epsilon, attack=attack, split=split, norm=norm, images=images)
        front = load_front(studies, include_partial=partial, asked=asked)
        if as_json:
            click.echo(json.dumps(show.as_json(front), indent=2, default=str))
        elif as_csv:
            show.write_csv(front, sys.stdout)
        else:
            show.print_table(front, _console())
        if plot:
            from arat_ray.frontier.plot import plot_front

            plot_front(front, plot)
            click.echo(f"drew {plot}", err=as_csv or as_json)


def _print_infeasible(studies: tuple[Path, ...], *, as_csv: bool, as_json: bool) -> None:
    with _user_errors():
        from arat_ray.frontier import infeasible

        trials = infeasible.load(studies)
        if as_json:
            click.echo(json.dumps(trials, indent=2))
        elif as_csv:
            infeasible.write_csv(trials, sys.stdout)
        else:
            infeasible.print_table(trials, _console())


@main.command()
@click.argument("study", type=click.Path(path_type=Path))
@click.option("--min", "least", metavar="GOAL=VALUE", multiple=True, help="At least this, as 0.85 or 85%; repeatable.")
@click.option("--max", "best", metavar="GOAL", help="Best in this goal.  [default: the one that --min leaves]")
@click.option("--knee", is_flag=True, help="Where the front bulges out the most.")
@_choosing_evaluations
@click.option("-o", "--output", type=FILE, help="Write the experiment file here instead of printing it.")
def pick(
    study: Path,
    least: tuple[str, ...],
    best: str | None,
    knee: bool,
    attack: str | None,
    split: str | None,
    norm: str | None,
    epsilon: str | None,
    images: int | None,
    output: Path | None,
) -> None:
    """Choose one member of the front, say why, and write the experiment file that trains it again, for `train`.

    --min robust_accuracy=60% takes the most accurate member that is at least so robust; --max clean_accuracy alone the
    extreme; --knee the member farthest above the line between the extremes, each goal scaled to [0, 1] over the front.
    The accuracies are those of the trials' validation; with --attack and --split those that `arat-ray evaluate`
    measured.

    \b
    Example: arat-ray pick results/quickstart --min robust_accuracy=60% -o chosen.yaml
             arat-ray pick results/quickstart --knee > chosen.yaml
    """
    with _user_errors():
        from arat_ray.frontier import show
        from arat_ray.frontier.pareto import load_front
        from arat_ray.frontier.pick import pick as choose
        from arat_ray.study import derived

        front = load_front([study], asked=_asked(epsilon, attack=attack, split=split, norm=norm, images=images))
        chosen = choose(front, least=least, best=best, knee=knee)
        lines = show.choice_lines(chosen, front)
        text = derived.run_of(study, chosen.trial["trial_id"], comments=lines)
        if output is None:
            click.echo(text, nl=False)
            return
        added = derived.write(text, output)
        for line in lines:
            click.echo(line)
        if added:
            echo = f"warning: this version of arat-ray adds {', '.join(added)} to the run: its config_hash will differ"
            click.secho(echo, fg="yellow")
        click.echo(f"wrote {output}; train it with: arat-ray train {output}")


@main.group()
def results() -> None:
    """What the tables of a study say, as text.

    Example: arat-ray results why results/quickstart 3
    """


@results.command()
@click.argument("study", type=click.Path(path_type=Path))
@click.argument("trial")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def why(study: Path, trial: str, as_json: bool) -> None:
    """Why a trial was stopped early or went on: at which epoch, with which values, against which trials.

    TRIAL is its number, or its trial_id.

    Example: arat-ray results why results/layers 3
    """
    with _user_errors():
        from arat_ray.results import why as reasons

        found = reasons.why(study, trial)
        if as_json:
            click.echo(json.dumps(found, indent=2))
        else:
            for line in reasons.lines(found):
                click.echo(line)


@main.command()
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@_choosing_evaluations
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def compare(
    a: Path,
    b: Path,
    attack: str | None,
    split: str | None,
    norm: str | None,
    epsilon: str | None,
    images: int | None,
    as_json: bool,
) -> None:
    """Is A more accurate than B, clean or under attack? McNemar's paired test on the images that both measured.

    A and B are checkpoints that `arat-ray evaluate` measured, or the folder of a trial, for the checkpoint that it
    reports, or single evaluations, as STUDY/EVALUATION_ID. The options choose among a checkpoint's evaluations.

    It speaks about these two networks; another training run of each may come out differently.

    \b
    Example: arat-ray compare results/quickstart/checkpoints/quickstart-00002
             results/quickstart/checkpoints/quickstart-00008 --attack autoattack --split test
    """
    with _user_errors():
        from arat_ray.frontier import compare as comparing
        from arat_ray.frontier import show

        asked = _asked(epsilon, attack=attack, split=split, norm=norm, images=images)
        found = comparing.compare(a, b, asked)
        if as_json:
            click.echo(json.dumps(comparing.as_json(found), indent=2))
        else:
            show.print_comparison(found, _console())


@main.command()
@click.argument("checkpoint", type=FILE)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="FILE.safetensors, FILE.pt2 or FILE.onnx."
)
@click.option("--raw", is_flag=True, help="Export the weights trained last, not their average (swa, ema).")
@click.option("--force", is_flag=True, help="Replace a file that exists.")
def export(checkpoint: Path, output: Path, raw: bool, force: bool) -> None:
    """Write a checkpoint's deployed network (adversarial branch folded in) for use without arat-ray.

    FILE.safetensors holds the weights; FILE.pt2 is a program for plain torch, which gradients go through; FILE.onnx one
    for ONNX runtimes. The file is loaded back and its logits are compared before it is kept. FILE.json, the suffix
    added to the name, says what it is.

    \b
    Example: arat-ray export results/quickstart/checkpoints/quickstart-00000/last.pt -o model.pt2
    """
    with _user_errors():
        from arat_ray.training.export import export as write

        written = write(checkpoint, output, averaged=not raw, overwrite=force)
        click.echo(f"{written.comparison}")
        click.echo(f"wrote {written.path} and {written.description}")


@main.command()
@click.argument("model")
@click.option("--set", "settings", metavar="KEY=VALUE", multiple=True, help="A setting of the model; repeatable.")
@click.option("--input", "shape", metavar="CxHxW", default="3x32x32", show_default=True, help="Of an image.")
@click.option("--classes", type=click.IntRange(min=1), default=10, show_default=True, help="Number of classes.")
@click.option("--pattern", "patterns", multiple=True, help="Mark the layers that it matches; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def layers(
    model: str, settings: tuple[str, ...], shape: str, classes: int, patterns: tuple[str, ...], as_json: bool
) -> None:
    """The layers of a network that a method can regularise: names, outputs, feature widths, the paper's choice.

    MODEL is a `name:` under `model:`, such as resnet18 or wide_resnet.

    \b
    Example: arat-ray layers resnet18 --pattern 'layer4.*.bn?'
             arat-ray layers wide_resnet --set depth=16 --set width=2
    """
    with _user_errors():
        from arat_ray.experiment import network

        found = network.examine(
            network.model_from(model, settings), network.shape_from(shape), num_classes=classes, patterns=patterns
        )
        if as_json:
            click.echo(json.dumps(network.as_json(found), indent=2))
        else:
            network.print_table(found, _console())


@main.command()
@click.argument("name", required=False)
def presets(name: str | None) -> None:
    """The published training runs that `preset:` under `train:` can name; with NAME, all that it says, as YAML.

    Example: arat-ray presets trades/resnet18
    """
    with _user_errors():
        import yaml

        from arat_ray.spec import did_you_mean
        from arat_ray.training.presets import PRESETS

        if name is None:
            for known, run in PRESETS.items():
                click.echo(f"{known}: {run['epochs']} epochs, learning rate {run['optimizer']['learning_rate']}")
        elif name in PRESETS:
            click.echo(yaml.safe_dump(PRESETS[name], sort_keys=False, default_flow_style=None), nl=False)
        else:
            raise ValueError(f"no preset {name!r}{did_you_mean(name, PRESETS)}")


def _console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(width=160, stderr=stderr)


def _shown(path: Path) -> Path:
    """A path as short as the user would write it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
