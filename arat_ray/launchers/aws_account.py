"""What `arat-ray cluster prepare aws` speaks with and of: clients, what is wanted, and steps that say what they do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from arat_ray.launchers.schema import folder_of

NAME = "arat-ray"
"""Of the security group, the key pair and the cluster; roles and profiles are arat-ray-head and arat-ray-worker."""
TAGS = [{"Key": "made-by", "Value": NAME}]
ROLES = ("head", "worker")


class PreparationStep(NamedTuple):
    """One change: what it does, in words, and the act."""

    says: str
    act: Callable[[], object]


class Wanted(NamedTuple):
    """What to prepare: where, for whom, and from which files."""

    region: str
    bucket: str
    ssh_from: str
    key: Path
    policies: Path
    vpc: str | None = None
    cluster: Path | None = None
    """The cluster file, whose machines the head may start; aws.yaml beside the policies where none is named."""


class Aws(NamedTuple):
    """boto3's clients of one region."""

    ec2: Any
    iam: Any
    s3: Any
    sts: Any


def connect(region: str) -> Aws:
    """Clients with the credentials of the environment. Raises ValueError where boto3 is not installed."""
    folder_of("boto3")
    import boto3

    session = boto3.Session(region_name=region)
    return Aws(*(session.client(name) for name in ("ec2", "iam", "s3", "sts")))


def ours(tags: object) -> bool:
    """Whether `prepare` made what carries these tags."""
    return isinstance(tags, list) and TAGS[0] in tags


def code_of(error: Exception) -> str:
    """AWS' code of a refused call, such as NoSuchEntity."""
    return str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))


def or_none(missing: tuple[str, ...], call: Callable[..., Any], **arguments: Any) -> Any:
    """The answer of a call, None where AWS says with one of these codes that there is no such thing."""
    from botocore.exceptions import ClientError

    try:
        return call(**arguments)
    except ClientError as error:
        if code_of(error) in missing:
            return None
        raise
