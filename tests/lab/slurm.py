"""The whole of clusters/slurm.sh, run by a real Slurm on three nodes: checked, submitted, robbed of a node and of time.

    python -m tests.lab.slurm          # from the root of a checkout, as root; about ten minutes on two cores
    python -m tests.lab.slurm --write docs/reliability.md

Needs the packages of `uv sync --extra test` and Debian's slurmctld, slurmd, slurm-client, munge, openssh-server, rsync
and iproute2. Exit code 1 where a step fails.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import yaml

from arat_ray.results import reader
from tests.lab import hosts, slurm_site
from tests.lab.hosts import CHECKOUT, Lab
from tests.lab.slurm_site import Site
from tests.lab.steps import Steps, wait_until

FILE, STUDY, LATER = "clusters/slurm.sh", "search_spaces/lab.yaml", "search_spaces/later.yaml"
FILLED_IN = {"<your-partition>": "batch", "<your-account>": "lab"}
OVERLAY = (
    ("#SBATCH --gpus-per-node=1\n", "", "there is no GPU"),
    ("--nodes=4", "--nodes=3", "one node less, for two cores carry them all"),
    ("--cpus-per-task=8", "--cpus-per-task=1", "the same"),
    ("--time=24:00:00", "--time=00:30:00", "nobody waits a day"),
    ("$HOME/venv/bin", f"{sys.prefix}/bin", "there is no internet to fill an environment from"),
    ("--num-cpus", "--object-store-memory=100000000 --num-cpus", "the nodes share the memory of this machine"),
)
"""What the lab forces on the file, each change with its reason; all else stays as shipped."""
OF_THE_MACHINE = ("/etc/hosts", "/etc/passwd", "/etc/group", "/etc/shadow", "/etc/munge", "/etc/slurm", "/run/munge")


class Measured(NamedTuple):
    """What a study has reported: of each trial and epoch its values; a trial and epoch twice would be here twice."""

    epochs: list[tuple[str, int, float]]
    complete: set[str]


@click.command()
@click.option("--write", type=click.Path(path_type=Path), help="Write the table of steps into this file.")
def main(write: Path | None) -> None:
    """Run clusters/slurm.sh by a real Slurm on hosts of this machine, as root; about ten minutes."""
    if lacks := "; ".join(each for each in (hosts.missing(), slurm_site.missing()) if each):
        raise click.ClickException(f"the lab needs: {lacks}")
    steps = Steps()
    try:
        _run(steps)
    except AssertionError as error:
        raise click.ClickException(str(error)) from error
    if write:
        version = subprocess.run(["sbatch", "--version"], capture_output=True, text=True, check=True).stdout.strip()
        steps.write(write, f"{os.cpu_count()} cores, {version}", mark="lab: slurm")


def _run(steps: Steps) -> None:
    before = _machine()
    with Lab(environment={"RAY_USAGE_STATS_ENABLED": "0"}) as lab, Site(lab) as site:
        try:
            _all(site, steps)
        except AssertionError:
            for log in sorted(site.home.glob("arat-ray-*.log")):
                click.echo(f"--- {log.name}\n{log.read_text()[-6000:]}", err=True)
            click.echo(site.logs(), err=True)
            raise
        folder, shared, namespaces = lab.folder, site.shared, {_namespace(host.pid) for host in lab.hosts.values()}
    with steps.step("everything is gone") as seen:
        left = {folder, shared, *Path("/sys/fs/cgroup").glob(f"*/{site.group}")}
        assert not any(path.exists() for path in left), f"left: {left}"
        living = [pid for pid in os.listdir("/proc") if pid.isdigit() and _namespace(int(pid)) in namespaces]
        assert not living, f"processes left: {living}"
        after = _machine()
        assert after == before, (
            f"the machine is not as it was: {[name for name in after if after[name] != before[name]]}"
        )
        seen.append("mounts, accounts, /etc/hosts, munge and Slurm of the machine as before")


def _all(site: Site, steps: Steps) -> None:
    with steps.step("three nodes are switched on") as seen:
        for name in slurm_site.NODES:
            site.boot(name)
        wait_until(lambda: site.states() == {"idle"}, 60, "three idle nodes")
        seen.append("munge and slurmd; idle")
    with steps.step("`arat-ray cluster check` of the file filled in") as seen:
        _put_files(site)
        seen.append(site.user("arat-ray", "cluster", "check", FILE, "--experiment", STUDY).splitlines()[0])
        script = site.home / FILE
        script.write_text(_changed(script.read_text()))
    first = _first_job(site, steps)
    digest = _digest(first)
    _second_job(site, steps)
    assert _digest(first) == digest, f"{first} was changed by another job"


def _first_job(site: Site, steps: Steps) -> Path:
    with steps.step("`sbatch`, until the study runs on the nodes") as seen:
        job = _submit(site, STUDY)
        token = site.home / f".ray-token.{job}"
        busy: set[str] = set()

        def watch() -> bool:
            assert site.job(job)["JobState"] not in ("COMPLETED", "FAILED"), f"trials ran on {busy} alone"
            busy.update(_training(site))
            return len(busy) == len(site.nodes)

        wait_until(watch, 300, "trials on all nodes")
        mode = token.stat().st_mode & 0o777
        assert mode == 0o600, f"{token.name} has mode {mode:o}"
        seen.append(f"trials on {', '.join(sorted(busy))}; token file 0600")
    with steps.step("the study") as seen:
        folder = site.home / "results" / "lab"
        wait_until(lambda: _all_trials_ended(folder, 6), 600, "six trials")
        seen.append("6 trials")
    with steps.step("the end of its job") as seen:
        _wait_for_the_end(site, job)
        seen.append("COMPLETED, no process and no token left")
    with steps.step("`arat-ray results show` and `pareto` read it") as seen:
        assert "6 of 6" in (shown := site.user("arat-ray", "results", "show", "results/lab")), shown
        front = site.user("arat-ray", "pareto", "results/lab")
        seen.append(next(line for line in front.splitlines() if line.startswith("front:")).strip())
    return folder


def _second_job(site: Site, steps: Steps) -> None:
    folder = site.home / "results" / "later"
    with steps.step("a second job, until its study has measured something") as seen:
        job = _submit(site, LATER)
        wait_until(lambda: len(_measured(folder).epochs) >= 6, 300, "six epochs")
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
        _wait_for_the_end(site, job)
        trials, epochs = _size(site, LATER)
        done = _measured(folder)
        twice = [key for key, count in Counter(row[:2] for row in done.epochs).items() if count > 1]
        assert not twice, f"more than once: {twice}"
        assert len(done.epochs) == trials * epochs, f"{len(done.epochs)} epochs, not {trials} x {epochs}"
        assert len(done.complete) == trials, f"{len(done.complete)} trials are complete, not {trials}"
        seen.append(f"{trials} trials, {len(done.epochs)} epochs, each once; no process and no token left")


def _submit(site: Site, study: str) -> int:
    """`sbatch` as the user types it; the number of the job."""
    says = site.user("sbatch", FILE, study)
    found = re.search(r"Submitted batch job (\d+)", says)
    assert found, says
    return int(found[1])


def _limit(site: Site, job: int, minutes: int) -> None:
    site.login.run("scontrol", "update", f"JobId={job}", f"TimeLimit={minutes}")


def _goes_on(site: Site, job: int, folder: Path, before: Measured) -> str:
    """Wait until the study measures again; nothing that it had reported may be lost or changed."""
    wait_until(lambda: site.job(job)["JobState"] == "RUNNING", 180, "the job to start again")
    wait_until(lambda: len(_measured(folder).epochs) > len(before.epochs) + 1, 300, "epochs after it")
    return _of_epochs(_measured(folder), before)


def _of_epochs(now: Measured, before: Measured) -> str:
    lost = set(before.epochs) - set(now.epochs)
    assert not lost, f"reported before, and not there any more: {sorted(lost)}"
    return f"all {len(before.epochs)} epochs reported before are there"


def _wait_for_the_end(site: Site, job: int) -> None:
    """Wait for a job to be complete; its token and every process of its user must be gone."""
    wait_until(lambda: site.job(job)["JobState"] not in ("RUNNING", "COMPLETING", "PENDING"), 900, f"job {job} to end")
    state = site.job(job)
    assert (state["JobState"], state["ExitCode"]) == ("COMPLETED", "0:0"), f"job {job}: {state}"
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


def _all_trials_ended(folder: Path, trials: int) -> bool:
    return len(_measured(folder).complete) == trials


def _put_files(site: Site) -> None:
    """The user's copy of the files that a study needs, filled in."""
    text = (CHECKOUT / FILE).read_text()
    for placeholder, value in FILLED_IN.items():
        text = text.replace(placeholder, value)
    studies = {STUDY: _study("lab", trials=6, epochs=6), LATER: _study("later", trials=6, epochs=20)}
    for name, content in {FILE: text, **studies}.items():
        file = site.home / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(content)
        for path in (file.parent, file):
            os.chown(path, slurm_site.UID, slurm_site.UID)


def _study(name: str, *, trials: int, epochs: int) -> str:
    experiment: dict[str, Any] = yaml.safe_load((CHECKOUT / "search_spaces" / "quickstart.yaml").read_text())
    experiment["name"], experiment["budget"] = name, {"trials": trials}
    experiment["train"]["epochs"], experiment["validate"]["every"] = epochs, 2
    return yaml.safe_dump(experiment)


def _size(site: Site, study: str) -> tuple[int, int]:
    experiment = yaml.safe_load((site.home / study).read_text())
    return experiment["budget"]["trials"], experiment["train"]["epochs"]


def _changed(text: str) -> str:
    head, separator, body = text.partition("\n#SBATCH")
    for old, new, reason in OVERLAY:
        assert old in body, f"{FILE} has no {old!r} any more: {reason}"
        body = body.replace(old, new)
    return head + separator + body


def _digest(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(str(path).encode() + path.read_bytes() for path in files)).hexdigest()


def _machine() -> dict[str, str]:
    """What the lab must leave as it was."""
    found = {name: _digest(Path(name)) if Path(name).is_dir() else _read(Path(name)) for name in OF_THE_MACHINE}
    found["mounts"] = _read(Path("/proc/self/mounts"))
    found["network"] = str(sorted(os.listdir("/sys/class/net")))
    return found


def _read(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def _namespace(pid: int) -> str | None:
    """Of a process, the namespace of processes it lives in."""
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except (FileNotFoundError, ProcessLookupError):
        return None


if __name__ == "__main__":
    main()
