"""The verb that measures one network at settings between its norm branches: `dial`."""

from __future__ import annotations

import json
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from arat_ray.cli.attacking import clear_line, how_to_measure, measured, rows_of
from arat_ray.cli.common import OUTPUT, PATH, console, echo, shown, user_errors, writing_to

if TYPE_CHECKING:
    from arat_ray.results.rows import EvaluationRow

POINTS = 11


@click.command(short_help="One network between its norm branches: a curve of trade-offs.")
@click.argument("target", type=PATH)
@click.option("--at", metavar="T,T,...", help="Settings, such as -0.25,0,0.5; 0 is deployed, 1 the clean branch.")
@click.option("--points", type=click.IntRange(min=2), help=f"So many settings from 0 to 1.  [default: {POINTS}]")
@click.option(
    "--fit",
    type=click.IntRange(min=1),
    metavar="EPOCHS",
    help="Train a clean branch first, for a network that has none.",
)
@click.option("--soup", type=PATH, metavar="CHECKPOINT", help="From TARGET to this one: weights interpolated.")
@click.option("--mix", type=PATH, metavar="CHECKPOINT", help="From TARGET to this one: probabilities mixed.")
@how_to_measure
@click.option("--plot", type=OUTPUT, help="Draw the curve: FILE.png, .pdf or .svg; its folder is made.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print rows of the `evaluations` table as JSON, and which `subset`."
)
def dial(
    target: Path,
    at: str | None,
    points: int | None,
    fit: int | None,
    soup: Path | None,
    mix: Path | None,
    plot: Path | None,
    as_json: bool,
    **how: Any,
) -> None:
    """Clean and robust accuracy of a network trained with ARAT at settings between its two norm branches.

    At setting T every number of each norm layer is (1 - T) x adversarial + T x clean: a plain network, which `export
    --dial T` writes. T may leave [0, 1] as far as the network is defined; where that is, is said when T is beyond.
    TARGET is a checkpoint, or a study, of which all complete trials are measured, or those on its front. The rows are
    added to its study's `evaluations` and `examples` with T in the column `dial`; `pareto --dial` and `pick --dial` let
    them compete.

    --fit EPOCHS gives a network of another method a clean branch: copies of its norm layers, trained on clean images
    with the run's optimizer and seed, all else frozen. It is kept beside the checkpoint, as fitted-last.pt.

    --soup and --mix go from one network to another, T from 0 to 1: fronts that a search has to beat. A soup
    interpolates the weights of one architecture and estimates norm statistics anew; a mixture of probabilities is two
    networks, and is attacked through both.

    \b
    Example: arat-ray dial results/quickstart/checkpoints/quickstart-00002/last.pt
             --attack pgd --epsilon 0.2 --split test --plot dial.png
             arat-ray dial results/quickstart --front --at -0.5,0,0.5,1
             --attack autoattack --epsilon 0.2 --split test
             arat-ray dial results/trades/checkpoints/trades-00000/last.pt --fit 3
             --attack pgd --epsilon 0.2 --split test
             arat-ray dial results/layers/checkpoints/layers-00002/last.pt
             --soup results/layers/checkpoints/layers-00007/last.pt --attack pgd --epsilon 8/255 --split test
    """
    if at is not None and points is not None:
        raise click.UsageError("choose one of --at and --points")
    if sum(each is not None for each in (fit, soup, mix)) > 1:
        raise click.UsageError("choose one of --fit, --soup and --mix")
    with user_errors():
        from arat_ray.frontier.dial import curves
        from arat_ray.report import dial as shows

        if plot:
            from arat_ray.report.figure import check_suffix

            check_suffix(plot)
        dials = settings_of(at) if at is not None else spread(points or POINTS)
        other: tuple[Literal["soup", "mix"], Path] | None = None
        if path := soup or mix:
            other = ("soup" if soup else "mix", path)
        found: list[EvaluationRow] = []
        rows, studies = list[dict[str, Any]](), set()
        for report, study in measured(target, quiet=as_json, dials=dials, fit=fit, other=other, **how):
            studies.add(study)
            found += report.rows()
            rows += rows_of(report)
        clear_line()
        measured_curves = curves(found)
        if as_json:
            echo(json.dumps(rows, indent=2))
        else:
            for curve in measured_curves:
                shows.print_curve(curve, console())
            for study in filter(None, studies):
                echo(f"added to {shown(study)}/evaluations and examples")
        if plot:
            from arat_ray.report.figure_dial import plot_curves

            with writing_to(plot):
                plot_curves(measured_curves, plot)
            echo(f"drew {plot}", err=as_json)


def settings_of(words: str) -> list[float]:
    """The settings of --at, each once, in ascending order. ValueError for what is no finite number."""
    found = set()
    for word in words.split(","):
        try:
            value = float(word)
        except ValueError:
            value = float("nan")
        if not isfinite(value):
            raise ValueError(f"--at: {word.strip()!r} is no setting; write numbers with commas, such as -0.25,0,0.5")
        found.add(value + 0.0)  # which makes -0 the 0 that it is
    return sorted(found)


def spread(points: int) -> list[float]:
    return [number / (points - 1) for number in range(points)]
