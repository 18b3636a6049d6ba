"""Starting Ray on this machine: for this user alone, as long as a busy machine needs, and seen while it lasts.

Its files are in a folder of our own that nobody else can enter and that goes with it; it listens on 127.0.0.1. What
Ray has no setting for is changed in its modules `node` and `services` while it starts.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.job_config import JobConfig

from arat_ray.cluster import fork_server, token
from arat_ray.cluster.parts import left_out
from arat_ray.cluster.ray_internals import node as ray_node
from arat_ray.cluster.ray_internals import psutil, ray_constants, replaced, services
from arat_ray.cluster.waiting import Waiting
from arat_ray.text import plain

LIMIT_S = 600
"""How long one part of Ray may take to start; its own limits are 30 s."""
SETTINGS = {
    "RAY_agent_register_timeout_ms": f"{LIMIT_S * 1000}",
    "RAY_worker_register_timeout_seconds": f"{LIMIT_S}",
    "RAY_health_check_timeout_ms": "60000",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": f"{LIMIT_S}",
    "RAY_enable_metrics_collection": "0",  # else a port of the machine gives them to everybody
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # addresses are 127.0.0.1, on Linux as well
    "RAY_prestart_worker_first_driver": "0",  # those have another environment than trials: none would be used
}
"""Of a Ray that runs on this machine alone. What the user has set counts."""
OBJECT_STORE_BYTES = 100 << 20
LONGEST = 107 - len("/arat-abcdefgh/r/session_2026-01-31_09-30-00_123456_4194304/sockets/plasma_store")
"""What is left of the path of a socket (unix(7)) for the folder of temporary files."""
PARTS = ("raylet", "gcs_server")


class NotStartedError(Exception):
    """A part of Ray has ended, or not begun within LIMIT_S."""


class InstalledJobConfig(JobConfig):
    """A job whose workers import what is installed.

    Ray would put the folders of the command and of its script first, so that a `random.py` there breaks every worker.
    """

    def _runtime_env_has_working_dir(self) -> bool:
        return True


@contextmanager
def own(*, verbose: bool, warn: Callable[[str], None], several_workers: bool = False, **options: Any) -> Iterator[None]:
    """A Ray on this machine for the length of the block; trials may take `several_workers`.

    Raises ValueError where it cannot be started, with what its log says, and KeyboardInterrupt when told to stop.
    """
    token.provide(warn)
    with fork_server.spawned(several_workers=several_workers):
        folder = _started(options)
        keep = True  # after an error that nobody expected
        try:
            yield
            keep = verbose
        except (ValueError, KeyboardInterrupt, SystemExit):
            keep = verbose
            raise
        finally:
            ray.shutdown()
            if keep:
                warn(f"Ray's logs are in {folder}")
            else:
                shutil.rmtree(folder, ignore_errors=True)


def _started(options: dict[str, Any]) -> Path:
    """The folder of a Ray that has started, at the second attempt if need be."""
    before = {child.pid for child in psutil.Process().children()}
    end = functools.partial(_end_all_but, before)
    for what in ("starting Ray", "starting Ray once more"):
        folder = _folder()
        clear = functools.partial(_clear, end, folder)
        try:
            with Waiting(what, give_up=clear), _settings(before), left_out(output=options["log_to_driver"]):
                ray.init(
                    address="local",
                    include_dashboard=False,
                    object_store_memory=OBJECT_STORE_BYTES,
                    job_config=InstalledJobConfig(),
                    _temp_dir=str(folder / "r"),  # Ray lets everybody into it: so it is inside of another
                    **options,
                )
            return folder
        except (NotStartedError, RayError, RuntimeError, OSError, ValueError) as error:
            ray.shutdown()
            end()
            reason = _why(folder) or plain(error).partition("\n")[0]
        except BaseException:
            ray.shutdown()
            clear()
            raise
        if what == "starting Ray":
            clear()
    raise ValueError(
        f"Ray does not start on this machine, {reason}; is there memory, disk and time left for it (`free`, `df`, "
        f"`uptime`)? Its logs are in {folder}"
    )


def _clear(end: Callable[[], None], folder: Path) -> None:
    end()
    shutil.rmtree(folder, ignore_errors=True)


def _folder() -> Path:
    """A new folder for this user alone, whose path leaves room for those of Ray's sockets."""
    for name in (os.environ.get("RAY_TMPDIR"), os.environ.get("TMPDIR"), "/tmp", "/var/tmp"):
        if name and len(os.fsencode(os.path.abspath(name))) <= LONGEST:
            try:
                return Path(tempfile.mkdtemp(prefix="arat-", dir=os.path.abspath(name)))  # mode 0700
            except OSError:
                continue
    raise ValueError(
        f"Ray needs a folder that can be written to and whose path has at most {LONGEST} characters, for its sockets; "
        "name one in RAY_TMPDIR"
    )


@contextmanager
def _settings(before: set[int]) -> Iterator[None]:
    """Ray's settings for a start on this machine, and what it has no settings for."""
    ask, wait = services.get_node, ray_node.wait_for_persisted_port

    def get_node(gcs_address: str, node_id: str) -> Any:
        while True:
            try:
                return ask(gcs_address, node_id)
            except RuntimeError:  # the raylet has not told of itself yet
                _go_on_waiting(before, began)

    def wait_for_port(session: str, node: str, name: str, **limit: Any) -> Any:
        file = Path(session) / ray_node.get_port_filename(node, name)
        while not file.exists():  # Ray's own waiting lets no other thread run, and no handler of a signal
            _go_on_waiting(before, began)
        return wait(session, node, name, **limit)

    began = time.monotonic()
    with ExitStack() as changed:
        changed.enter_context(_variables(SETTINGS))
        changed.enter_context(replaced(services, "get_node", get_node))
        changed.enter_context(replaced(ray_node, "wait_for_persisted_port", wait_for_port))
        changed.enter_context(replaced(ray_constants, "ENABLE_RAY_CLUSTER", False))
        yield


def _go_on_waiting(before: set[int], began: float) -> None:
    """Raises NotStartedError where waiting is in vain."""
    for child in psutil.Process().children():
        if child.pid not in before and child.status() == psutil.STATUS_ZOMBIE and child.name() in PARTS:
            raise NotStartedError(f"its {child.name()} has ended")
    if time.monotonic() - began > LIMIT_S:
        raise NotStartedError(f"it has not started within {LIMIT_S} s")
    time.sleep(0.2)


@contextmanager
def _variables(settings: Mapping[str, str]) -> Iterator[None]:
    new = {name: value for name, value in settings.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            os.environ.pop(name, None)


def _end_all_but(before: set[int]) -> None:
    """End the processes that were started since, and theirs."""
    ended = []
    for child in psutil.Process().children():
        if child.pid in before:
            continue
        try:
            child.suspend()  # it starts nothing more
            ended += [child, *child.children(recursive=True)]
        except psutil.NoSuchProcess:
            continue
    for process in ended:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(ended, timeout=10)


def _why(folder: Path) -> str:
    """What the logs of Ray's processes say last of errors, or last of all; nothing where they say nothing."""
    said = ""
    for part in PARTS:
        for log in folder.glob(f"r/session_*/logs/{part}.*"):
            lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
            errors = [line for line in lines if re.match(r"\[[^\]]* [ECF] ", line)]
            if errors:
                return f"{part}: {plain(_message(errors[-1]))}"
            said = said or (f"{part}: {plain(_message(lines[-1]))}" if lines else "")
    return said


def _message(line: str) -> str:
    return re.sub(r"^\[[^\]]*\] (\([^)]*\) )?", "", line)
