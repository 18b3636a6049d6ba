"""The whole of clusters/aws.yaml, run for real without a cloud: prepared, started, used, robbed of machines, ended.

    python -m tests.lab.aws            # from the root of a checkout, as root; about six minutes on two cores

Needs the packages of `uv sync --extra test` and Debian's openssh-server, rsync and iproute2. moto answers the calls to
AWS, a host in namespaces is each machine, and everything else is what users run. Exit code 1 where a step fails.
"""

from __future__ import annotations

import errno
import io
import os
import re
import shutil
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import click
import pyarrow.parquet as pq
import requests
import yaml
from botocore.exceptions import ClientError

from arat_ray.results import reader
from tests.lab import ec2, overlay
from tests.lab.hosts import CHECKOUT, HOME, Host, Lab, missing
from tests.lab.steps import Steps, wait_until

PROJECT = f"{HOME}/arat-ray"
FILE, STUDY = "clusters/aws.yaml", "search_spaces/lab.yaml"
BUCKET = "arat-lab"
RESULTS = f"s3://{BUCKET}/results"
ADDRESS = "http://127.0.0.1:8265"
PREPARE = ("arat-ray", "cluster", "prepare", "aws", "--region", ec2.REGION, "--bucket", BUCKET, "--yes")
TRIALS, EPOCHS, ENOUGH = 2, 30, 12


class Session(NamedTuple):
    """A cluster in the lab, and the machine of the one who uses it."""

    lab: Lab
    laptop: Host
    machines: ec2.Machines
    aws: Any
    s3: Any
    steps: Steps

    def user(self, *command: str, timeout: float = 120, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A command as the user types it, in the folder of the project."""
        return self.laptop.run(*command, cwd=PROJECT, timeout=timeout, check=check)

    def nodes(self, kind: str) -> list[str]:
        """Instances of the head or of workers that run, by their profiles."""
        found = ec2.running(self.aws).items()
        return [name for name, each in found if each["IamInstanceProfile"]["Arn"].endswith(f"arat-ray-{kind}")]

    def epochs(self, study: str) -> int:
        """How many rows of epochs the bucket has."""
        with suppress(ClientError):
            body = self.s3.get_object(Bucket=BUCKET, Key=f"results/{study}/epochs/part-00000.parquet")["Body"].read()
            return int(pq.ParquetFile(io.BytesIO(body)).metadata.num_rows)
        return 0


@click.command()
@click.option("--write", type=click.Path(path_type=Path), help="Write the table of steps into this file.")
@click.option("--logs", type=click.Path(path_type=Path), help="Copy what the hosts left behind to this folder.")
def main(write: Path | None, logs: Path | None) -> None:
    """Run clusters/aws.yaml from `prepare` to `ray down` on hosts of this machine, as root; about six minutes."""
    if lacks := missing():
        raise click.ClickException(f"the lab needs: {lacks}")
    steps = Steps()
    try:
        with Lab(ec2.NETWORK, environment=ec2.ENVIRONMENT | {"RAY_AUTH_MODE": "token"}) as lab:
            try:
                _run(lab, steps)
            finally:
                if logs:
                    _keep(lab.folder, logs)
    except (AssertionError, ClientError, requests.RequestException, subprocess.TimeoutExpired) as error:
        raise click.ClickException(str(error)) from error
    if write:
        steps.write(write, f"{os.cpu_count()} cores")


def _run(lab: Lab, steps: Steps) -> None:
    with steps.step("moto answers for AWS"):
        cloud = ec2.start(lab)
    with cloud.network(), ec2.Machines(lab, cloud) as machines:
        laptop = lab.boot("laptop", ec2.LAPTOP)
        session = Session(lab, laptop, machines, ec2.client("ec2"), ec2.client("s3"), steps)
        _check_out(laptop)
        _prepare(session)
        _up(session)
        with _tunnel(session):
            _study(session)
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


@contextmanager
def _tunnel(session: Session) -> Iterator[None]:
    """`ray dashboard` beside the block, and it is closed to those without the token."""

    def status(headers: dict[str, str]) -> int:
        try:
            with session.laptop.network():
                return requests.get(f"{ADDRESS}/api/jobs/", headers=headers, timeout=10).status_code
        except requests.ConnectionError:
            return 0

    with session.steps.step("`ray dashboard`: the tunnel") as seen:
        log = session.lab.folder / "tunnel.log"
        tunnel = session.laptop.start("ray", "dashboard", FILE, log=log, cwd=PROJECT)
        wait_until(lambda: status({}), 60, "the dashboard")
        token = session.laptop.path(f"{HOME}/.ray/auth_token").read_text().strip()
        codes = status({}), status({"Authorization": f"Bearer {token}"})
        assert codes == (401, 200), codes
        seen.append("401 without the token, 200 with it")
        (head,) = session.nodes("head")
        with session.laptop.network(), socket.socket() as direct:
            refused = direct.connect_ex((session.machines.hosts[head].address, 8265))
        assert refused == errno.ECONNREFUSED, refused
        seen.append("refused without the tunnel")
    try:
        yield
    finally:
        tunnel.kill()
        tunnel.wait()


def _study(session: Session) -> None:
    steps, log = session.steps, session.lab.folder / "submit.log"
    submit = ("arat-ray", "submit", STUDY, "--address", ADDRESS, "--results", RESULTS, "--follow")
    following = session.laptop.start(*submit, log=log, cwd=PROJECT)

    def goes_on() -> None:
        assert following.poll() is None, f"the study ended early:\n{log.read_text()}"

    def workers(*, but: str = "") -> list[str]:
        goes_on()
        return [each for each in session.nodes("worker") if each != but]

    def epochs(more_than: int) -> bool:
        goes_on()
        return session.epochs("lab") > more_than

    with steps.step("`arat-ray submit`: a trial waits, so the autoscaler asks for a spot worker") as seen:
        wait_until(workers, 180, "a worker's instance")
        (worker,) = workers()
        lifecycle = ec2.running(session.aws)[worker].get("InstanceLifecycle")
        assert lifecycle == "spot", lifecycle
        seen.append("1 worker, spot")
    with steps.step("... which joins, trains, and its first epoch is on S3"):
        wait_until(lambda: epochs(0), 300, "the first epoch on S3")
    with steps.step(f"... {ENOUGH} epochs"):
        wait_until(lambda: epochs(ENOUGH - 1), 300, "epochs on S3")
    with steps.step("the spot worker is taken away; the autoscaler asks for another") as seen:
        session.aws.terminate_instances(InstanceIds=[worker])
        wait_until(lambda: workers(but=worker), 300, "another worker")
        before = session.epochs("lab")
        seen.append(f"{before} epochs were on S3")
    with steps.step("... which joins and goes on from the checkpoint on S3"):
        wait_until(lambda: epochs(before), 300, "more epochs on S3")
    with steps.step(f"the study ends: {TRIALS} trials of {EPOCHS} epochs") as seen:
        code = following.wait(timeout=900)
        assert code == 0, f"exit code {code}:\n{log.read_text()}"
        seen.append("exit code 0")
    with steps.step("`arat-ray results show` and `pareto` from S3") as seen:
        seen += _read(session)
    with steps.step("the idle worker goes"):
        wait_until(lambda: not session.nodes("worker"), 240, "the worker to be ended")


def _read(session: Session) -> list[str]:
    shown = session.user("arat-ray", "results", "show", f"{RESULTS}/lab").stdout
    front = session.user("arat-ray", "pareto", f"{RESULTS}/lab").stdout
    mirror = session.laptop.path(f"{HOME}/.cache/arat-ray/mirror")
    (study,) = (path.parent for path in mirror.rglob("lab/epochs") if ".marks" not in path.parts)
    epochs = reader.read(study, "epochs").to_pylist()
    count = Counter((row["trial_id"], row["epoch"]) for row in epochs)
    assert len(count) == TRIALS * EPOCHS, f"{len(count)} rows of {TRIALS * EPOCHS}:\n{shown}"
    assert set(count.values()) == {1}, [each for each, times in count.items() if times > 1]
    trials = reader.read(study, "trials")
    last = reader.keep(trials, reader.latest_attempt(trials)).to_pylist()
    assert [row["status"] for row in last] == ["complete"] * TRIALS, shown
    assert "hypervolume" in front, front
    attempts = Counter(row["attempt"] for row in trials.to_pylist())
    return [f"{len(count)} rows, each (trial, epoch) once", f"{attempts[2]} trial needed a second attempt"]


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
