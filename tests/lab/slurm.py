"""The whole of clusters/slurm.sh, run by a real Slurm on three nodes: checked, submitted, robbed of a node and of time.

    python -m tests.lab.slurm          # from the root of a checkout, as root; about ten minutes on two cores
    python -m tests.lab.slurm --write docs/reliability.md

Needs the packages of `uv sync --extra test` and Debian's slurmctld, slurmd, slurm-client, munge, openssh-server, rsync
and iproute2. Exit code 1 where a step fails.
"""

from __future__ import annotations

import re
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click

from arat_ray.results import reader
from tests.lab import hosts, machine, slurm_files, slurm_site
from tests.lab.hosts import Lab
from tests.lab.slurm_files import EPOCHS, LATER, SCRIPT, STUDY, TRIALS
from tests.lab.slurm_site import Site
from tests.lab.steps import Steps, wait_until


class Measured(NamedTuple):
    """What a study has reported: of each trial and epoch its values; a trial and epoch twice would be here twice."""

    epochs: list[tuple[str, int, float]]
    complete: set[str]


@click.command()
@click.option("--write", type=click.Path(exists=True, path_type=Path), help="Write the table of steps into this file.")
def main(write: Path | None) -> None:
    """Run clusters/slurm.sh by a real Slurm on hosts of this machine, as root; about ten minutes."""
    if lacks := "; ".join(each for each in (hosts.missing(), slurm_site.missing()) if each):
        raise click.ClickException(f"the lab needs: {lacks}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # so that everything is removed
    steps = Steps()
    try:
        _run(steps)
    except AssertionError as error:
        raise click.ClickException(str(error)) from error
    if write:
        steps.write(write, mark="lab: slurm")


def _run(steps: Steps) -> None:
    before = machine.state()
    with Lab(environment={"RAY_USAGE_STATS_ENABLED": "0"}) as lab, Site(lab) as site:
        try:
            _all(site, steps)
        except AssertionError:
            for log in sorted(site.home.glob("arat-ray-*.log")):
                click.echo(f"--- {log.name}\n{log.read_text()[-6000:]}", err=True)
            click.echo(site.logs(), err=True)
            raise
        namespaces = {machine.namespace(host.pid) for host in lab.hosts.values()}
    with steps.step("everything is gone") as seen:
        for folder in (lab.folder, site.shared, *Path("/sys/fs/cgroup").glob(f"*/{site.group}")):
            assert not folder.exists(), f"left: {folder}"
            assert not machine.mounts(folder), f"left: {machine.mounts(folder)}"
        wait_until(lambda: not machine.living(namespaces), 10, "the last processes to end")
        changed = [name for name, found in machine.state().items() if found != before[name]]
        assert not changed, f"the machine is not as it was: {changed}"
        seen.append("no process, no mount; accounts, names, munge and Slurm of the machine as before")


def _all(site: Site, steps: Steps) -> None:
    with steps.step("three nodes are switched on") as seen:
        site.start()
        wait_until(lambda: site.states() == {"idle"}, 60, "three idle nodes")
        seen.append(f"{site.user('sbatch', '--version').strip()}; idle")
    with steps.step("`arat-ray cluster check` of the file filled in") as seen:
        slurm_files.put(site.home, slurm_site.UID)
        seen.append(site.user("arat-ray", "cluster", "check", SCRIPT, "--experiment", STUDY).splitlines()[0])
        slurm_files.fit_to_lab(site.home)
    first = _first_job(site, steps)
    digest = machine.digest(first)
    _second_job(site, steps)
    _third_job(site, steps)
    assert machine.digest(first) == digest, f"{first} was changed by another job"


def _first_job(site: Site, steps: Steps) -> Path:
    with steps.step("`sbatch`, until the study runs on the nodes") as seen:
        job = _submit(site, STUDY)
        busy: set[str] = set()

        def watch() -> bool:
            assert site.job(job)["JobState"] not in ("COMPLETED", "FAILED"), f"trials ran on {busy} alone"
            busy.update(_training(site))
            return len(busy) == len(site.nodes)

        wait_until(watch, 900, "trials on all nodes")
        (token,) = site.home.glob(f".ray-token.{job}.*")
        mode = token.stat().st_mode & 0o777
        assert mode == 0o600, f"{token.name} has mode {mode:o}"
        seen.append(f"trials on {', '.join(sorted(busy))}; token file 0600")
    with steps.step("the study") as seen:
        folder = site.home / "results" / "lab"
        wait_until(lambda: _all_complete(folder), 1200, f"{TRIALS} trials")
        seen.append(f"{TRIALS} trials")
    with steps.step("the end of its job") as seen:
        _wait_for_the_end(site, job, "COMPLETED")
        seen.append("COMPLETED, no process and no token left")
    with steps.step("`arat-ray results show` and `pareto` read it") as seen:
        assert f"{TRIALS} of {TRIALS}" in (shown := site.user("arat-ray", "results", "show", "results/lab")), shown
        front = site.user("arat-ray", "pareto", "results/lab")
        seen.append(next(line for line in front.splitlines() if line.startswith("front:")).strip())
    return folder


def _second_job(site: Site, steps: Steps) -> None:
    folder = site.home / "results" / "later"
    with steps.step("a second job, until its study has measured something") as seen:
        job = _submit(site, LATER)
        wait_until(lambda: len(_measured(folder).epochs) >= 6, 900, "six epochs")
        before = _measured(folder)
        seen.append(f"{len(before.epochs)} epochs")
    with steps.step("its first node, where the study is driven, loses power; Slurm queues the job again") as seen:
        name = site.job(job)["BatchHost"]
        site.lab.hosts[name].kill()
        wait_until(lambda: site.job(job).get("Restarts") == "1", 180, "Slurm to see it")
        wait_until(lambda: not any(site.processes(node) for node in site.nodes), 60, "the other nodes to be empty")
        seen.append(f"{name} down, {_of_epochs(_measured(folder), before)}, no process on the others")
    with steps.step("the node comes back, the job starts again and goes on") as seen:
        site.boot(name)
        seen.append(_goes_on(site, job, folder, before))
    with steps.step("its time limit comes near; the job queues itself again") as seen:
        before = _measured(folder)
        hours, minutes, _ = map(int, site.job(job)["RunTime"].split(":"))
        _limit(site, job, 60 * hours + minutes + 3)  # less slurm.sh's two minutes: the signal comes within one
        wait_until(lambda: site.job(job).get("Restarts") == "2", 180, "the job to queue itself")
        _limit(site, job, 30)
        seen.append(_of_epochs(_measured(folder), before))
    with steps.step("it starts once more and goes on") as seen:
        seen.append(_goes_on(site, job, folder, before))
    with steps.step("the study to its end") as seen:
        _wait_for_the_end(site, job, "COMPLETED")
        done, epochs = _measured(folder), EPOCHS[LATER]
        twice = [key for key, count in Counter(row[:2] for row in done.epochs).items() if count > 1]
        assert not twice, f"more than once: {twice}"
        assert len(done.epochs) == TRIALS * epochs, f"{len(done.epochs)} epochs, not {TRIALS} x {epochs}"
        assert len(done.complete) == TRIALS, f"{len(done.complete)} trials are complete, not {TRIALS}"
        seen.append(f"{TRIALS} trials, {len(done.epochs)} epochs, each once; no process and no token left")


def _third_job(site: Site, steps: Steps) -> None:
    with steps.step("a third job, ended by `scancel` while it starts Ray") as seen:
        job = _submit(site, LATER)
        wait_until(lambda: all(site.processes(node) for node in site.nodes), 60, "processes on all nodes")
        assert list(site.home.glob(".ray-token*"))
        site.user("scancel", str(job))
        _wait_for_the_end(site, job, "CANCELLED")
        seen.append("CANCELLED, no process and no token left")


def _submit(site: Site, study: str) -> int:
    """`sbatch` as the user types it; the number of the job."""
    says = site.user("sbatch", SCRIPT, study)
    found = re.search(r"Submitted batch job (\d+)", says)
    assert found, says
    return int(found[1])


def _limit(site: Site, job: int, minutes: int) -> None:
    site.login.run("scontrol", "update", f"JobId={job}", f"TimeLimit={minutes}")


def _goes_on(site: Site, job: int, folder: Path, before: Measured) -> str:
    """Wait until the study measures again; nothing that it had reported may be lost or changed."""
    wait_until(lambda: site.job(job)["JobState"] == "RUNNING", 300, "the job to start again")
    wait_until(lambda: len(_measured(folder).epochs) > len(before.epochs) + 1, 900, "epochs after it")
    return _of_epochs(_measured(folder), before)


def _of_epochs(now: Measured, before: Measured) -> str:
    lost = set(before.epochs) - set(now.epochs)
    assert not lost, f"reported before, and not there any more: {sorted(lost)}"
    return f"all {len(before.epochs)} epochs reported before are there"


def _wait_for_the_end(site: Site, job: int, how: str) -> None:
    """Wait for a job to end; its token and every process of its user must be gone."""
    wait_until(lambda: site.job(job)["JobState"] not in ("RUNNING", "COMPLETING", "PENDING"), 1200, f"job {job} to end")
    state = site.job(job)
    assert state["JobState"] == how, f"job {job}: {state}"
    left = {node.name: found for node in site.nodes if (found := site.processes(node))}
    assert not left, f"processes after the job: {left}"
    tokens = list(site.home.glob(".ray-token*"))
    assert not tokens, f"after the job: {tokens}"


def _training(site: Site) -> Iterator[str]:
    """The nodes on which a trial runs now."""
    for node in site.nodes:
        if any(line.startswith("ray::ImplicitFunc.train") for line in site.processes(node)):
            yield node.name


def _measured(folder: Path) -> Measured:
    if not (folder / "epochs").is_dir():
        return Measured([], set())
    rows = reader.read(folder, "epochs", ["trial_id", "epoch", "loss_adversarial"]).to_pylist()
    trials = reader.read(folder, "trials", ["trial_id", "status"]).to_pylist()
    complete = {row["trial_id"] for row in trials if row["status"] == "complete"}
    return Measured([(row["trial_id"], row["epoch"], row["loss_adversarial"]) for row in rows], complete)


def _all_complete(folder: Path) -> bool:
    return len(_measured(folder).complete) == TRIALS


if __name__ == "__main__":
    main()
