"""Verbs of the trade-off: the front, a choice from it, a comparison of two networks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from arat_ray.cli.common import (
    FILE,
    OUTPUT,
    PATH,
    PlainOut,
    Word,
    bring,
    bring_any,
    console,
    echo,
    user_errors,
    writing_to,
)
from arat_ray.cli.data import DATA, again, data_of
from arat_ray.text import command

if TYPE_CHECKING:
    from arat_ray.frontier.evaluations import Conditions

FRONT = ("study.json", "trials/", "evaluations/")
"""What a front is computed from."""


def _choosing_evaluations(verb: Callable[..., None]) -> Callable[..., None]:
    """The options that choose among a study's evaluations, each by the name of the condition."""
    for option in reversed(
        [
            click.option("--attack", metavar="NAME", help="As `evaluate` reports it, such as autoattack or pgd-20."),
            click.option("--split", type=Word(["train", "validation", "test"]), help="Which images."),
            click.option("--norm", type=Word(["linf", "l2"]), help="Where there are several."),
            click.option("--epsilon", help="Where there are several: 8/255."),
            click.option("--images", type=click.IntRange(min=1), help="Where there are several: how many."),
            click.option("--mode", type=Word(["exact", "fast"]), help="Of autoattack.  [default: exact first]"),
        ]
    ):
        verb = option(verb)
    return verb


def _asked(*, epsilon: str | None, **conditions: Any) -> Conditions:
    from arat_ray.frontier.evaluations import Conditions
    from arat_ray.pixels import radius

    return Conditions(epsilon=None if epsilon is None else radius(epsilon), **conditions)


@click.command(short_help="The front of one or several studies: print, draw, export it.")
@click.argument("studies", nargs=-1, required=True, type=PATH)
@_choosing_evaluations
@click.option("--plot", type=OUTPUT, help="Draw the front: FILE.png, .pdf or .svg; its folder is made.")
@click.option("--title", help="Of the figure.  [default: none, for a paper has captions]")
@click.option("--label", "labels", multiple=True, metavar="TEXT", help="Name a study; once for each, in their order.")
@click.option("--size", metavar="WxH", help="Of the figure, in inches.  [default: 5.6x4.4]")
@click.option("--color-by", metavar="WHAT", help="study, method, layers, or a column of `trials`.")
@click.option("--reference", metavar="FILE", help="Published points beside the front: `published`, or a CSV.")
@click.option("--seeds", is_flag=True, help="Trials that differ only in the seed are one point: mean and deviation.")
@click.option("--csv", "as_csv", is_flag=True, help="Print as CSV.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@click.option("--latex", "as_latex", is_flag=True, help="Print as a table of LaTeX, with booktabs.")
@click.option("--infeasible", is_flag=True, help="Show the trials that broke a constraint, and which, instead.")
@click.option("--partial", is_flag=True, help="Let trials compete that have not reached their last epoch.")
@click.option(
    "--dial", "dials", is_flag=True, help="Let settings that `dial` measured compete; with --attack, --split."
)
def pareto(
    studies: tuple[Path, ...],
    plot: Path | None,
    title: str | None,
    labels: tuple[str, ...],
    size: str | None,
    color_by: str | None,
    reference: str | None,
    seeds: bool,
    as_csv: bool,
    as_json: bool,
    as_latex: bool,
    infeasible: bool,
    partial: bool,
    dials: bool,
    **conditions: Any,
) -> None:
    """The front: trials that no other beats in every goal, with 95 % intervals and the hypervolume.

    Several studies make one front when they were measured alike. The accuracies are those of the trials' validation;
    with --attack and --split those that `arat-ray evaluate` measured, and trials without them do not compete. With
    --dial also the settings between the norm branches that `arat-ray dial` measured alike, each named by its T.

    In the figure each of several studies has a colour and a front of its own. --reference draws those published points
    that have the data set, split, attack, norm and epsilon of the front, and says which others differ in what.

    \b
    Example: arat-ray pareto results/quickstart --plot front.png
             arat-ray pareto results/a results/b --label A --label B --plot front.pdf --size 3.5x2.6
             arat-ray pareto results/cifar10 --attack autoattack --split test --reference published --latex
             arat-ray pareto results/quickstart --attack autoattack --split test
             arat-ray pareto results/quickstart --attack pgd --split validation --dial
    """
    if as_csv + as_json + as_latex > 1:
        raise click.UsageError("choose one of --csv, --json and --latex")
    drawn = {"--title": title, "--size": size, "--color-by": color_by}
    beside = {"--label": labels or None, "--reference": reference}
    if infeasible and (
        plot or partial or dials or seeds or as_latex or any({**drawn, **beside, **conditions}.values())
    ):
        raise click.UsageError("--infeasible lists trials and draws no front: it goes with --csv and --json alone")
    if infeasible:
        _print_infeasible(studies, as_csv=as_csv, as_json=as_json)
        return
    for needs, given, there in (("--plot", drawn, plot), ("--plot or --latex", beside, plot or as_latex)):
        if not there and (unused := [option for option, value in given.items() if value is not None]):
            raise click.UsageError(f"{unused[0]} goes with {needs}")
    with user_errors():
        from arat_ray.frontier.pareto import load_front
        from arat_ray.report import figure, latex, looks, printing

        if plot:
            figure.check_suffix(plot)
        if size is not None:
            looks.size_of(size)
        bring(*studies, names=FRONT)
        asked = _asked(**conditions)
        front = load_front(studies, include_partial=partial, asked=asked, dials=dials, over_seeds=seeds)
        references, left_out = looks.references_for(reference, front, studies) if reference else ([], [])
        look = looks.look(studies, title=title, labels=labels, size=size, by=color_by, references=references)
        if as_json:
            echo(json.dumps(printing.as_json(front), indent=2, default=str))
        elif as_csv:
            printing.write_csv(front, PlainOut())
        elif as_latex:
            for line in latex.lines(front, labels=look.labels, references=references):
                echo(line)
        else:
            printing.print_table(front, console())
        is_piped = as_csv or as_json or as_latex
        for why in left_out:
            echo(f"reference points left out: {why}", err=is_piped)
        if plot:
            with writing_to(plot):
                figure.plot_front(front, plot, look)
            echo(f"drew {plot}: {figure.caption(front, look)}", err=is_piped)


def _print_infeasible(studies: tuple[Path, ...], *, as_csv: bool, as_json: bool) -> None:
    with user_errors():
        from arat_ray.report import infeasible

        bring(*studies, names=FRONT)
        trials = infeasible.load(studies)
        if as_json:
            echo(json.dumps(trials, indent=2))
        elif as_csv:
            infeasible.write_csv(trials, PlainOut())
        else:
            infeasible.print_table(trials, console())


@click.command(short_help="Choose one member of the front, and write its experiment file.")
@click.argument("study", type=PATH)
@click.option("--min", "least", metavar="GOAL=VALUE", multiple=True, help="At least this, as 0.85 or 85%; repeatable.")
@click.option("--max", "best", metavar="GOAL", help="Best in this goal.  [default: the one that --min leaves]")
@click.option("--knee", is_flag=True, help="Where the front bulges out the most.")
@_choosing_evaluations
@click.option("--dial", "dials", is_flag=True, help="Also from settings that `dial` measured; with --attack, --split.")
@click.option("-o", "--output", type=FILE, help="Write the experiment file here instead of printing it.")
@DATA
def pick(
    study: Path,
    least: tuple[str, ...],
    best: str | None,
    knee: bool,
    output: Path | None,
    data: str | None,
    dials: bool,
    **conditions: Any,
) -> None:
    """Choose one member of the front, say why, and write the experiment file that trains it again, for `train`.

    --min robust_accuracy=60% takes the most accurate member that is at least so robust; --max clean_accuracy alone the
    extreme; --knee the member farthest above the line between the extremes, each goal scaled to [0, 1] over the front.
    The accuracies are those of the trials' validation; with --attack and --split those that `arat-ray evaluate`
    measured. With --dial the answer may be a setting between a trial's norm branches that `arat-ray dial` measured, and
    a setting between two of them that may be better is proposed, with the command that measures it.

    \b
    Example: arat-ray pick results/quickstart --min robust_accuracy=60% -o chosen.yaml
             arat-ray pick results/quickstart --knee > chosen.yaml
             arat-ray pick results/quickstart --dial --attack pgd --split validation --min clean=98%
    """
    with user_errors():
        from arat_ray.frontier.pareto import load_front
        from arat_ray.frontier.pick import pick as choose
        from arat_ray.report import printing
        from arat_ray.study import rerun_config

        bring(study, names=FRONT)
        front = load_front([study], asked=_asked(**conditions), dials=dials)
        chosen = choose(front, least=least, best=best, knee=knee)
        lines = printing.choice_lines(chosen, front)
        text = rerun_config.run_of(study, chosen.trial["trial_id"], comments=lines)
        if output is None:
            echo(text, nl=False)
            return
        run = rerun_config.source_of(study, chosen.trial["trial_id"]).train
        with data_of(study, [run], data):
            added = rerun_config.write(text, output)
        for line in lines:
            echo(line)
        if added:
            text = f"warning: this version of arat-ray adds {', '.join(added)} to the run: its config_hash will differ"
            echo(text, fg="yellow")
        echo(f"wrote {output}; train it with: {command('arat-ray', 'train', output, *again(data))}")


@click.command(short_help="Is one network better than another? McNemar's paired test.")
@click.argument("a", type=PATH)
@click.argument("b", type=PATH)
@_choosing_evaluations
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def compare(a: Path, b: Path, as_json: bool, **conditions: Any) -> None:
    """Is A more accurate than B, clean or under attack? McNemar's paired test on the images that both measured.

    A and B are checkpoints that `arat-ray evaluate` measured, or the folder of a trial, for the checkpoint that it
    reports, or single evaluations, as STUDY/EVALUATION_ID. The options choose among a checkpoint's evaluations;
    where they leave several, the only one that both have is taken.

    It speaks about these two networks; another training run of each may come out differently.

    \b
    Example: arat-ray compare results/quickstart/checkpoints/quickstart-00002
             results/quickstart/checkpoints/quickstart-00008 --attack autoattack --split test
    """
    with user_errors():
        from arat_ray.frontier import compare as comparing
        from arat_ray.report import printing

        asked = _asked(**conditions)
        for each in (a, b):
            bring_any(each)
        found = comparing.compare(a, b, asked)
        if as_json:
            echo(json.dumps(comparing.as_json(found), indent=2))
        else:
            printing.print_comparison(found, console())
