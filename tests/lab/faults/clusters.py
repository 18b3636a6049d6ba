"""Ray on the lab's hosts, started by hand; a folder that all of them see, a small disk and an S3 server."""

from __future__ import annotations

import ctypes
import http.client
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.cluster.studies import wait_until
from tests.lab.hosts import Host, Lab
from tests.lab.namespaces import check

CLONE_NEWNS = 0x00020000
HEAD, BUCKET, LOGIN = "10.77.0.2", "10.77.0.3", "10.77.0.4"
WORKERS = "10.77.1."
RAY = (HEAD, 6379)
S3 = (BUCKET, 9000)
ADDRESS = f"{HEAD}:6379"
SHARED = Path("/mnt/shared")
DISK = Path("/mnt/disk")
ENVIRONMENT = {
    "AWS_ENDPOINT_URL": f"http://{BUCKET}:9000",
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}

SIGNED = {"Authorization": "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, Signature=any"}
"""This server wants a request to be signed, and does not look by whom."""


def mount_shared_folders() -> None:
    """Give this process /mnt/shared and a disk of 4 MiB, which all that it starts sees, and which end with it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    check("mount", "--make-rprivate", "/")
    check("mount", "-t", "tmpfs", "tmpfs", "/mnt")
    SHARED.mkdir()
    DISK.mkdir()
    check("mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(DISK))


class Cluster:
    """A head that computes nothing, workers of one CPU each, and a bucket named `lab`."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self._count = 0
        self.bucket = lab.boot("bucket", BUCKET)
        log = lab.folder / "moto.log"
        self._moto = self.bucket.start("moto_server", "-H", BUCKET, "-p", "9000", log=log)
        wait_until(self._make_bucket, 60, "the S3 server")
        self.workers: list[Host] = []
        self.head = self.boot_head()

    def close(self) -> None:
        """What entered the bucket's host may still be stopped, and then would outlive it."""
        self._moto.kill()

    def boot_head(self) -> Host:
        """A head at its address, which it has from here on; the one before must be gone."""
        self.head = self.lab.boot("head", HEAD)
        _ray_start(
            self.head, "--head", f"--node-ip-address={HEAD}", "--port=6379", "--num-cpus=0", "--include-dashboard=false"
        )
        return self.head

    def boot_login(self) -> Host:
        """A host that computes nothing, where a driver may run."""
        login = self.lab.boot("login", LOGIN)
        _ray_start(login, f"--address={ADDRESS}", "--num-cpus=0")
        return login

    def add_worker(self) -> Host:
        self._count += 1
        worker = self.lab.boot(f"worker-{self._count}", f"{WORKERS}{self._count}")
        _ray_start(worker, f"--address={ADDRESS}", "--num-cpus=1")
        self.workers.append(worker)
        return worker

    def restart_ray(self, host: Host) -> None:
        """Join the cluster again."""
        host.run("ray", "stop", "--force", check=False)
        _ray_start(host, f"--address={ADDRESS}", f"--num-cpus={int(host in self.workers)}")

    def lose(self, worker: Host) -> None:
        self.workers.remove(worker)
        worker.kill()

    def drain(self, worker: Host) -> None:
        """Tell Ray that a worker's machine is taken away in two minutes."""
        shown = (
            f"next(n['NodeID'] for n in ray.nodes() if n['Alive'] and n['NodeManagerAddress'] == '{worker.address}')"
        )
        connected = f"import ray; ray.init(address='{ADDRESS}', logging_level='ERROR'); print({shown})"
        node = self.head.run("python", "-c", connected).stdout.split()[-1]
        why = ("--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=a notice", "--deadline-remaining-seconds=120")
        self.head.run("ray", "drain-node", f"--address={ADDRESS}", f"--node-id={node}", *why)

    def have_workers(self, count: int) -> None:
        """See to it that so many workers are there; those too many leave in order."""
        while len(self.workers) < count:
            self.add_worker()
        while len(self.workers) > count:
            self.workers[-1].run("ray", "stop", check=False)
            self.lose(self.workers[-1])

    def at_work(self, title: bytes = b"ray::ImplicitFunc") -> tuple[Host, int]:
        """A worker that trains, and the process that does it."""
        for worker in self.workers:
            if pids := processes(worker, title):
                return worker, pids[0]
        raise AssertionError("no worker trains")

    def refuse_bucket(self) -> None:
        """From here on nobody listens at the address of the S3 server, as all hosts see it: it is their own."""
        for host in self._clients():
            host.run("ip", "address", "add", f"{BUCKET}/32", "dev", "lo")

    def accept_bucket(self) -> None:
        for host in self._clients():
            host.run("ip", "address", "delete", f"{BUCKET}/32", "dev", "lo")

    def signal_bucket(self, number: int) -> None:
        for pid in processes(self.bucket, b"moto_server"):
            os.kill(pid, number)
        self._moto.send_signal(number)  # what entered the host for it stops along with it, and does not go on by itself

    def download(self, prefix: str, into: Path) -> None:
        """The tables below a prefix of the bucket, as they are there now; OSError where it does not answer."""
        for key in self.keys(prefix):
            if key.endswith(".parquet"):
                path = into / Path(key).relative_to(prefix)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(self._ask("GET", f"/lab/{key}"))

    def keys(self, prefix: str) -> list[str]:
        listing = self._ask("GET", f"/lab?list-type=2&prefix={prefix}/").decode()
        return re.findall(r"<Key>(.*?)</Key>", listing)

    def get(self, key: str) -> bytes:
        return self._ask("GET", f"/lab/{key}")

    def _clients(self) -> list[Host]:
        return [host for host in self.lab.hosts.values() if host is not self.bucket]

    def _make_bucket(self) -> bool:
        assert self._moto.poll() is None, (self.lab.folder / "moto.log").read_text()
        with suppress(OSError):
            self._ask("PUT", "/lab")
            return True
        return False

    def _ask(self, method: str, path: str) -> bytes:
        with self.bucket.network():
            connection = http.client.HTTPConnection(*S3, timeout=3)
            try:
                connection.request(method, path, headers=SIGNED)
                answer = connection.getresponse()
                content = answer.read()
            finally:
                connection.close()
        if answer.status >= 400:
            raise OSError(f"{method} {path}: {answer.status} {content[:200]!r}")
        return content


@contextmanager
def cluster() -> Iterator[Cluster]:
    with Lab(environment=ENVIRONMENT) as lab:
        here = Cluster(lab)
        try:
            yield here
        finally:
            here.close()


def processes(host: Host, words: bytes) -> list[int]:
    """Ids, as this machine counts them, of a host's processes with these words in their command."""
    inside, found = os.readlink(f"/proc/{host.pid}/ns/pid"), []
    for proc in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            if os.readlink(proc / "ns/pid") == inside and words in (proc / "cmdline").read_bytes():
                found.append(int(proc.name))
    return found


def _ray_start(host: Host, *options: str) -> None:
    small = ("--object-store-memory=100000000", "--disable-usage-stats")
    for left in (2, 1, 0):  # Ray gives a node 30 s to start, few on a busy machine
        done = host.run("ray", "start", *options, *small, timeout=120, check=not left)
        if done.returncode == 0:
            return
        host.run("ray", "stop", "--force", check=False)
