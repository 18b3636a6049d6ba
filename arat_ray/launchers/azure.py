"""Azure: `azure_arm_parameters` against the template that ships in Ray, and what keeps the nodes closed and cheap."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

from arat_ray.launchers.document import PLACEHOLDER
from arat_ray.launchers.problems import Problem, Rule, Violation, apply, at, mapping
from arat_ray.launchers.ray_up import node_configs
from arat_ray.launchers.schema import folder_of, not_among, unknown, wrong_kind

KINDS: dict[str, tuple[type | tuple[type, ...], str]] = {
    "string": (str, "text"),
    "int": (int, "a whole number"),
    "bool": (bool, "true or false"),
    "object": (dict, "a mapping"),
    "array": (list, "a list"),
}
RAY_SETS = {
    "vmName", "vmTags", "vmCount", "provisionPublicIp", "msi", "nsg", "subnet", "zones", "adminUsername", "publicKey",
}  # fmt: skip
"""Parameters of the template that Ray fills in itself."""
CLOSED = {"priority": ["Regular", "Spot", "Low"], "evictionPolicy": ["Delete", "Deallocate"]}
ALLOWED = {"azure_arm_parameters", "tags"}
NEEDED = ("vmSize",)


@cache
def _parameters() -> dict[str, str]:
    """The parameters of Ray's template for a machine, and their types."""
    file = folder_of("ray") / "autoscaler" / "_private" / "_azure" / "azure-vm-template.json"
    template = json.loads(file.read_text(encoding="utf-8"))["parameters"]
    given = {name: each["type"] for name, each in template.items() if name not in RAY_SETS}
    return given | {"availability_zone": "string"}  # Ray's own word, which it turns into `zones`


def schema(config: dict[str, Any]) -> list[Problem]:
    """Where a node type gives Ray's template what it has no parameter for."""
    problems: list[Problem] = []
    for path, node in node_configs(config):
        problems += [unknown(path, key, ALLOWED) for key in node if key not in ALLOWED]
        given, here = mapping(node.get("azure_arm_parameters")), (*path, "azure_arm_parameters")
        problems += [Problem((*here, key), "is missing", "add it") for key in NEEDED if key not in given]
        for key, value in given.items():
            if key not in _parameters():
                problems.append(unknown(here, key, _parameters()))
                continue
            kind, word = KINDS[_parameters()[key]]
            if isinstance(value, str) and PLACEHOLDER.search(value):
                continue
            if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
                problems.append(wrong_kind((*here, key), value, word))
            elif key in CLOSED and value not in CLOSED[key]:
                problems.append(not_among((*here, key), value, CLOSED[key]))
    return problems


def _private(config: Any) -> Iterator[Violation]:
    if at(config, "provider", "use_internal_ips") is not True:
        yield Violation(("provider", "use_internal_ips"), at(config, "provider", "use_internal_ips"))
    if at(config, "provider", "use_external_head_ip"):
        yield Violation(("provider", "use_external_head_ip"), True)


def _spot(config: Any) -> Iterator[Violation]:
    for path, node in node_configs(config, head=False):
        for key, wanted in (("priority", "Spot"), ("evictionPolicy", "Delete")):
            if (value := at(node, "azure_arm_parameters", key)) != wanted:
                yield Violation((*path, "azure_arm_parameters", key), value)


RULES = (
    Rule(
        "no-public-address",
        "Ray's security group opens SSH to the world, so no node may have a public address",
        "write use_internal_ips: true, without use_external_head_ip, and reach the head through a jump host or VPN",
        _private,
    ),
    Rule(
        "spot-workers",
        "on-demand GPUs cost about two to three times as much, and trials survive the loss of a node",
        "write priority: Spot and evictionPolicy: Delete",
        _spot,
    ),
)


def rules(config: dict[str, Any]) -> list[Problem]:
    """The defaults for Azure that the file breaks."""
    return apply(RULES, config)
