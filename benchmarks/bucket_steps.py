"""Every request of a study in a bucket goes wrong once, in each way; is the study whole when it was resumed?

    python benchmarks/bucket_steps.py --output benchmarks/bucket_steps.md
    python benchmarks/bucket_steps.py --only 40 --fault "killed after"

As io_steps.py does with the disk: the small study runs in a bucket of moto's server, which answers the n-th request
with an error, cuts it in its middle, loses the answer, or ends the process that asked. A process that was killed is
taken for a machine that is lost, and the study is resumed on one that never saw it; others on their own. In the end
the bucket must hold what the undisturbed study holds.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from breaking import sweep
from breaking.processes import Ended, in_process
from breaking.sweep import Case, Tried

SERVER = Path(__file__).parent / "breaking" / "server.py"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
END = 1 << 40
A_WHILE = 6
FAULTS = {
    "503, once": ("503", 1),
    "503 to the end": ("503", END),
    "403, once": ("403", 1),
    "cut in its middle": ("cut", 1),
    "cut for a while": ("cut", A_WHILE),
    "the answer is lost": ("no answer", 1),
    "killed before": ("killed before", 1),
    "killed after": ("killed after", 1),
}
"""By name: what the server does, and with how many requests in a row."""


class Server:
    """The server, in a process of its own."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, str(SERVER), str(port)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert self.process.poll() is None, "moto's server does not start"
            time.sleep(0.1)

    def ask(self, path: str, content: bytes | None = None, method: str = "GET") -> str:
        request = urllib.request.Request(f"{self.url}{path}", data=content, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return str(answer.read().decode())

    def arm(self, **order: object) -> None:
        self.ask("/-/arm", json.dumps(order).encode(), "POST")

    def requests(self) -> list[tuple[str, str]]:
        """Method and path of each since `arm`."""
        lines = [line.split(" ", 2) for line in self.ask("/-/log").splitlines()]
        return [(method, path) for _, method, path in lines]


class Lab:
    """A server with a bucket for each study."""

    def __init__(self, folder: Path, server: Server, trials: int, epochs: int) -> None:
        from breaking import small_study

        os.environ |= CREDENTIALS | {"AWS_ENDPOINT_URL": server.url, "AWS_EC2_METADATA_DISABLED": "true"}
        self.folder, self.server, self.studies = folder, server, 0
        self.source = small_study.Plan("small", trials, epochs).write(folder)
        small_study.experiment_of(self.source)

    def count(self) -> list[tuple[str, str]]:
        """The requests of the undisturbed study, whose contents are kept."""
        self._new_bucket()
        self._must_succeed(self._run, "here")
        requests = self.server.requests()
        self._must_succeed(self._keep, "elsewhere")
        return requests

    def try_one(self, case: Case) -> Tried:
        """Let one request go wrong, resume the study and compare what the bucket holds then."""
        self._new_bucket()
        way, count = FAULTS[case.fault]

        def broken() -> None:
            self.server.arm(way=way, first=case.number, last=case.number + count - 1, pid=os.getpid())
            self._run()

        ended = self._process(broken, "here")
        requests = self.server.requests()
        self.server.arm()
        hit = requests[case.number - 1][0] if len(requests) >= case.number else None
        return Tried.judged(case, hit, ended, lambda: self._resumed(ended))

    def _resumed(self, ended: Ended) -> Ended:
        """On another machine where the first was lost, and the bucket read from a third one."""
        then = self._process(self._resume, "there" if ended.code == -signal.SIGKILL else "here")
        return then if then.code else self._process(self._compare, "elsewhere")

    def _new_bucket(self) -> None:
        self.studies += 1
        self.source.with_suffix(".witness").unlink(missing_ok=True)
        for machine in ("here", "there", "elsewhere"):
            shutil.rmtree(self.folder / machine, ignore_errors=True)
        self.server.arm()
        self.server.ask(f"/studies-{self.studies}", b"", "PUT")
        self.server.arm()

    def _must_succeed(self, work: Callable[[], None], machine: str) -> None:
        if (ended := self._process(work, machine)).code:
            raise SystemExit(f"the undisturbed study: {ended.said or ended.code}")

    def _process(self, work: Callable[[], None], machine: str) -> Ended:
        os.environ["ARAT_CACHE"] = str(self.folder / machine)
        return in_process(work, self.folder / "said")

    def _run(self) -> None:
        from breaking import small_study

        self._in_bucket(small_study.run)

    def _resume(self) -> None:
        from breaking import small_study

        self._in_bucket(small_study.session)

    def _in_bucket(self, work: Callable[..., None]) -> None:
        from breaking.clock import Clock

        from arat_ray.storage import pushing, session

        study, clock = self._study(), Clock().installed()
        with session.writing(study, log=lambda text: None):
            (pusher,) = pushing._running
            pusher.stop()  # its thread, whose moments nobody knows
            work(self.source, study, clock, lambda text: None, pusher.flush)

    def _keep(self) -> None:
        from breaking import contents

        (self.folder / "expected").write_bytes(pickle.dumps(contents.read(self.source, self._pulled())))

    def _compare(self) -> None:
        from breaking import contents

        contents.check(self.source, self._pulled(), pickle.loads((self.folder / "expected").read_bytes()))

    def _pulled(self) -> Path:
        from arat_ray.storage import session

        study = self._study()
        session.pull(study, log=lambda text: None)
        return study

    def _study(self) -> Path:
        from arat_ray.storage.address import mirror_of, parse

        return mirror_of(parse(f"s3://studies-{self.studies}/results/small"))


def main() -> None:
    asked = sweep.options(__doc__, list(FAULTS))
    os.environ["PATH"] = ""  # else each start of the study asks git for the revision
    server = Server()
    try:
        with sweep.scratch() as folder:
            lab = Lab(folder, server, asked.trials, asked.epochs)
            steps = [
                [Case(number, method, path, fault) for fault in FAULTS]
                for number, (method, path) in enumerate(lab.count(), start=1)
            ]
            title = "Each request of a study to its bucket goes wrong"
            well = sweep.run(title, steps, list(FAULTS), lab.try_one, asked)
    finally:
        server.process.kill()
        server.process.wait()
    sys.exit(not well)


if __name__ == "__main__":
    main()
