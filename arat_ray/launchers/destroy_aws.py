"""`arat-ray cluster prepare aws --destroy`: what was prepared, taken away again; never a bucket that holds anything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from arat_ray.launchers.aws_account import NAME, ROLES, Aws, PreparationStep, or_none, ours
from arat_ray.launchers.aws_group import find_group
from arat_ray.launchers.aws_roles import attached_policies, inline_policies

ALIVE = ["pending", "running", "stopping", "stopped", "shutting-down"]


def plan(aws: Aws, *, bucket: str | None, key: Path, vpc: str | None) -> tuple[list[PreparationStep], list[str]]:
    """The steps, and what is kept and why. The service-linked role stays: it is the account's.

    Raises ValueError while machines of the cluster exist.
    """
    tagged = [{"Name": "tag:ray-cluster-name", "Values": [NAME]}, {"Name": "instance-state-name", "Values": ALIVE}]
    machines = [
        each["InstanceId"]
        for reservation in aws.ec2.describe_instances(Filters=tagged)["Reservations"]
        for each in reservation["Instances"]
    ]
    if machines:
        raise ValueError(
            f"machines of the cluster are still there ({', '.join(machines)}); first: ray down clusters/aws.yaml"
        )
    kept: list[str] = []
    steps = [step for kind in ROLES for step in _role(aws, f"{NAME}-{kind}", kept)]
    group = find_group(aws, vpc)
    if group is not None and ours(group.get("Tags")):
        steps.append(
            PreparationStep(
                f"delete the security group {group['GroupId']}",
                lambda: aws.ec2.delete_security_group(GroupId=group["GroupId"]),
            )
        )
    elif group is not None:
        kept.append(f"the security group {group['GroupId']}: it was not made by `prepare`")
    steps += _key(aws, key)
    if bucket is not None:
        steps += _bucket(aws, bucket, kept)
    return steps, kept


def _role(aws: Aws, name: str, kept: list[str]) -> Iterator[PreparationStep]:
    missing = ("NoSuchEntity",)
    role = or_none(missing, aws.iam.get_role, RoleName=name)
    profile = or_none(missing, aws.iam.get_instance_profile, InstanceProfileName=name)
    if role is not None and not ours(role["Role"].get("Tags")):
        kept.append(f"the role {name}: it was not made by `prepare`")
        return

    def delete_profile() -> None:
        for inside in profile["InstanceProfile"]["Roles"]:
            aws.iam.remove_role_from_instance_profile(InstanceProfileName=name, RoleName=inside["RoleName"])
        aws.iam.delete_instance_profile(InstanceProfileName=name)

    def delete_role() -> None:
        for policy in inline_policies(aws, name):
            aws.iam.delete_role_policy(RoleName=name, PolicyName=policy)
        for policy in attached_policies(aws, name):
            aws.iam.detach_role_policy(RoleName=name, PolicyArn=policy)
        aws.iam.delete_role(RoleName=name)

    if profile is not None:
        yield PreparationStep(f"delete the instance profile {name}", delete_profile)
    if role is not None:
        yield PreparationStep(f"delete the role {name} and its permissions", delete_role)


def _key(aws: Aws, file: Path) -> Iterator[PreparationStep]:
    found = or_none(("InvalidKeyPair.NotFound",), aws.ec2.describe_key_pairs, KeyNames=[NAME])
    if found is not None:
        yield PreparationStep(f"delete the key pair {NAME}", lambda: aws.ec2.delete_key_pair(KeyName=NAME))
        if file.exists():
            yield PreparationStep(f"delete its private half, {file}", file.unlink)


def _bucket(aws: Aws, name: str, kept: list[str]) -> Iterator[PreparationStep]:
    missing = ("404", "NoSuchBucket", "NoSuchTagSet")
    if or_none(missing, aws.s3.head_bucket, Bucket=name) is None:
        return
    tags = or_none(missing, aws.s3.get_bucket_tagging, Bucket=name)
    if tags is None or not ours(tags["TagSet"]):
        kept.append(f"the bucket {name}: it was not made by `prepare`")
    elif aws.s3.list_objects_v2(Bucket=name, MaxKeys=1).get("KeyCount") or _versions(aws, name):
        kept.append(f"the bucket {name}: it holds objects; delete them yourself where you do not want them")
    else:
        yield PreparationStep(f"delete the bucket {name}, which is empty", lambda: aws.s3.delete_bucket(Bucket=name))


def _versions(aws: Aws, name: str) -> bool:
    found = aws.s3.list_object_versions(Bucket=name, MaxKeys=1)
    return bool(found.get("Versions") or found.get("DeleteMarkers"))
