"""The command line: verbs and paths. Each verb imports what it needs, calls one function and prints."""

from __future__ import annotations

import io
import sys
from typing import Any

import click

from arat_ray.cli import (
    clusters,
    confirming,
    dialling,
    doctor,
    fronts,
    jobs,
    measuring,
    networks,
    reporting,
    studies,
    submitting,
    tables,
)
from arat_ray.cli.groups import Sections
from arat_ray.cli.interrupts import interrupted_is_130
from arat_ray.version import __version__

SECTIONS = {
    "Start": ("validate", "tune", "train", "layers", "presets"),
    "Look": ("results", "pareto", "report", "watch"),
    "Measure": ("evaluate", "dial", "compare"),
    "Choose": ("confirm", "pick", "export"),
    "On a cluster": ("doctor", "cluster", "submit", "status", "stop"),
}
"""Of the commands, in the order of work."""


class Verbs(Sections):
    """Of which each can be ended at any moment."""

    def invoke(self, ctx: click.Context) -> Any:
        with interrupted_is_130():
            return super().invoke(ctx)


@click.group(cls=Verbs, sections=SECTIONS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="arat-ray")
def main() -> None:
    """Search the trade-off between clean and robust accuracy of adversarially trained networks.

    \b
    arat-ray tune search_spaces/quickstart.yaml
    arat-ray pareto results/quickstart --plot front.png
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a letter that the terminal lacks ends nothing


for verb in (
    studies.validate,
    studies.train,
    studies.tune,
    confirming.confirm,
    measuring.evaluate,
    dialling.dial,
    fronts.pareto,
    fronts.pick,
    fronts.compare,
    tables.results,
    reporting.report,
    reporting.watch,
    networks.layers,
    networks.presets,
    networks.export,
    clusters.cluster,
    submitting.submit,
    jobs.status,
    jobs.stop,
    doctor.doctor,
):
    main.add_command(verb)
