"""What is left out of a Ray for this machine alone, without starting one."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from arat_ray.cluster.parts import IDLE_AGENT, left_out
from arat_ray.cluster.ray_internals import node, psutil, services, utils

NODE = """
import os, subprocess, sys
os.environ["RAY_RAYLET_PID"] = str(os.getpid())
print(subprocess.Popen([sys.executable, "-I", "-S", sys.argv[1]]).pid, flush=True)
sys.stdin.read()
"""
ID = "f" * 56


def test_the_agent_that_does_nothing_ends_with_its_node_and_not_by_a_ctrl_c() -> None:
    raylet = subprocess.Popen(
        [sys.executable, "-c", NODE, str(IDLE_AGENT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert raylet.stdout is not None
    agent = psutil.Process(int(raylet.stdout.readline()))
    ignored = 0
    while not ignored & 1 << signal.SIGINT - 1:
        (ignored,) = (
            int(line.split()[1], 16)
            for line in Path(f"/proc/{agent.pid}/status").read_text().splitlines()
            if line.startswith("SigIgn")
        )
    agent.send_signal(signal.SIGINT)
    with pytest.raises(psutil.TimeoutExpired):
        agent.wait(timeout=0.1)
    raylet.kill()
    raylet.communicate()
    agent.wait(timeout=30)


@pytest.mark.parametrize("output", [False, True])
def test_only_what_starts_in_the_block_is_without_them(
    output: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(services, "start_ray_process", lambda command, kind: started.append(command))
    names = ("start_monitor", "start_log_monitor")
    before = [getattr(node.Node, name) for name in names]
    command = ["raylet", f"--session_dir={tmp_path}", f"--node_id={ID}", "--dashboard_agent_command=python agent.py"]
    with left_out(output=output):
        services.start_ray_process(command, "raylet")
        services.start_ray_process(command, "gcs_server")
        assert services.start_api_server(False, False, port=1) == ("", None)
        assert utils.get_dashboard_dependency_error() is not None
        changed = [getattr(node.Node, name) is not each for name, each in zip(names, before, strict=True)]
    assert changed == [True, not output]
    assert [getattr(node.Node, name) for name in names] == before
    assert started[1] == command
    assert started[0][:3] == command[:3]
    agent = shlex.split(started[0][3].partition("=")[2])
    assert (agent[0], Path(agent[-1])) == (sys.executable, IDLE_AGENT)
    assert sorted(os.listdir(tmp_path)) == [
        f"{port}_{ID}" for port in ("dashboard_agent_listen_port", "metrics_agent_port", "metrics_export_port")
    ]
    assert {path.read_text() for path in tmp_path.iterdir()} == {"-1"}
