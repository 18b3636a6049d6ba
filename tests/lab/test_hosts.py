"""The lab's hosts themselves: apart where they should be, together where they must, and gone afterwards."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.hosts import Host, Lab, missing
from tests.lab.steps import wait_until

pytestmark = pytest.mark.skipif(bool(missing()), reason=f"a lab of hosts needs: {missing()}")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Host, Host]]:
    key = tmp_path_factory.mktemp("key") / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    with Lab(environment={"GREETING": "hello there"}) as lab:
        first = lab.boot("first", "10.77.0.2")
        first.path("/root/.ssh/id_ed25519").write_bytes(key.read_bytes())
        first.path("/root/.ssh/id_ed25519").chmod(0o600)
        yield first, lab.boot("second", "10.77.0.3", authorized=key.with_suffix(".pub").read_text(), own=("/srv",))


def ssh(host: Host, to: str, command: str, *, seconds: int = 5) -> subprocess.CompletedProcess[str]:
    options = ["-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR", "-o", f"ConnectTimeout={seconds}"]
    return host.run("ssh", *options, to, command, check=False)


def test_one_host_logs_into_another_by_name_and_finds_its_environment(pair: tuple[Host, Host]) -> None:
    done = ssh(pair[0], "second", 'hostname; echo "$GREETING"; python -c "import arat_ray"')
    assert (done.returncode, done.stdout.split("\n")) == (0, ["second", "hello there", ""])


def test_hosts_do_not_see_each_others_files_or_processes(pair: tuple[Host, Host]) -> None:
    first, second = pair
    for folder in ("/root", "/tmp", "/run", "/dev/shm"):
        first.run("touch", f"{folder}/mine")
        assert "mine" not in second.run("ls", folder).stdout
        assert not Path(folder, "mine").exists()
    second.run("touch", "/srv/own")
    assert second.path("/srv/own").exists()
    assert not Path("/srv/own").exists()
    assert set(first.run("sh", "-c", "cat /proc/[0-9]*/comm").stdout.split()) <= {"sshd", "sh", "cat"}


def test_a_host_has_no_way_out(pair: tuple[Host, Host]) -> None:
    with pair[0].network(), pytest.raises(OSError, match="No route to host"):
        socket.create_connection(("192.0.2.1", 80), timeout=10)


def test_a_host_that_is_cut_off_keeps_its_connections_and_comes_back(pair: tuple[Host, Host]) -> None:
    first, second = pair
    with second.network():
        server = socket.create_server((second.address, 7000))
    with first.network():
        client = socket.create_connection((second.address, 7000), timeout=10)
    accepted, _ = server.accept()
    second.cut_off()
    assert ssh(first, second.address, "true", seconds=1).returncode != 0
    client.sendall(b"late")
    accepted.settimeout(0.2)
    with pytest.raises(TimeoutError):
        accepted.recv(4)
    second.reconnect()
    accepted.settimeout(30)
    assert accepted.recv(4) == b"late"
    for each in (server, client, accepted):
        each.close()


def test_a_killed_host_takes_its_processes_along_and_may_boot_again() -> None:
    with Lab() as lab:
        host = lab.boot("host", "10.77.0.2")
        sleeper = host.start("sleep", "1234", log=lab.folder / "sleep.log")
        wait_until(lambda: len(lab.processes()) == 2, 20, "the sleeper beside sshd")
        inside = lab.processes()
        host.kill()
        assert sleeper.wait(timeout=20) != 0
        assert not [pid for pid in inside if Path(f"/proc/{pid}").exists()]
        assert not lab.hosts
        assert lab.boot("host", "10.77.0.2").run("hostname").stdout == "host\n"


def test_a_lab_whose_own_process_is_killed_leaves_no_process_behind() -> None:
    code = """
import sys
from tests.lab.hosts import Lab
with Lab() as lab:
    host = lab.boot("host", "10.77.0.2")
    print(host.pid, lab.folder, flush=True)
    sys.stdin.read()
"""
    lab = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert lab.stdout is not None
    pid, folder = lab.stdout.readline().split()
    assert Path(f"/proc/{pid}").exists()
    lab.kill()
    lab.communicate()
    shutil.rmtree(folder)
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), 20, "the host's end")
