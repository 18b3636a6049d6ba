"""A small network of hosts on one machine: each with its own network, processes, home, /tmp and /dev/shm, and sshd.

Needs root and Debian's openssh-server, rsync and iproute2. The namespaces have no names: each lives as long as its
processes, and those die with the process that made the lab, however it ends. So nothing is left behind, and labs that
run at the same time do not meet, not even with the same addresses.

    with Lab() as lab:
        first, second = lab.boot("first", "10.77.0.2"), lab.boot("second", "10.77.0.3")
        print(first.run("ping", "-c1", "second").stdout)
        second.cut_off()
"""

from __future__ import annotations

import ipaddress
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.lab.namespaces import DIES_ALONG, check, go, set_network, start

CHECKOUT = Path(__file__).resolve().parents[2]
PROGRAMS = {"sshd": "openssh-server", "ssh-keygen": "openssh-client", "rsync": "rsync", "ip": "iproute2"}
"""Which Debian package brings what is needed."""
SSHD = "/usr/sbin/sshd"
HOME = "/root"
OWN = (HOME, "/tmp", "/run")
"""Folders that no host shares; but what Python needs of them is seen in all."""
BOOT_S = 20
SSHD_CONFIG = f"""\
HostKey {HOME}/.ssh/host_key
AuthorizedKeysFile {HOME}/.ssh/authorized_keys
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
"""


def missing() -> str:
    """What this machine lacks for a lab, in words; empty where it has all."""
    lacks = ["root"] if os.geteuid() != 0 else []
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    packages = sorted({package for program, package in PROGRAMS.items() if not shutil.which(program, path=path)})
    return "; ".join([*lacks, *([f"apt-get install {' '.join(packages)}"] if packages else [])])


class Lab:
    """A switch without a way out, and the hosts on it. Leaving it kills them all.

    A host dies with the thread that booted it: boot from one that lasts. Raises ValueError where `missing()` says what.
    """

    def __init__(
        self, network: str = "10.77.0.0/16", *, environment: Mapping[str, str] | None = None, shm: str = "1g"
    ) -> None:
        if lacks := missing():
            raise ValueError(f"a lab of hosts needs: {lacks}")
        self.network = ipaddress.ip_network(network)
        self.environment = {
            "HOME": HOME,
            "LANG": "C.UTF-8",
            "PATH": f"{sys.prefix}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "PYTHONPATH": str(CHECKOUT),
            "PYTHONUNBUFFERED": "1",
            **(environment or {}),
        }
        """Of each command in a host, by `run` or by SSH; change it before you boot."""
        self.shm = shm
        self.hosts: dict[str, Host] = {}
        self.folder = Path(tempfile.mkdtemp(prefix="arat-lab-"))
        self._ports = itertools.count()
        self._switch: subprocess.Popen[str] | None = None

    def __enter__(self) -> Lab:
        self._switch = start("unshare", "--net", log=self.folder / "switch.log", then=("sleep", "infinity"))
        go(self._switch)
        gateway = f"{self.network[1]}/{self.network.prefixlen}"
        for command in (
            "ip link set lo up",
            "ip link add br0 type bridge",
            f"ip address add {gateway} dev br0",
            "ip link set br0 up",
            "ip route add unreachable default",  # so that who calls the world hears at once that there is none
            "sysctl --quiet --write net.ipv4.ip_forward=1",
        ):
            self.switch(*command.split())
        return self

    def __exit__(self, *_: object) -> None:
        for host in list(self.hosts.values()):
            host.kill()
        if self._switch is not None:
            self._switch.kill()
            self._switch.wait()
        shutil.rmtree(self.folder)  # bind mounts were seen by the hosts alone

    def switch(self, *command: str) -> None:
        """Run a command in the switch's network."""
        assert self._switch is not None
        check("nsenter", f"--net=/proc/{self._switch.pid}/ns/net", *command)

    def boot(self, name: str, address: str, *, authorized: str = "", own: Sequence[str] = ()) -> Host:
        """A host that runs: `authorized` is the public key that may log in, `own` more folders that are its alone."""
        assert ipaddress.ip_address(address) in self.network, f"{address} is not in {self.network}"
        assert name not in self.hosts, f"there is a host {name}"
        host = Host(self, name, address, port=f"port{next(self._ports)}", authorized=authorized, own=own)
        self.hosts[name] = host
        self._name_hosts()
        host.boot()
        return host

    def _name_hosts(self) -> None:
        lines = ["127.0.0.1 localhost", *(f"{host.address} {name}" for name, host in list(self.hosts.items()))]
        (self.folder / "hosts").write_text("\n".join(lines) + "\n")

    def forget(self, host: Host) -> None:
        """Take a dead host's name away."""
        if self.hosts.get(host.name) is host:
            del self.hosts[host.name]
            self._name_hosts()


class Host:
    """One machine of a lab; made by `Lab.boot`."""

    def __init__(self, lab: Lab, name: str, address: str, *, port: str, authorized: str, own: Sequence[str]) -> None:
        self.lab, self.name, self.address, self.port = lab, name, address, port
        self.authorized, self.own = authorized, (*OWN, *own)
        self.folder = lab.folder / f"{name}-{port}"
        self.pid = 0
        self._process: subprocess.Popen[str] | None = None

    def boot(self) -> None:
        """Make the namespaces, plug the host in, mount what is its own, and start sshd in the place of init."""
        for own in self.own:
            self._stored(own).mkdir(parents=True)
        log = self.folder / "sshd.log"
        self._process = start(
            *("unshare", "--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc"),
            log=log,
            then=(SSHD, "-D", "-e", "-f", f"{HOME}/.ssh/sshd_config"),
        )
        process = self._process.pid
        self.pid = int(Path(f"/proc/{process}/task/{process}/children").read_text())
        self._plug_in()
        self._mount()
        go(self._process)
        give_up = time.monotonic() + BOOT_S
        while "Server listening" not in log.read_text():
            alive = self._process.poll() is None and time.monotonic() < give_up
            assert alive, f"{self.name}: {log.read_text()}"
            time.sleep(0.02)

    def kill(self) -> None:
        """Take its power away: no process ends in order, and nobody hears of it."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self.cut_off()  # or the kernel would close the connections of the killed
        self._process.kill()  # --kill-child takes the processes along
        self._process.wait()
        self._process = None
        self.lab.forget(self)

    def cut_off(self) -> None:
        """Pull the cable: it and the others do not hear of each other any more, without any connection being closed."""
        self.lab.switch("ip", "link", "set", self.port, "down")

    def reconnect(self) -> None:
        """Put the cable in again."""
        self.lab.switch("ip", "link", "set", self.port, "up")

    def command(self, *command: str, env: Mapping[str, str] | None = None) -> list[str]:
        """What runs a command in this host, in its home; killed, it takes the command along."""
        variables = [f"{name}={value}" for name, value in {**self.lab.environment, **(env or {})}.items()]
        assert self._process is not None, f"{self.name} is dead"
        return [*self._enter(), "--pid", *DIES_ALONG, "env", "-i", f"--chdir={HOME}", *variables, *command]

    def run(
        self, *command: str, env: Mapping[str, str] | None = None, timeout: float = 60, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in this host to its end; stderr is in stdout. Raises AssertionError where it fails."""
        done = subprocess.run(
            self.command(*command, env=env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
            start_new_session=True,
        )
        assert not check or done.returncode == 0, f"{self.name}: {' '.join(command)}: {done.returncode}\n{done.stdout}"
        return done

    def start(self, *command: str, log: Path, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start a command in this host, its output going to `log` (outside)."""
        with log.open("wb") as output:
            return subprocess.Popen(
                self.command(*command, env=env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @contextmanager
    def network(self) -> Iterator[None]:
        """Inside the block this thread has the host's network; files stay those of the machine."""
        with open("/proc/thread-self/ns/net") as before, open(f"/proc/{self.pid}/ns/net") as inside:
            set_network(inside)
            try:
                yield
            finally:
                set_network(before)

    def path(self, path: str) -> Path:
        """Where a file of one of its own folders lies, seen from outside."""
        own = next(own for own in self.own if Path(path).is_relative_to(own))
        return self._stored(own) / Path(path).relative_to(own)

    def _stored(self, own: str) -> Path:
        return self.folder / "own" / own.strip("/")

    def _enter(self) -> list[str]:
        return ["nsenter", f"--target={self.pid}", "--net", "--mount", "--uts", "--ipc"]

    def _plug_in(self) -> None:
        self.lab.switch(*f"ip link add {self.port} type veth peer name eth0 netns {self.pid}".split())
        self.lab.switch(*f"ip link set {self.port} master br0 up".split())
        network = self.lab.network
        for command in (
            f"hostname {self.name}",
            "ip link set lo up",
            f"ip address add {self.address}/{network.prefixlen} dev eth0",
            "ip link set eth0 up",
            f"ip route add default via {network[1]}",
        ):
            check(*self._enter(), *command.split())

    def _mount(self) -> None:
        """Fill the host's own folders and put them over the machine's."""
        ssh = self.path(f"{HOME}/.ssh")
        ssh.mkdir(mode=0o700)
        (self.path("/run") / "sshd").mkdir()
        self.path("/tmp").chmod(0o1777)
        (ssh / "sshd_config").write_text(f"ListenAddress {self.address}:22\n{SSHD_CONFIG}")
        (ssh / "authorized_keys").write_text(self.authorized)
        check("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(ssh / "host_key"))
        exports = "".join(f"export {name}='{value}'\n" for name, value in self.lab.environment.items())
        self.path(f"{HOME}/.bashrc").write_text(exports)
        self.path(f"{HOME}/.bash_profile").write_text(". ~/.bashrc\n")
        shadow = self.folder / "shadow"
        shadow.write_text("root:*:19000:0:99999:7:::\n")  # a locked root could not log in

        binds = [(shadow, "/etc/shadow"), (self.lab.folder / "hosts", "/etc/hosts")]
        for each in _needed():
            if any(each.is_relative_to(own) for own in self.own):
                self.path(str(each)).mkdir(parents=True, exist_ok=True)
                binds.append((each, str(self.path(str(each)))))
        last = sorted(self.own, key=self.folder.is_relative_to)  # what hides our own folder comes last of all
        binds += [(self._stored(own), own) for own in last]
        for source, target in binds:
            check(*self._enter(), "mount", "--rbind", str(source), target)
        options = f"mode=1777,size={self.lab.shm}"
        check(*self._enter(), "mount", "-t", "tmpfs", "-o", options, "tmpfs", "/dev/shm")


def _needed() -> list[Path]:
    """Folders of the machine that a host needs: Python's, also where links lead, and the checkout."""
    python = Path(sys.base_prefix)
    return sorted({Path(sys.prefix), python, python.resolve(), CHECKOUT})
