"""The verb of the report: `report`."""

from __future__ import annotations

from pathlib import Path

import click

from arat_ray.cli.common import FILE, HERE, PATH, bring, echo, user_errors, writing_to
from arat_ray.text import command


@click.command(short_help="One HTML file of studies, to look at and to send around.")
@click.argument("studies", nargs=-1, type=PATH)
@click.option("-o", "--output", required=True, type=HERE, help="FILE.html; with --extract the folder to write into.")
@click.option("--extract", type=FILE, help="A report: get its tables back, byte for byte.")
def report(studies: tuple[Path, ...], output: Path, extract: Path | None) -> None:
    """One HTML file that shows studies: it opens from disk without a network, and carries their tables.

    The trade-off with intervals, evaluations, dominated, stopped and infeasible trials; the curves, decisions and
    configuration of each trial; what was tried, hypervolume, failures, versions, seeds and data. Several studies lie on
    one plot when they were measured alike.

    \b
    Example: arat-ray report results/quickstart -o report.html
             arat-ray report --extract report.html -o tables
    """
    if bool(studies) == bool(extract):
        raise click.UsageError("name the studies to show, or the report to --extract, and not both")
    with user_errors():
        if extract:
            from arat_ray.report import carried

            with writing_to(output):
                for study in carried.extract(extract, output):
                    echo(f"wrote {study}; look at it with: {command('arat-ray', 'results', 'show', study)}")
            return
        from arat_ray import whole_files
        from arat_ray.report.page import page

        bring(*studies)
        content = page(studies)
        with writing_to(output):
            whole_files.replace(output, content)
        echo(f"wrote {output}, {len(content) / 1e6:.1f} MB: open it in a browser")
