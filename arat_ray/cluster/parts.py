"""The parts of Ray that a search on this machine alone has no use for; to leave them out saves seconds of its start.

They are the dashboard and its agent, the autoscaler's monitor, and what brings the output of workers to the driver,
where nobody wants to see it. Their ports are not opened either. And where this process has a fork server, workers come
from there.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from arat_ray.cluster import fork_server
from arat_ray.cluster.ray_internals import AGENT_PORTS, node, persist_port, ray_constants, replaced, services, utils

IDLE_AGENT, WORKER_START = (Path(__file__).with_name(name) for name in ("idle_agent.py", "worker_start.py"))
UNUSED = -1
"""What Ray writes in the place of a port that nothing listens on."""


@contextmanager
def left_out(*, output: bool) -> Iterator[None]:
    """A Ray that starts in this block starts without them; with `output`, that of workers is brought."""
    start = services.start_ray_process

    def start_process(command: Sequence[str], kind: str, *more: Any, **options: Any) -> Any:
        if kind == ray_constants.PROCESS_TYPE_RAYLET:
            command = _with_forked_workers(_with_idle_agent(command))
        return start(command, kind, *more, **options)

    with ExitStack() as changed:
        changed.enter_context(replaced(services, "start_ray_process", start_process))
        changed.enter_context(replaced(services, "start_api_server", lambda *_, **__: ("", None)))
        changed.enter_context(replaced(node.Node, "start_monitor", lambda _: None))
        if not output:
            changed.enter_context(replaced(node.Node, "start_log_monitor", lambda _: None))
        # to find out whether the dashboard could run, Ray imports it
        changed.enter_context(replaced(utils, "get_dashboard_dependency_error", lambda: ImportError("not needed")))
        yield


def _with_idle_agent(command: Sequence[str]) -> list[str]:
    """The command that starts a raylet, which waits for the ports of its agent."""
    flags = dict(part.removeprefix("--").partition("=")[::2] for part in command)
    for port in AGENT_PORTS:
        persist_port(flags["session_dir"], flags["node_id"], port, UNUSED)
    agent = "--dashboard_agent_command="
    idle = agent + subprocess.list2cmdline([sys.executable, "-I", "-S", str(IDLE_AGENT)])
    return [idle if part.startswith(agent) else part for part in command]


def _with_forked_workers(command: Sequence[str]) -> list[str]:
    """The command that starts a raylet, which starts workers by asking the fork server of this process, if it has one.

    Ray's own way begins with the interpreter and `setup_worker`, the first words of what the raylet runs.
    """
    server, worker = fork_server.address(), "--python_worker_command="
    ask = subprocess.list2cmdline([sys.executable, "-I", "-S", str(WORKER_START), server or ""])
    own = worker + subprocess.list2cmdline([sys.executable]) + " "
    return [f"{worker}{ask} {part.removeprefix(own)}" if server and part.startswith(own) else part for part in command]
