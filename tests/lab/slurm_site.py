"""A site with Slurm in a lab: munge, slurmctld on the host where users log in, slurmd on each node, one user, one home.

Needs Debian's slurmctld, slurmd, slurm-client and munge. Their files on this machine stay as they are: each host has
its own folders for them, and the configuration, the key and the user's home come from a folder that all hosts mount.
Only the jobs' control groups are the machine's: they are below one of the site's own, which goes with it.
"""

from __future__ import annotations

import os
import pwd
import shutil
import sys
import tempfile
from pathlib import Path

from tests.lab import hosts
from tests.lab.hosts import CHECKOUT, Host, Lab
from tests.lab.namespaces import check

PROGRAMS = {"slurmctld": "slurmctld", "slurmd": "slurmd", "sbatch": "slurm-client", "munged": "munge"}
"""Which Debian package brings what is needed."""
USER, UID, HOME = "ada", 61234, "/mnt/ada"
LOGIN = ("login", "10.77.1.1")
NODES = {"node1": "10.77.2.1", "node2": "10.77.2.2", "node3": "10.77.2.3"}
OWN = ("/var/lib/munge", "/var/log/munge")
CONF = f"""\
ClusterName=lab
SlurmctldHost={LOGIN[0]}({LOGIN[1]})
SlurmUser=root
AuthType=auth/munge
AuthInfo=cred_expire=20
ProctrackType=proctrack/cgroup
TaskPlugin=task/affinity
TaskPluginParam=cores
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
SlurmdTimeout=15
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
StateSaveLocation=/run/slurmctld
SlurmdSpoolDir=/run/slurmd
SlurmctldLogFile=/run/slurmctld.log
SlurmdLogFile=/run/slurmd.log
SlurmdParameters=config_overrides
PartitionName=batch Nodes=ALL Default=YES State=UP
"""
CGROUP_CONF = "CgroupPlugin=cgroup/v1\nCgroupMountpoint=/run/cgroup\nCgroupAutomount=no\n"
SLURMD = """\
set -e
mkdir -p /run/machine /run/cgroup/freezer /run/slurmd
mount -t cgroup -o freezer none /run/machine
mkdir -p /run/machine/$1/$2
echo $$ > /run/machine/$1/$2/cgroup.procs
umount /run/machine
exec unshare --cgroup --mount sh -c 'mount -t cgroup -o freezer none /run/cgroup/freezer; exec slurmd -N $1' sh $2
"""
"""Starts slurmd in a control group of its own, which it takes for the machine's: so Slurm ends a job's processes to the
last one, as sites have it, and the hosts do not see each other's."""
REMOVE = 'mount -t cgroup -o freezer none "$1"; [ ! -d "$1/$2" ] || find "$1/$2" -depth -type d -exec rmdir {} +'


def missing() -> str:
    """What this machine lacks for Slurm, in words; empty where it has all."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    packages = sorted({package for program, package in PROGRAMS.items() if not shutil.which(program, path=path)})
    lacks = [f"apt-get install {' '.join(packages)}"] if packages else []
    return "; ".join([*lacks, *(f"chmod o+x {folder}" for folder in _closed())])


def _closed() -> list[Path]:
    """Folders on the way to the checkout and to Python that the site's user could not enter."""
    ends = (CHECKOUT, Path(sys.prefix), Path(sys.base_prefix).resolve())
    ways = {folder for end in ends for folder in (end, *end.parents)}
    seen = [folder for folder in ways if not any(folder.is_relative_to(own) for own in hosts.OWN)]
    return sorted(folder for folder in seen if not folder.stat().st_mode & 0o001)


class Site:
    """Slurm on the hosts of a lab. Leaving it removes what the lab itself does not know of."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.shared = Path(tempfile.mkdtemp(prefix="arat-site-", dir="/var/tmp"))  # not /tmp, which hosts do not share
        self.home = self.shared / Path(HOME).relative_to("/")
        self.group = self.shared.name

    def __enter__(self) -> Site:
        return self

    def __exit__(self, *_: object) -> None:
        for host in list(self.lab.hosts.values()):
            host.kill()
        mount = self.shared / "machine"
        mount.mkdir()
        check("unshare", "--mount", "sh", "-ec", REMOVE, "sh", str(mount), self.group)
        shutil.rmtree(self.shared)

    @property
    def login(self) -> Host:
        """The host where users log in."""
        return self.lab.hosts[LOGIN[0]]

    @property
    def nodes(self) -> list[Host]:
        """The nodes that are switched on."""
        return [host for name, host in self.lab.hosts.items() if name in NODES]

    def start(self) -> None:
        """Make the accounts, the key and the configuration, and boot the login host and the nodes."""
        self._configure()
        login = self._boot(*LOGIN)
        login.run("mkdir", "/run/slurmctld")
        login.run("slurmctld")
        for name in NODES:
            self.boot(name)

    def boot(self, name: str) -> Host:
        """Switch a node on, for the first time or again."""
        node = self._boot(name, NODES[name])
        node.run("install", "-d", "-m", "777", "/tmp/ray")  # another user's Ray was here, and its job was killed
        node.run("install", "-m", "600", "/dev/null", "/tmp/ray/ray_current_cluster")
        node.run("sh", "-c", SLURMD, "sh", self.group, name)
        return node

    def user(self, *command: str) -> str:
        """What a command of the user's, typed in the home folder on the login host, prints."""
        ids = ("setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups")
        return self.login.run(*ids, "env", f"HOME={HOME}", f"USER={USER}", *command, cwd=HOME, timeout=300).stdout

    def job(self, number: int) -> dict[str, str]:
        """What Slurm says of a job: JobState, Restarts, Reason, BatchHost and so on."""
        words = self.login.run("scontrol", "--oneliner", "show", "job", str(number)).stdout.split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def states(self) -> set[str]:
        """The states of the nodes."""
        return set(self.login.run("sinfo", "--noheader", "--Node", "--format=%T").stdout.split())

    def processes(self, node: Host) -> list[str]:
        """The command lines of the user's processes on a node."""
        return node.run("ps", "-u", USER, "-o", "args=", check=False).stdout.splitlines()

    def logs(self) -> str:
        """The ends of what Slurm's daemons wrote, for whoever looks for a fault."""
        files = "/run/slurmctld.log", "/run/slurmd.log"
        return "\n".join(host.run("tail", "-vn15", *files, check=False).stdout for host in self.lab.hosts.values())

    def _boot(self, name: str, address: str) -> Host:
        host = self.lab.boot(name, address, own=OWN)
        for file in (str(Path(HOME).parent), "/etc/slurm", "/etc/munge", "/etc/passwd", "/etc/group"):
            host.run("mount", "--bind", str(self.shared / Path(file).name), file)
        host.run("install", "-d", "-o", "munge", "/run/munge")
        host.run("chown", "munge", *OWN)
        host.run("setpriv", "--reuid=munge", "--regid=munge", "--clear-groups", "munged")
        return host

    def _configure(self) -> None:
        munge = pwd.getpwnam("munge")
        for file, line in (("passwd", f"{USER}:x:{UID}:{UID}::{HOME}:/bin/bash"), ("group", f"{USER}:x:{UID}:")):
            (self.shared / file).write_text(f"{Path('/etc', file).read_text()}{line}\n")
        key = self.shared / "munge" / "munge.key"
        key.parent.mkdir(mode=0o700)
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        for path in (key.parent, key):
            os.chown(path, munge.pw_uid, munge.pw_gid)
        slurm = self.shared / "slurm"
        slurm.mkdir()
        lines = [f"NodeName={name} NodeAddr={address} CPUs=2 RealMemory=4000" for name, address in NODES.items()]
        (slurm / "slurm.conf").write_text(CONF + "\n".join(lines) + "\n")
        (slurm / "cgroup.conf").write_text(CGROUP_CONF)
        self.home.mkdir(parents=True)
        os.chown(self.home, UID, UID)
