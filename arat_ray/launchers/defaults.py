"""What every file of `ray up` must keep: tokens, a closed dashboard, one exact Ray, and machines that end."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, requires
from typing import Any

from arat_ray.launchers.pods import is_by_digest
from arat_ray.launchers.problems import Path, Problem, Rule, Violation, apply, at, listed, mapping
from arat_ray.launchers.ray_up import commands, workers

OPENS_THE_MACHINE = re.compile(
    r"--privileged|--cap-add|--pid[= ]host|--userns[= ]host|seccomp[=:]unconfined|apparmor[=:]unconfined|docker\.sock"
    r"|(?:-v|--volume)[= ]*/:|--device[= ]/dev/(?:mem|sd|nvme)"
)
"""Options of `docker run` that give a container its machine."""
KEYS_OF_ONES_OWN = re.compile(
    r"/|~|\$HOME|\.|\.\.|(?:~|\$HOME|/root|/home/[^/]+)(?:/\.(?:ssh|gnupg|kube|docker|config|azure|netrc)(?:/.*)?)?|.*\.pem"
)
"""What holds more keys than a node needs. ~/.aws is not here: where s3:// is for results, the keys have to go along."""
WORKER_PORTS = range(10002, 20000)
"""Ray's workers listen on ports of this range; a service of its own there collides with them."""
METRICS, HEAD_METRICS = "RAY_enable_metrics_collection", ("DASHBOARD_METRIC_PORT", "AUTOSCALER_METRIC_PORT")
"""What turns metrics off on every node; and the ports of the head, which are closed by a number that is none."""
SAFE_SINCE = (2, 52)
"""Ray's first version without CVE-2025-62593."""


def _one_says(config: Any, pattern: str, *keys: str) -> Iterator[Violation]:
    """Broken where none of the commands under these keys matches."""
    if not any(re.search(pattern, command) for _, command in commands(config, *keys)):
        yield Violation((keys[0],))


def _token_mode(config: Any) -> Iterator[Violation]:
    yield from _one_says(config, r"RAY_AUTH_MODE=token\b", "setup_commands", "initialization_commands")
    for path, command in commands(config):
        for mode in re.findall(r"RAY_AUTH_MODE=(\w+)", command):
            if mode != "token":
                yield Violation(path, f"RAY_AUTH_MODE={mode}")


def _token_sent(config: Any) -> Iterator[Violation]:
    if "~/.ray" not in {str(remote).rstrip("/") for remote in mapping(at(config, "file_mounts"))}:
        yield Violation(("file_mounts", "~/.ray"))


def _keys_at_home(config: Any) -> Iterator[Violation]:
    for remote, local in mapping(at(config, "file_mounts")).items():
        if isinstance(local, str) and KEYS_OF_ONES_OWN.fullmatch(local.strip().rstrip("/") or "/"):
            yield Violation(("file_mounts", remote), local)


def _token_private(config: Any) -> Iterator[Violation]:
    before = ("setup_commands", "initialization_commands")
    yield from _one_says(config, r"umask 0?77\b", "initialization_commands")
    yield from _one_says(config, r"chmod 0?600 ~/\.ray/auth_token", *before)


def _dashboard(config: Any) -> Iterator[Violation]:
    heads = [(path, each) for path, each in commands(config) if re.search(r"ray start\b.*--head\b", each, re.DOTALL)]
    if not heads:
        yield Violation(("head_start_ray_commands",))
    for path, command in heads:
        hosts = re.findall(r"--dashboard-host[= ](\S+)", command)
        if not hosts:
            yield Violation(path)
        for host in hosts:
            if host not in ("127.0.0.1", "localhost"):
                yield Violation(path, f"--dashboard-host={host}")


def _usage_statistics(config: Any) -> Iterator[Violation]:
    yield from _one_says(config, r"RAY_USAGE_STATS_ENABLED=0\b", "setup_commands", "initialization_commands")


def _metrics(config: Any) -> Iterator[Violation]:
    """A port that is named is asked for."""
    if not any("--metrics-export-port" in command for _, command in commands(config)):
        yield from _one_says(config, rf"{METRICS}=0\b", "setup_commands", "initialization_commands")
    heads = ("setup_commands", "initialization_commands", "head_setup_commands", "head_start_ray_commands")
    for name in HEAD_METRICS:
        yield from _one_says(config, rf"{name}=\d+", *heads)


def _images(config: Any) -> Iterator[Violation]:
    for path, image in _of_docker(config, "image", "head_image", "worker_image"):
        if image is not None and not is_by_digest(image):
            yield Violation(path, image)


def _docker_options(config: Any) -> Iterator[Violation]:
    for path, options in _of_docker(config, "run_options", "head_run_options", "worker_run_options"):
        for index, option in enumerate(listed(options)):
            if OPENS_THE_MACHINE.search(str(option)):
                yield Violation((*path, index), option)


def _of_docker(config: Any, *keys: str) -> Iterator[tuple[Path, Any]]:
    """What stands under these keys of `docker`, of the file and of each node type."""
    types = [("available_node_types", name) for name in mapping(at(config, "available_node_types"))]
    for above in ((), *types):
        for key in keys:
            yield (*above, "docker", key), at(config, *above, "docker", key)


def _pinned(config: Any) -> Iterator[Violation]:
    found = False
    for path, command in commands(config):
        for extras, version in re.findall(r"\bray(\[[\w,]+\])?((?:==|>=|<=|~=|!=|<|>)[^\s\"']+)", command):
            found = True
            if (says := pin_problem(version)) is not None:
                yield Violation(path, f"ray{extras}{version}, {says}")
        for bare in re.findall(r"install\b[^;&|]*?[\s\"'](ray(?:\[[\w,]+\])?)(?=[\s\"']|$)", command):
            found = True
            yield Violation(path, bare)
    if not found:
        yield Violation(("setup_commands",))


def pin_problem(version: str) -> str | None:
    """What is wrong with `==2.60.0`; None where it is exact and the version that arat-ray asks for."""
    exact = re.fullmatch(r"==(\d+\.\d+\.\d+)", version)
    if exact is None:
        return "not one exact version"
    if tuple(map(int, exact[1].split(".")[:2])) < SAFE_SINCE:
        return "older than 2.52 (CVE-2025-62593)"
    wanted = ray_wanted()
    if wanted and not exact[1].startswith(wanted + "."):
        return f"where arat-ray is made for {wanted}"
    return None


@cache
def ray_wanted() -> str | None:
    """The series of Ray that arat-ray's own metadata pins ("2.60"); None where it is not installed as a package."""
    try:
        wanted = requires("arat-ray") or []
    except PackageNotFoundError:
        return None
    pins = [re.match(r"ray(?:\[[\w,]+\])?\s*==\s*([\d.]+?)\.\*$", each) for each in wanted]
    return next((pin[1] for pin in pins if pin), None)


def _ports(config: Any) -> Iterator[Violation]:
    for path, command in commands(config):
        for name, port in re.findall(r"--((?:[\w]+-)*port)[= ](\d+)", command):
            if int(port) in WORKER_PORTS and not name.endswith("worker-port"):
                yield Violation(path, f"--{name}={port}")


def _head_without_cpus(config: Any) -> Iterator[Violation]:
    head = str(at(config, "head_node_type"))
    path = ("available_node_types", head, "resources", "CPU")
    if at(config, *path) != 0:
        yield Violation(path, at(config, *path))


def _bounded(config: Any) -> Iterator[Violation]:
    if not isinstance(at(config, "max_workers"), int):
        yield Violation(("max_workers",))
    for name, each in workers(config).items():
        if each.get("min_workers", 0) != 0:
            yield Violation(("available_node_types", name, "min_workers"), each["min_workers"])
        if not isinstance(each.get("max_workers"), int):
            yield Violation(("available_node_types", name, "max_workers"))


def _idle(config: Any) -> Iterator[Violation]:
    minutes = at(config, "idle_timeout_minutes")
    if not isinstance(minutes, int | float) or not 0 < minutes <= 60:
        yield Violation(("idle_timeout_minutes",), minutes)


def _terminates(config: Any) -> Iterator[Violation]:
    if at(config, "provider", "cache_stopped_nodes") is not False:
        yield Violation(("provider", "cache_stopped_nodes"), at(config, "provider", "cache_stopped_nodes"))


EVERYWHERE = (
    Rule(
        "token-auth",
        "whoever reaches Ray's ports runs code on the cluster (CVE-2023-48022)",
        "export RAY_AUTH_MODE=token in setup_commands",
        _token_mode,
    ),
    Rule(
        "token-sent", "nodes without the token cannot join", 'write "~/.ray": "~/.ray" under file_mounts', _token_sent
    ),
    Rule(
        "keys-stay-home",
        "every job on every node could read the keys in it",
        "send what the nodes need alone, from a folder that holds nothing else",
        _keys_at_home,
    ),
    Rule(
        "token-private",
        "other accounts of a node could read the token",
        "`umask 077; mkdir -p ~/.ray` in initialization_commands, `chmod 600 ~/.ray/auth_token` in setup_commands",
        _token_private,
    ),
    Rule(
        "dashboard-local",
        "the dashboard takes jobs, which are code",
        "start the head with --dashboard-host=127.0.0.1 and reach it through the SSH tunnel of `ray dashboard`",
        _dashboard,
    ),
    Rule(
        "no-usage-statistics",
        "Ray reports home",
        "export RAY_USAGE_STATS_ENABLED=0 in setup_commands",
        _usage_statistics,
    ),
    Rule(
        "ray-pinned",
        "nodes of two versions do not join each other",
        'install "ray[default,train,tune]==2.60.0", one exact version, the same as on your machine',
        _pinned,
    ),
    Rule(
        "metrics-closed",
        "Ray's metrics ports ask for no token",
        f"export {METRICS}=0 {' '.join(f'{name}=70000' for name in HEAD_METRICS)} in setup_commands (70000 is no port)",
        _metrics,
    ),
    Rule(
        "image-pinned",
        "a tag can be moved, and later nodes would run other code",
        "write IMAGE@sha256:DIGEST, as `docker push` prints it",
        _images,
    ),
    Rule(
        "container-closed",
        "a job in such a container is root on its machine",
        "leave it out: --gpus comes by itself",
        _docker_options,
    ),
    Rule("ports-apart", "Ray's workers listen on 10002-19999", "choose a port below 10000", _ports),
)
IN_A_CLOUD = (
    Rule(
        "head-computes-nothing",
        "a trial on the head can starve the study's driver, and what runs there has the head's permissions",
        "write resources: {CPU: 0}",
        _head_without_cpus,
    ),
    Rule(
        "workers-bounded",
        "without a lower bound of 0 and an upper one, machines are paid for that nobody uses",
        "write min_workers: 0 and a max_workers",
        _bounded,
    ),
    Rule("idle-ends", "idle machines are paid for", "write idle_timeout_minutes: 10 (at most 60)", _idle),
    Rule(
        "down-terminates",
        "`ray down` would only stop the machines, and their disks go on costing",
        "write cache_stopped_nodes: false",
        _terminates,
    ),
)


def _local_head(config: Any) -> Iterator[Violation]:
    for path, command in commands(config, "head_start_ray_commands"):
        if re.search(r"ray start\b.*--head\b", command, re.DOTALL) and not re.search(r"--num-cpus[= ]0\b", command):
            yield Violation(path)


LOCAL = (
    Rule(
        "head-computes-nothing",
        "a trial on the head can starve the study's driver",
        "start the head with --num-cpus=0 --num-gpus=0",
        _local_head,
    ),
)


def rules(config: dict[str, Any]) -> list[Problem]:
    """The defaults of every launcher of `ray up` that the file breaks."""
    return apply(EVERYWHERE + (LOCAL if at(config, "provider", "type") == "local" else IN_A_CLOUD), config)
