"""Roles and instance profiles of head and worker: trusted to EC2 alone, with the permissions of a file and no other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from arat_ray.launchers.aws_account import NAME, TAGS, Aws, PreparationStep, or_none
from arat_ray.launchers.document import PLACEHOLDER, documents, text_of
from arat_ray.launchers.problems import at, shown
from arat_ray.launchers.ray_up import node_configs

TYPES = "<your-worker-types>"
SPOT = "spot.amazonaws.com"
MISSING = ("NoSuchEntity",)


def policy(file: Path, name: str, values: dict[str, str]) -> Any:
    """One policy of the file, filled in; the types of machines become a list. Raises ValueError where there is none."""
    try:
        found = json.loads(text_of(file))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{file}: is not JSON: {error}") from error
    statements = at(found, name, "Statement")
    if not isinstance(statements, list) or not all(isinstance(each, dict) for each in statements):
        raise ValueError(f"{file}: {name}.Statement: {shown(statements)} is no list of statements, as IAM has them")
    filled = _filled(found[name], values)
    if left := set(PLACEHOLDER.findall(json.dumps(filled))) - {"<your-security-group>"}:  # which may be yet to be made
        raise ValueError(f"{file}: {name}: {min(left)} is nothing that `prepare` knows; write the value")
    return filled


def _filled(value: Any, values: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(each, values) for key, each in value.items()}
    if isinstance(value, list):
        return [_filled(each, values) for each in value]
    if value == TYPES and TYPES in values:
        return values[TYPES].split(",")
    return fill(value, values) if isinstance(value, str) else value


def fill(text: str, values: dict[str, str]) -> str:
    """The text with the placeholders replaced whose values are known."""
    return PLACEHOLDER.sub(lambda found: values.get(found[0], found[0]), text)


def worker_types(file: Path) -> str:
    """The types of the workers of a cluster file, comma-separated. Raises ValueError where it names none."""
    (config, *_) = [*(each.data for each in documents(file)), None]
    types = [(path, at(node, "InstanceType")) for path, node in node_configs(config, head=False)]
    for path, found in types:
        if not isinstance(found, str) or PLACEHOLDER.search(found):
            raise ValueError(f"{file}: {'.'.join(map(str, path))}.InstanceType: {found} is no type of machine")
    if not types:
        raise ValueError(f"{file}: available_node_types: no workers, so there is no type that the head may start")
    return ",".join(dict.fromkeys(found for _, found in types))


def steps(aws: Aws, kind: str, policies: Path, values: dict[str, str]) -> Iterator[PreparationStep]:
    """What makes one role and its profile, or takes out what was added and puts back what was changed."""
    name = f"{NAME}-{kind}"
    role = or_none(MISSING, aws.iam.get_role, RoleName=name)
    yield from _trust(aws, name, role, policy(policies, "trust", values))
    given = or_none(MISSING, aws.iam.get_role_policy, RoleName=name, PolicyName=NAME)
    wanted = policy(policies, kind, values)
    if given is None or given["PolicyDocument"] != wanted:
        yield PreparationStep(
            f"give {name} the permissions under {kind!r} of {policies}",
            lambda: aws.iam.put_role_policy(
                RoleName=name, PolicyName=NAME, PolicyDocument=json.dumps(policy(policies, kind, values))
            ),
        )
    if role is not None:
        yield from _extra(aws, name)
    yield from _profile(aws, name)


def _trust(aws: Aws, name: str, role: Any, wanted: Any) -> Iterator[PreparationStep]:
    trust = json.dumps(wanted)
    if role is None:
        yield PreparationStep(
            f"make the role {name}",
            lambda: aws.iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust, Tags=TAGS),
        )
    elif (found := role["Role"]["AssumeRolePolicyDocument"]) != wanted:
        yield PreparationStep(
            f"let EC2 alone take the role {name}, which now is for {_trusted(found)}",
            lambda: aws.iam.update_assume_role_policy(RoleName=name, PolicyDocument=trust),
        )


def _trusted(policy: Any) -> str:
    statements = policy.get("Statement", []) if isinstance(policy, dict) else []
    statements = statements if isinstance(statements, list) else [statements]
    return ", ".join(json.dumps(each.get("Principal", each.get("NotPrincipal"))) for each in statements) or "nobody"


def _extra(aws: Aws, name: str) -> Iterator[PreparationStep]:
    def delete(inline: str) -> PreparationStep:
        says = f"take the policy {inline} out of {name}, which is not of the file"
        return PreparationStep(says, lambda: aws.iam.delete_role_policy(RoleName=name, PolicyName=inline))

    def detach(arn: str) -> PreparationStep:
        says = f"detach the policy {arn} from {name}, which is not of the file"
        return PreparationStep(says, lambda: aws.iam.detach_role_policy(RoleName=name, PolicyArn=arn))

    yield from (delete(each) for each in inline_policies(aws, name) if each != NAME)
    yield from (detach(each) for each in attached_policies(aws, name))


def inline_policies(aws: Aws, role: str) -> list[str]:
    """The names of all policies that stand in a role."""
    pages = aws.iam.get_paginator("list_role_policies").paginate(RoleName=role)
    return [name for page in pages for name in page["PolicyNames"]]


def attached_policies(aws: Aws, role: str) -> list[str]:
    """The ARNs of all policies that are attached to a role."""
    pages = aws.iam.get_paginator("list_attached_role_policies").paginate(RoleName=role)
    return [each["PolicyArn"] for page in pages for each in page["AttachedPolicies"]]


def _profile(aws: Aws, name: str) -> Iterator[PreparationStep]:
    profile = or_none(MISSING, aws.iam.get_instance_profile, InstanceProfileName=name)
    if profile is None:
        yield PreparationStep(
            f"make the instance profile {name}",
            lambda: aws.iam.create_instance_profile(InstanceProfileName=name, Tags=TAGS),
        )
    inside = [role["RoleName"] for role in profile["InstanceProfile"]["Roles"]] if profile else []

    def put() -> None:
        for other in inside:
            aws.iam.remove_role_from_instance_profile(InstanceProfileName=name, RoleName=other)
        aws.iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)

    if inside != [name]:
        instead = f" in the place of {', '.join(inside)}" if inside else ""
        yield PreparationStep(f"put the role {name} into the instance profile{instead}", put)


def for_spot(aws: Aws) -> Iterator[PreparationStep]:
    """The service-linked role of the account, which outlives what is prepared here."""
    if not aws.iam.list_roles(PathPrefix=f"/aws-service-role/{SPOT}/")["Roles"]:
        yield PreparationStep(
            "make the service-linked role for spot machines, which the first one of an account needs",
            lambda: aws.iam.create_service_linked_role(AWSServiceName=SPOT),
        )
