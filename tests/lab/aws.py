"""The whole of clusters/aws.yaml, run for real without a cloud: prepared, started, used, robbed of machines, ended.

    python -m tests.lab.aws            # from the root of a checkout, as root; ten to fifteen minutes on two cores

Needs the packages of `uv sync --extra test` and Debian's openssh-server, rsync and iproute2. moto answers the calls to
AWS, a host in namespaces is each machine, and everything else is what users run. Exit code 1 where a step fails.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import click
import requests
import yaml
from botocore.exceptions import ClientError

from arat_ray.results import reader
from tests.lab import ec2, overlay
from tests.lab.hosts import CHECKOUT, HOME, Host, Lab, missing
from tests.lab.session import BUCKET, FILE, PROJECT, RESULTS, STUDY, Session, submit, tunnel
from tests.lab.steps import Steps, wait_until

PREPARE = ("arat-ray", "cluster", "prepare", "aws", "--region", ec2.REGION, "--bucket", BUCKET, "--yes")
TRIALS, EPOCHS, ENOUGH = 2, 30, 12


@click.command()
@click.option("--write", type=click.Path(exists=True, path_type=Path), help="Write the table of steps into this file.")
@click.option("--logs", type=click.Path(path_type=Path), help="Copy what the hosts left behind to this folder.")
def main(write: Path | None, logs: Path | None) -> None:
    """Run clusters/aws.yaml from `prepare` to `ray down` on hosts of this machine, as root; ten to fifteen minutes."""
    if lacks := missing():
        raise click.ClickException(f"the lab needs: {lacks}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the lab is left in order
    steps = Steps()
    try:
        with Lab(ec2.NETWORK, environment=ec2.ENVIRONMENT | {"RAY_AUTH_MODE": "token"}) as lab:
            try:
                _run(lab, steps)
                inside = lab.processes()
            finally:
                if logs:
                    _keep(lab.folder, logs)
        assert not [pid for pid in inside if Path(f"/proc/{pid}").exists()], "processes are left"
        assert not lab.folder.exists(), f"{lab.folder} is left"
    except (AssertionError, ClientError, requests.RequestException, subprocess.TimeoutExpired) as error:
        raise click.ClickException(str(error)) from error
    if write:
        steps.write(write)


def _run(lab: Lab, steps: Steps) -> None:
    with steps.step("moto answers for AWS"):
        cloud = ec2.start(lab)
    with cloud.network(), ec2.Machines(lab, cloud) as machines:
        laptop = lab.boot("laptop", ec2.LAPTOP)
        session = Session(lab, laptop, machines, ec2.client("ec2"), ec2.client("s3"), steps)
        _check_out(laptop)
        _prepare(session)
        _up(session)
        with tunnel(session):
            _study(session)
        _lose_head(session)
        _down(session)


def _check_out(laptop: Host) -> None:
    """What a user has of the project beside the installed package."""
    project = laptop.path(PROJECT)
    shutil.copytree(CHECKOUT / "clusters", project / "clusters")
    (project / "dist").mkdir()
    (project / "dist" / "stand-in.whl").touch()
    space = yaml.safe_load((CHECKOUT / "search_spaces" / "quickstart.yaml").read_text())
    space["name"] = "lab"
    space["train"]["epochs"] = EPOCHS
    space["validate"].update(every=1, images=100)
    space["budget"] = {"trials": TRIALS}
    (project / STUDY).parent.mkdir()
    (project / STUDY).write_text(yaml.safe_dump(space, sort_keys=False))


def _prepare(session: Session) -> None:
    file = session.laptop.path(f"{PROJECT}/{FILE}")
    with session.steps.step("`arat-ray cluster prepare aws --write`, `check`, overlay") as seen:
        session.user(*PREPARE, "--ssh-from", "203.0.113.7/32", "--write", FILE)
        again = session.user(*PREPARE, "--ssh-from", "203.0.113.7/32").stdout
        assert "nothing is left to do" in again, again
        image = session.aws.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
        text = file.read_text().replace("<your-ami>", image)
        file.write_text(text)
        checked = session.user("arat-ray", "cluster", "check", FILE, "--experiment", STUDY).stdout
        assert f"{FILE} is ready" in checked, checked
        config = yaml.safe_load(text)
        overlay.apply(config, overlay.AWS)
        file.write_text(yaml.safe_dump(config, sort_keys=False))
        seen.append(f"ready; {len(overlay.AWS)} changes")


def _up(session: Session) -> None:
    with session.steps.step("`ray up`") as seen:
        session.user("sh", "-c", "umask 077; ray get-auth-token --generate")
        session.user("ray", "up", "--yes", FILE, timeout=300)
        (head,) = session.nodes("head")
        host = session.machines.hosts[head]
        assert host.path(f"{HOME}/.ray/auth_token").stat().st_mode & 0o777 == 0o600
        assert host.path(f"{HOME}/arat-ray/dist/stand-in.whl").exists()
        assert not session.nodes("worker"), "min_workers is 0"
        seen.append("a head, no worker")


def _study(session: Session) -> None:
    """A study on a worker that comes when it is needed, is taken away, is replaced, and goes when it is idle."""
    steps = session.steps
    job = submit(session)
    with steps.step("`arat-ray submit`: a trial waits, so the autoscaler asks for a spot worker") as seen:
        job.wait(lambda: session.nodes("worker"), 180, "a worker's instance")
        (worker,) = session.nodes("worker")
        assert ec2.running(session.aws)[worker].get("InstanceLifecycle") == "spot"
        seen.append("1 spot worker")
    with steps.step("the worker joins and trains; the first epoch is on S3"):
        job.wait(lambda: session.epochs() > 0, 300, "the first epoch on S3")
    with steps.step(f"{ENOUGH} epochs are on S3"):
        job.wait(lambda: session.epochs() >= ENOUGH, 300, "epochs on S3")
    with steps.step("the spot worker is taken away; the autoscaler asks for another") as seen:
        session.aws.terminate_instances(InstanceIds=[worker])
        job.wait(lambda: set(session.nodes("worker")) - {worker}, 300, "another worker")
        before = session.epochs()
        seen.append(f"{before} epochs are on S3")
    with steps.step("it joins, and the trial goes on from its checkpoint on S3"):
        job.wait(lambda: session.epochs() > before, 300, "more epochs on S3")
    with steps.step(f"the study ends: {TRIALS} trials of {EPOCHS} epochs") as seen:
        job.end()
        seen.append("exit code 0")
    with steps.step("`arat-ray results show` and `pareto` from S3") as seen:
        seen += _read(session, TRIALS)
    with steps.step("the idle worker goes"):
        wait_until(lambda: not session.nodes("worker"), 240, "the worker to be ended")


def _lose_head(session: Session) -> None:
    """The same study with one trial more; the head is taken away while it runs, the worker stays."""
    steps, more = session.steps, ("--resume", "--", "--trials", str(TRIALS + 1))
    with tunnel(session):
        job = submit(session, *more)
        before = session.epochs()
        with steps.step("`submit --resume` asks for one trial more; a worker comes and trains it"):
            job.wait(lambda: session.epochs() >= before + 3, 400, "more epochs on S3")
        (head,) = session.nodes("head")
        session.aws.terminate_instances(InstanceIds=[head])
        wait_until(lambda: head not in session.machines.hosts, 20, "the head to be killed")
        job.leave()
    with steps.step("the head is taken away; `ray up` again") as seen:
        session.user("ray", "up", "--yes", FILE, timeout=300)
        seen.append(f"{len(session.nodes('head'))} head, {len(session.nodes('worker'))} worker")
        before = session.epochs()
    with tunnel(session):
        job = submit(session, *more)
        with steps.step("`submit --resume`: the trial goes on from S3"):
            job.wait(lambda: session.epochs() > before, 600, "more epochs on S3")
        with steps.step("the study ends") as seen:
            job.end()
            seen += _read(session, TRIALS + 1)


def _read(session: Session, count: int) -> list[str]:
    shown = session.user("arat-ray", "results", "show", f"{RESULTS}/lab").stdout
    front = session.user("arat-ray", "pareto", f"{RESULTS}/lab").stdout
    mirror = session.laptop.path(f"{HOME}/.cache/arat-ray/mirror")
    (study,) = (path.parent for path in mirror.rglob("lab/epochs") if ".marks" not in path.parts)
    epochs = reader.read(study, "epochs").to_pylist()
    times = Counter((row["trial_id"], row["epoch"]) for row in epochs)
    assert len(times) == count * EPOCHS, f"{len(times)} rows of {count * EPOCHS}:\n{shown}"
    assert set(times.values()) == {1}, [each for each, often in times.items() if often > 1]
    trials = reader.read(study, "trials")
    last = reader.keep(trials, reader.latest_attempt(trials)).to_pylist()
    assert [row["status"] for row in last] == ["complete"] * count, shown
    assert "hypervolume" in front, front
    attempts = Counter(row["attempt"] for row in trials.to_pylist())
    return [f"{len(times)} rows, each (trial, epoch) once", f"{attempts[2]} trial needed a second attempt"]


def _down(session: Session) -> None:
    with session.steps.step("`ray down`, `prepare --destroy`: nothing is left") as seen:
        session.user("ray", "down", "--yes", FILE, timeout=300)
        assert not ec2.running(session.aws), ec2.running(session.aws)
        wait_until(lambda: not session.machines.hosts, 20, "the hosts to be killed")
        left = session.user(*PREPARE, "--destroy").stdout
        assert re.search("kept: the bucket .* it holds objects", left), left
        seen.append("no instance; the bucket is kept, since it holds the results")


def _keep(folder: Path, logs: Path) -> None:
    """What was written in the lab, but for programs' sockets and the like."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.stat().st_size < 10 << 20:
            target = logs / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


if __name__ == "__main__":
    sys.exit(main())
