"""The verb that attacks trained networks: `evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from arat_ray.cli.attacking import clear_line, how_to_measure, measured, rows_of
from arat_ray.cli.common import PATH, echo, shown, user_errors

if TYPE_CHECKING:
    from arat_ray.evaluation.accuracy import Report

CHOSEN = {None: "", "stratified": " (of each class by its share)", "first": " (the first)"}
"""Which images of the split were measured on, where not on all."""


@click.command(short_help="Attack trained networks: clean and robust accuracy.")
@click.argument("target", type=PATH)
@how_to_measure
@click.option(
    "--json", "as_json", is_flag=True, help="Print rows of the `evaluations` table as JSON, and which `subset`."
)
def evaluate(target: Path, as_json: bool, **how: Any) -> None:
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
    with user_errors():
        rows, studies = [], set()
        for report, study in measured(target, quiet=as_json, **how):
            studies.add(study)
            rows += rows_of(report)
            if not as_json:
                _print_report(report)
        if as_json:
            echo(json.dumps(rows, indent=2))
            return
        for study in filter(None, studies):
            echo(f"added to {shown(study)}/evaluations and examples")


def _print_report(report: Report) -> None:
    clear_line()
    for each in (report.clean, report.robust):
        low, high = each.interval
        echo(
            f"{each.attack or 'clean'}: {100 * each.accuracy:.2f} % [{100 * low:.2f}, {100 * high:.2f}] "
            f"of {each.images} {report.split} images{CHOSEN[report.subset]}"
        )
    for warning in report.warnings:
        echo(f"warning: {warning}", fg="yellow")
