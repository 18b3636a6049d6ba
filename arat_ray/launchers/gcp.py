"""Google Cloud: `node_config` against the discovery document of Compute Engine; what keeps nodes closed and cheap."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

from arat_ray.launchers.document import PLACEHOLDER
from arat_ray.launchers.problems import Path, Problem, Rule, Violation, apply, at, listed, values_by_name
from arat_ray.launchers.ray_up import node_configs
from arat_ray.launchers.schema import WORDS, folder_of, not_among, unknown, wrong_kind

KINDS: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "array": list,
    "object": dict,
}
LONG = ("int64", "uint64")
"""Formats of 64 bits, which JSON carries as text; a number is taken as well."""
RAY_READS = {"sourceInstanceTemplate"}
NEEDED = ("machineType", "disks")


@cache
def _schemas() -> dict[str, Any]:
    file = folder_of("googleapiclient") / "discovery_cache" / "documents" / "compute.v1.json"
    schemas: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))["schemas"]
    return schemas


def schema(config: dict[str, Any]) -> list[Problem]:
    """Where a node type breaks what Compute Engine takes.

    Raises ValueError where google-api-python-client is not installed.
    """
    problems: list[Problem] = []
    for path, node in node_configs(config):
        given = {key: value for key, value in node.items() if key not in RAY_READS}
        problems += [Problem((*path, key), "is missing", "add it") for key in NEEDED if key not in given]
        problems += _walk({"$ref": "Instance"}, given, path)
    return problems


def _walk(schema: dict[str, Any], value: Any, path: Path) -> Iterator[Problem]:
    """Keys, types and closed lists of values, as Compute Engine declares them."""
    schema = _schemas()[schema["$ref"]] if "$ref" in schema else schema
    if schema["type"] == "any" or (isinstance(value, str) and PLACEHOLDER.search(value)):
        return
    kind = schema["type"]
    of_kind = isinstance(value, KINDS[kind]) and (kind == "boolean" or not isinstance(value, bool))
    if not of_kind and not (schema.get("format") in LONG and type(value) is int):
        yield wrong_kind(path, value, WORDS[kind])
    elif kind == "object":
        known, others = schema.get("properties", {}), schema.get("additionalProperties")
        for key, each in value.items():
            if key in known or others:
                yield from _walk(known.get(key, others), each, (*path, key))
            else:
                yield unknown(path, key, known)
    elif kind == "array":
        for index, each in enumerate(value):
            yield from _walk(schema["items"], each, (*path, index))
    elif "enum" in schema and value not in schema["enum"]:
        yield not_among(path, value, schema["enum"])


def _own_network(config: Any) -> Iterator[Violation]:
    for path, node in node_configs(config):
        interfaces = listed(node.get("networkInterfaces"))
        if not interfaces:
            yield Violation((*path, "networkInterfaces"))
        for index, each in enumerate(interfaces):
            for key in ("network", "subnetwork"):
                if str(at(each, key)).rsplit("/", 1)[-1] == "default":
                    yield Violation((*path, "networkInterfaces", index, key), at(each, key))
            if at(each, "subnetwork") is None:
                yield Violation((*path, "networkInterfaces", index, "subnetwork"))


def _own_key(config: Any) -> Iterator[Violation]:
    if at(config, "auth", "ssh_private_key") is None:
        yield Violation(("auth", "ssh_private_key"))
    for path, node in node_configs(config):
        items = values_by_name(at(node, "metadata", "items"), name="key")
        if str(items.get("block-project-ssh-keys")).lower() != "true":
            yield Violation((*path, "metadata", "items"), items.get("block-project-ssh-keys"))


def _disks(config: Any) -> Iterator[Violation]:
    for path, node in node_configs(config):
        for index, disk in enumerate(listed(node.get("disks"))):
            if at(disk, "autoDelete") is not True:
                yield Violation((*path, "disks", index, "autoDelete"), at(disk, "autoDelete"))


def _worker_account(config: Any) -> Iterator[Violation]:
    for path, node in node_configs(config, head=False):
        accounts = listed(node.get("serviceAccounts"))
        if not accounts:
            yield Violation((*path, "serviceAccounts"))
        for index, account in enumerate(accounts):
            email, here = str(at(account, "email")), (*path, "serviceAccounts", index)
            if (
                email == "default"
                or email.endswith("-compute@developer.gserviceaccount.com")
                or "ray-autoscaler" in email
            ):
                yield Violation((*here, "email"), email)
            for scope in listed(at(account, "scopes")):
                if str(scope).endswith("/cloud-platform"):
                    yield Violation((*here, "scopes"), scope)


def _spot(config: Any) -> Iterator[Violation]:
    for path, node in node_configs(config, head=False):
        model = at(node, "scheduling", "provisioningModel")
        if model != "SPOT" and at(node, "scheduling", "preemptible") is not True:
            yield Violation((*path, "scheduling", "provisioningModel"), model)
        action = at(node, "scheduling", "instanceTerminationAction")
        if model == "SPOT" and action != "DELETE":
            yield Violation((*path, "scheduling", "instanceTerminationAction"), action)


RULES = (
    Rule(
        "own-network",
        "the network `default` opens SSH to the world and all ports to the project's other machines",
        "write networkInterfaces: [{subnetwork: regions/<region>/subnetworks/arat-ray, ...}]; "
        "the head of clusters/gcp.yaml says how to make it",
        _own_network,
    ),
    Rule(
        "own-key",
        "keys of the whole project would open the nodes",
        "write auth.ssh_private_key, and block-project-ssh-keys: true beside ssh-keys under metadata.items",
        _own_key,
    ),
    Rule("disk-ends", "disks that outlive their machines go on costing", "write autoDelete: true", _disks),
    Rule(
        "own-worker-account",
        "the default account may edit the whole project, and Ray's may start machines; one of its own has no role",
        "write serviceAccounts: [{email: arat-ray-worker@<project>.iam.gserviceaccount.com, "
        "scopes: [.../devstorage.read_write]}]",
        _worker_account,
    ),
    Rule(
        "spot-workers",
        "on-demand GPUs cost about two to three times as much, and trials survive the loss of a node",
        "write scheduling: {provisioningModel: SPOT, instanceTerminationAction: DELETE, automaticRestart: false, "
        "onHostMaintenance: TERMINATE}",
        _spot,
    ),
)


def rules(config: dict[str, Any]) -> list[Problem]:
    """The defaults for Google Cloud that the file breaks."""
    return apply(RULES, config)
