"""The files of `ray up`: Ray's own schema made strict, and their node types and commands."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

from arat_ray.launchers.problems import Path, Problem, at, listed, mapping, shown
from arat_ray.launchers.schema import against, folder_of, strict, unknown

PROVIDER_KEYS = {
    "aws": {"region", "availability_zone", "cache_stopped_nodes", "use_internal_ips", "security_group", "key_pair"},
    "gcp": {"region", "availability_zone", "project_id", "cache_stopped_nodes", "use_internal_ips", "gcp_credentials"},
    "azure": {
        "location", "resource_group", "subscription_id", "cache_stopped_nodes", "use_internal_ips",
        "use_external_head_ip", "availability_zone", "unique_id", "subnet_mask", "msi_name", "msi_resource_group",
        "tags",
    },
    "local": {"head_ip", "worker_ips", "external_head_ip"},
}  # fmt: skip
"""What each of Ray's node providers reads; Ray's schema takes any key for any of them."""
REQUIRED = {
    "aws": ("region",),
    "gcp": ("region", "availability_zone", "project_id"),
    "azure": ("location", "resource_group"),
    "local": ("head_ip", "worker_ips"),
}
COMMANDS = (
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)


@cache
def _ray_schema() -> dict[str, Any]:
    text = (folder_of("ray") / "autoscaler" / "ray-schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    schema["properties"]["provider"]["properties"]["worker_ips"]["items"] = {"type": "string"}
    node_type = next(iter(schema["properties"]["available_node_types"]["patternProperties"].values()))
    node_type["additionalProperties"] = False
    schema["properties"]["min_workers"] = {"type": "integer", "minimum": 0}  # provider local alone, see schema()
    del schema["$schema"], schema["$id"]
    closed = strict(schema)
    closed["properties"]["provider"]["additionalProperties"] = True  # which keys depends on the cloud: PROVIDER_KEYS
    assert isinstance(closed, dict)
    return closed


def schema(config: dict[str, Any]) -> list[Problem]:
    """Where the file breaks Ray's schema, closed to keys that Ray would silently ignore."""
    problems = against(_ray_schema(), config)
    provider = mapping(config.get("provider"))
    kind = provider.get("type")
    if not isinstance(kind, str) or kind not in PROVIDER_KEYS:
        return problems
    known = {"type"} | PROVIDER_KEYS[kind]
    problems += [unknown(("provider",), key, known) for key in provider if key not in known]
    problems += [Problem(("provider", key), "is missing", "add it") for key in REQUIRED[kind] if key not in provider]
    if kind == "local":
        if "available_node_types" in config:
            fix = "leave it out: Ray finds out what each machine has"
            problems.append(Problem(("available_node_types",), "has no place with provider local", fix))
        return problems
    if "min_workers" in config:
        problems.append(unknown((), "min_workers", _ray_schema()["properties"].keys() - {"min_workers"}))
    types, head = mapping(config.get("available_node_types")), config.get("head_node_type")
    if not isinstance(head, str) or head not in types:
        fix = f"name one of available_node_types: {', '.join(map(str, types))}"
        problems.append(Problem(("head_node_type",), f"{shown(head)} is not among available_node_types", fix))
    return problems


def workers(config: Any) -> dict[str, Any]:
    """The node types that are not the head's."""
    types = mapping(at(config, "available_node_types"))
    return {name: mapping(each) for name, each in types.items() if name != at(config, "head_node_type")}


def node_configs(config: Any, *, head: bool = True) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Each node type's provider part, and where it stands."""
    for name, each in mapping(at(config, "available_node_types")).items():
        if head or name != at(config, "head_node_type"):
            yield ("available_node_types", name, "node_config"), mapping(at(each, "node_config"))


def commands(config: Any, *keys: str) -> Iterator[tuple[Path, str]]:
    """The shell commands under these keys (all by default), and where they stand."""
    for key in keys or COMMANDS:
        for index, command in enumerate(listed(at(config, key))):
            if isinstance(command, str):
                yield (key, index), command
