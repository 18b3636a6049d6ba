"""Verbs of the report: report, watch."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import click

from arat_ray.cli.common import FILE, HERE, PATH, BadInput, bring, echo, tell, user_errors, writing_to
from arat_ray.text import command


@click.command(short_help="One HTML file of studies, to look at and to send around.")
@click.argument("studies", nargs=-1, type=PATH)
@click.option("-o", "--output", required=True, type=HERE, help="FILE.html; with --extract the folder to write into.")
@click.option("--extract", type=FILE, help="A report: get its tables back, byte for byte.")
def report(studies: tuple[Path, ...], output: Path, extract: Path | None) -> None:
    """One HTML file that shows studies: it opens from disk without a network, and carries their tables.

    The trade-off with intervals, evaluations, published points, dominated, stopped and infeasible trials; the curves,
    decisions and configuration of each trial; what was tried and how much each knob moves each goal, attacks from weak
    to strong, hypervolume, failures, versions, seeds and data. Several studies lie on one plot when they were measured
    alike.

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
        from arat_ray.study import importances

        bring(*studies)
        content = page(studies, [importances.of(study) for study in studies])
        with writing_to(output):
            whole_files.replace(output, content)
        echo(f"wrote {output}, {len(content) / 1e6:.1f} MB: open it in a browser")


@click.command(short_help="The report as a live page, of studies that run.")
@click.argument("studies", nargs=-1, required=True, type=PATH)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="To listen on.  [default: one that is free]")
def watch(studies: tuple[Path, ...], port: int) -> None:
    """The report as a live page: new epochs, trials and evaluations come up by themselves.

    It prints an address to open in a browser on this machine, and the command that brings it to another one. The page
    only reads, nobody without that address sees it, and it goes on when a search ends and is resumed. Ctrl-C ends it.

    \b
    Example: arat-ray watch results/layers
             arat-ray watch s3://bucket/studies/layers --port 8123
    """
    with user_errors():
        from arat_ray.report.live import Live
        from arat_ray.report.serving import Server

        bring(*studies)
        live = Live(studies, log=tell)
        try:
            server = Server(live, port)
        except OSError as error:
            raise BadInput(f"--port {port}: {error.strerror}; leave it out, and a free one is taken") from error
        with server:
            echo(f"open {server.address}")
            echo(f"from another machine: {_tunnel(server.server_port)}, then open the same address there")
            echo("Ctrl-C ends it")
            server.serve_forever()


def _tunnel(port: int) -> str:
    """The command that brings a port of this machine to another one, as this session reached it."""
    _, _, host, ssh_port = os.environ.get("SSH_CONNECTION", "").split() or ("", "", socket.gethostname(), "22")
    there = () if ssh_port == "22" else ("-p", ssh_port)
    user = os.environ.get("USER") or "USER"
    return command("ssh", "-N", "-L", f"{port}:127.0.0.1:{port}", *there, f"{user}@{host}")
