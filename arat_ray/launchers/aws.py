"""AWS: `node_config` against botocore's model of RunInstances, and what keeps the nodes closed and cheap."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from arat_ray.launchers.document import PLACEHOLDER
from arat_ray.launchers.problems import Path, Problem, Rule, Violation, apply, at, listed, mapping
from arat_ray.launchers.ray_up import node_configs
from arat_ray.launchers.schema import folder_of, not_among, unknown, wrong_kind

if TYPE_CHECKING:
    from botocore.model import Shape

KINDS: dict[str, tuple[type | tuple[type, ...], str]] = {
    "string": (str, "text"),
    "boolean": (bool, "true or false"),
    "integer": (int, "a whole number"),
    "long": (int, "a whole number"),
    "double": ((int, float), "a number"),
    "float": ((int, float), "a number"),
    "structure": (dict, "a mapping"),
    "map": (dict, "a mapping"),
    "list": (list, "a list"),
}
"""botocore's types: what YAML gives, and the word for it."""
NEEDED = ("InstanceType", "ImageId", "KeyName", "SubnetIds")
RAY_SETS = {"MinCount", "MaxCount", "SubnetId"}


@cache
def _run_instances() -> Shape:
    folder_of("botocore")
    from botocore.session import get_session

    shape = get_session().get_service_model("ec2").operation_model("RunInstances").input_shape
    assert shape is not None
    return shape


def schema(config: dict[str, Any]) -> list[Problem]:
    """Where a node type breaks what EC2 takes. Raises ValueError where botocore is not installed."""
    problems: list[Problem] = []
    members = _run_instances().members
    for path, node in node_configs(config):
        problems += [Problem((*path, key), "is missing", "add it") for key in NEEDED if key not in node]
        for key, value in node.items():
            if key == "SubnetIds":  # Ray's own word: it tries one after the other
                if not isinstance(value, list):
                    problems.append(wrong_kind((*path, key), value, "a list"))
                problems += [
                    wrong_kind((*path, key, index), each, "text")
                    for index, each in enumerate(listed(value))
                    if not isinstance(each, str)
                ]
            elif key not in members or key in RAY_SETS:
                problems.append(unknown(path, key, (members.keys() | {"SubnetIds"}) - RAY_SETS))
            else:
                problems += _walk(members[key], value, (*path, key))
    return problems


def _walk(shape: Any, value: Any, path: Path) -> Iterator[Problem]:
    """Keys, types and closed lists of values, as EC2 declares them."""
    if isinstance(value, str) and PLACEHOLDER.search(value):
        return
    kind: Any
    kind, word = KINDS.get(shape.type_name, (object, ""))
    if not isinstance(value, kind) or (isinstance(value, bool) and shape.type_name != "boolean"):
        yield wrong_kind(path, value, word)
    elif shape.type_name == "structure":
        for key, each in value.items():
            if key in shape.members:
                yield from _walk(shape.members[key], each, (*path, key))
            else:
                yield unknown(path, key, shape.members)
        yield from (Problem((*path, key), "is missing", "add it") for key in shape.required_members if key not in value)
    elif shape.type_name == "list":
        for index, each in enumerate(value):
            yield from _walk(shape.member, each, (*path, index))
    elif getattr(shape, "enum", None) and value not in shape.enum:
        yield not_among(path, value, shape.enum)


def _own_group(config: Any) -> Iterator[Violation]:
    for path, node in node_configs(config):
        if not listed(node.get("SecurityGroupIds")):
            yield Violation((*path, "SecurityGroupIds"), node.get("SecurityGroupIds"))
    rules = listed(at(config, "provider", "security_group", "IpPermissions"))
    for index, rule in enumerate(rules):
        for address in listed(at(rule, "IpRanges")) + listed(at(rule, "Ipv6Ranges")):
            everyone = at(address, "CidrIp") or at(address, "CidrIpv6")
            if everyone in ("0.0.0.0/0", "::/0"):
                yield Violation(("provider", "security_group", "IpPermissions", index), everyone)


def _metadata(config: Any) -> Iterator[Violation]:
    for path, node in node_configs(config):
        options = mapping(node.get("MetadataOptions"))
        for key, wanted in (("HttpTokens", "required"), ("HttpPutResponseHopLimit", 1)):
            if options.get(key) != wanted:
                yield Violation((*path, "MetadataOptions", key), options.get(key))


def _disks(config: Any) -> Iterator[Violation]:
    for path, node in node_configs(config):
        disks = listed(node.get("BlockDeviceMappings"))
        if not disks:
            yield Violation((*path, "BlockDeviceMappings"))
        for index in range(len(disks)):
            for key, wanted in (("Encrypted", True), ("VolumeType", "gp3"), ("DeleteOnTermination", True)):
                if (value := at(disks, index, "Ebs", key)) != wanted:
                    yield Violation((*path, "BlockDeviceMappings", index, "Ebs", key), value)


def _profiles(config: Any) -> Iterator[Violation]:
    def name(node: dict[str, Any]) -> Any:
        return at(node, "IamInstanceProfile", "Name") or at(node, "IamInstanceProfile", "Arn")

    heads = [name(node) for path, node in node_configs(config) if path[1] == at(config, "head_node_type")]
    for path, node in node_configs(config):
        mine = name(node)
        if mine is None or (path[1] != at(config, "head_node_type") and mine in heads):
            yield Violation((*path, "IamInstanceProfile"), mine)


def _spot(config: Any) -> Iterator[Violation]:
    for path, node in node_configs(config, head=False):
        market = at(node, "InstanceMarketOptions", "MarketType")
        if market != "spot":
            yield Violation((*path, "InstanceMarketOptions", "MarketType"), market)


RULES = (
    Rule(
        "own-security-group",
        "Ray's own group opens SSH to the world",
        "write SecurityGroupIds: [...], the group of `arat-ray cluster prepare aws` (SSH from one address only)",
        _own_group,
    ),
    Rule(
        "imds-v2",
        "a request forged through a program on the node could read the role's keys",
        "write MetadataOptions: {HttpEndpoint: enabled, HttpTokens: required, HttpPutResponseHopLimit: 1}",
        _metadata,
    ),
    Rule(
        "encrypted-disk",
        "data sets, checkpoints and the token lie on the disk, which must end with its machine",
        "write Ebs: {VolumeSize: 100, VolumeType: gp3, Encrypted: true, DeleteOnTermination: true}",
        _disks,
    ),
    Rule(
        "own-instance-profile",
        "without one the head gets full access to EC2 and S3 from Ray, and workers cannot reach S3; "
        "workers must not have the head's, which may start machines",
        "write IamInstanceProfile: {Name: arat-ray-head} for the head and {Name: arat-ray-worker} for workers",
        _profiles,
    ),
    Rule(
        "spot-workers",
        "on-demand GPUs cost about two to three times as much, and trials survive the loss of a node",
        "write InstanceMarketOptions: {MarketType: spot}",
        _spot,
    ),
)


def rules(config: dict[str, Any]) -> list[Problem]:
    """The defaults for AWS that the file breaks."""
    return apply(RULES, config)
