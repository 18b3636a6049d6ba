"""Faults in a study on a cluster of hosts: what was injected, what was lost, how long it took to go on.

    python -m tests.lab.faults                      # all of them
    python -m tests.lab.faults driver_killed        # some
    python -m tests.lab.faults --write              # the table goes into docs/reliability.md

As root, from the root of a checkout. Nothing of it is left behind. Exit code 1, with the reason, where anything that
was reported was lost, doubled or changed, or a study did not go on.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import click

from tests.lab.faults import injected, table
from tests.lab.faults.clusters import Cluster, cluster, mount_shared_folders
from tests.lab.faults.studies import EPOCHS, BrokenPromiseError, Rows, Study
from tests.lab.faults.table import Row
from tests.lab.hosts import missing


class Fault(NamedTuple):
    """What is injected, into which study, and after how many epochs."""

    inject: Callable[[Study], None]
    place: str = "folder"
    workers: int = 1
    nodes: int = 1
    after: int = 3
    timeout_minutes: float | None = None
    on_login: bool = False
    """Whether the driver is on a node of its own."""

    @property
    def name(self) -> str:
        return self.inject.__name__

    @property
    def sentence(self) -> str:
        return (self.inject.__doc__ or "").strip()


FAULTS = (
    Fault(injected.driver_killed),
    Fault(injected.worker_killed),
    Fault(injected.worker_stopped, timeout_minutes=0.25),
    Fault(injected.link_down_shortly),
    Fault(injected.disk_full, place="disk"),
    Fault(injected.bucket_refuses, place="bucket"),
    Fault(injected.bucket_hangs, place="bucket"),
    Fault(injected.bucket_gone_at_the_end, place="bucket", after=EPOCHS + 2),
    Fault(injected.last_node_killed),
    Fault(injected.node_drained, nodes=2),
    Fault(injected.node_killed, nodes=2),
    Fault(injected.link_down_for_long, nodes=2),
    Fault(injected.one_of_two_killed, workers=2, nodes=2),
    Fault(injected.head_killed),
    Fault(injected.head_killed_driver_elsewhere, on_login=True),
)


@click.command(help=__doc__)
@click.argument("names", nargs=-1, type=click.Choice([fault.name for fault in FAULTS]))
@click.option("--write", is_flag=True, help="Put the table into docs/reliability.md.")
def main(names: tuple[str, ...], write: bool) -> None:
    if lacks := missing():
        raise click.UsageError(f"a lab of hosts needs: {lacks}")
    mount_shared_folders()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that what is open is closed
    began, load = time.monotonic(), os.getloadavg()[0]
    rows, failed = run_all([fault for fault in FAULTS if not names or fault.name in names])
    click.echo("\n".join(["", *table.lines(rows), "", f"{time.monotonic() - began:.0f} s in all"]))
    if failed:
        click.echo("".join(f"\n{name}: {reason}" for name, reason in failed.items()))
        sys.exit(1)
    if write:
        table.write(rows, table.caption(load=load), order=[fault.sentence for fault in FAULTS])


def run_all(faults: Sequence[Fault]) -> tuple[list[Row], dict[str, str]]:
    """The row of each fault, and of those that were not survived the reason."""
    rows, failed = list[Row](), dict[str, str]()
    undisturbed: dict[int, Rows] = {}
    left = list(faults)
    while left:
        with cluster() as here:  # another one after each failure
            while left:
                fault = left.pop(0)
                try:
                    if fault.workers not in undisturbed:
                        undisturbed[fault.workers] = run_undisturbed(here, fault.workers)
                    rows.append(run(here, fault, undisturbed[fault.workers]))
                    click.echo(table.line(rows[-1]))
                except (BrokenPromiseError, AssertionError, OSError, subprocess.SubprocessError) as error:
                    failed[fault.name] = f"{type(error).__name__}: {error}"
                    click.echo(f"{fault.name} FAILED: {failed[fault.name]}")
                    break
    return rows, failed


def run_undisturbed(here: Cluster, workers: int) -> Rows:
    """The epochs of a study that nothing happens to."""
    here.have_workers(workers)
    study = Study(here, f"undisturbed-{workers}", workers=workers)
    began = time.monotonic()
    with study:
        study.start()
        code = study.ends()
        study.check(code, study.rows())
    click.echo(f"undisturbed, {workers} worker(s): {time.monotonic() - began:.0f} s")
    return study.rows()


def run(here: Cluster, fault: Fault, undisturbed: Rows) -> Row:
    """Inject it into a study and see what becomes of that."""
    here.have_workers(fault.nodes)
    study = Study(here, fault.name, place=fault.place, workers=fault.workers, timeout_minutes=fault.timeout_minutes)
    with study:
        study.start(host=here.boot_login() if fault.on_login else None)
        study.reaches(fault.after)
        study.breaks()
        fault.inject(study)
        study.goes_on()
        code = study.ends()
        study.check(code, undisturbed)
    attempts = max(row["attempt"] for row in study.table("trials"))
    by_hand = " and ".join(study.by_hand) or "nothing"
    return Row(fault.sentence, len(study.before), attempts, study.recovered_s, by_hand)


if __name__ == "__main__":
    main()
