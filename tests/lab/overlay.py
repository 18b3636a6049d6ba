"""What a cloud without machines forces on a cluster file, each change with its reason; all else stays as shipped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

STORE = " --object-store-memory=100000000"


class Change(NamedTuple):
    """Values at dotted paths of a cluster file; a function makes the new value of the old one."""

    reason: str
    values: dict[str, Any | Callable[[Any], Any]]


AWS = (
    Change("the public addresses are invented", {"provider.use_internal_ips": True}),
    Change("a host has no other user", {"auth.ssh_user": "root"}),
    Change(
        "there is no GPU, and few cores carry all hosts",
        {
            "available_node_types.worker.resources": {"CPU": 1},
            "available_node_types.worker.max_workers": 1,
            "max_workers": 1,
        },
    ),
    Change(
        "there is no internet, and the hosts share the Python of this machine",
        {
            "setup_commands": lambda old: [each for each in old if "/uv" not in each],
            "head_setup_commands": [],
        },
    ),
    Change(
        "the hosts share the memory of this machine",
        {
            "head_start_ray_commands": lambda old: [old[0], old[1] + STORE],
            "worker_start_ray_commands": lambda old: [old[0], old[1] + STORE],
        },
    ),
    Change("nobody waits ten minutes to see an idle machine go", {"idle_timeout_minutes": 1}),
)


def apply(config: Any, changes: tuple[Change, ...]) -> None:
    """Change a cluster file's content in place. Raises KeyError for a path that is not in it."""
    for change in changes:
        for path, value in change.values.items():
            *parents, last = path.split(".")
            inside = config
            for name in parents:
                inside = inside[name]
            inside[last] = value(inside[last]) if callable(value) else _there(inside, last, value)


def _there(inside: Any, name: str, value: Any) -> Any:
    """The value, for a key that is there already: a change of nothing would be a change too many."""
    assert inside[name] != value, f"{name} is {value!r} already"
    return value
