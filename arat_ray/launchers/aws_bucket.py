"""The bucket for results: encrypted, closed to all but the account, and with nothing that copies or deletes results."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from arat_ray.launchers.aws_account import TAGS, Aws, PreparationStep, Wanted, code_of, or_none, ours

PRIVATE = {
    "BlockPublicAcls": True,
    "IgnorePublicAcls": True,
    "BlockPublicPolicy": True,
    "RestrictPublicBuckets": True,
}
ENCRYPTED = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}, "BucketKeyEnabled": True}]}
OWNED = {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}


def steps(aws: Aws, wanted: Wanted, account: str) -> Iterator[PreparationStep]:
    """What makes the bucket, or puts right what was changed about it.

    What somebody else's policy or list lets in is taken out of a bucket that `prepare` made alone. Raises ValueError
    for another account's bucket, and for one that was not made here and lets others in.
    """
    name, s3 = wanted.bucket, aws.s3
    there = _is_there(aws, name, account)
    if not there:
        yield PreparationStep(f"make the bucket {name} in {wanted.region}", lambda: _make(aws, name, wanted.region))

    def has(code: str, call: Callable[..., Any]) -> Any:
        return or_none((code,), call, Bucket=name) if there else None

    public = has("NoSuchPublicAccessBlockConfiguration", s3.get_public_access_block)
    if not public or public["PublicAccessBlockConfiguration"] != PRIVATE:
        yield PreparationStep(
            f"block public access to {name}",
            lambda: s3.put_public_access_block(Bucket=name, PublicAccessBlockConfiguration=PRIVATE),
        )
    if there:
        yield from _closed(aws, name)
    owned = has("OwnershipControlsNotFoundError", s3.get_bucket_ownership_controls)
    if not owned or owned["OwnershipControls"] != OWNED:
        yield PreparationStep(
            f"give all that is in {name} to its owner, without lists of others",
            lambda: s3.put_bucket_ownership_controls(Bucket=name, OwnershipControls=OWNED),
        )
    encrypted = has("ServerSideEncryptionConfigurationNotFoundError", s3.get_bucket_encryption)
    if _algorithms(encrypted) != ["AES256"]:
        yield PreparationStep(
            f"encrypt what {name} holds",
            lambda: s3.put_bucket_encryption(Bucket=name, ServerSideEncryptionConfiguration=ENCRYPTED),
        )


def _is_there(aws: Aws, name: str, account: str) -> bool:
    from botocore.exceptions import ClientError

    try:
        asked = {"Bucket": name, "ExpectedBucketOwner": account}
        return or_none(("404", "NoSuchBucket"), aws.s3.head_bucket, **asked) is not None
    except ClientError as error:
        if code_of(error) != "403":
            raise
        raise ValueError(f"the bucket {name} belongs to somebody else; choose another name with --bucket") from error


def _make(aws: Aws, name: str, region: str) -> None:
    where = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    aws.s3.create_bucket(Bucket=name, **where)
    aws.s3.put_bucket_tagging(Bucket=name, Tagging={"TagSet": TAGS})


def _algorithms(encrypted: Any) -> list[str]:
    rules = encrypted["ServerSideEncryptionConfiguration"]["Rules"] if encrypted else []
    return [str(rule.get("ApplyServerSideEncryptionByDefault", {}).get("SSEAlgorithm")) for rule in rules]


def _closed(aws: Aws, name: str) -> Iterator[PreparationStep]:
    """What somebody opened, and what would copy the results elsewhere or delete them."""
    s3 = aws.s3
    tags = or_none(("NoSuchTagSet",), s3.get_bucket_tagging, Bucket=name)
    is_ours = tags is not None and ours(tags["TagSet"])
    open_to = []
    policy = or_none(("NoSuchBucketPolicy",), s3.get_bucket_policy, Bucket=name)
    statements = _listed(json.loads(policy["Policy"]).get("Statement")) if policy else []
    lets_in = [each for each in statements if each.get("Effect") != "Deny"]
    if lets_in:
        open_to.append(f"its policy lets in {', '.join(sorted({_whom(each) for each in lets_in}))}")
    acl = s3.get_bucket_acl(Bucket=name)
    others = [each["Grantee"] for each in acl["Grants"] if each["Grantee"].get("ID") != acl["Owner"]["ID"]]
    if others:
        named = sorted({str(each.get("URI") or each.get("ID") or each.get("EmailAddress")) for each in others})
        open_to.append(f"its list of grants lets in {', '.join(named)}")
    if open_to and not is_ours:
        raise ValueError(
            f"the bucket {name} was not made by `prepare`, and {'; '.join(open_to)}: take that out, or choose another "
            "--bucket"
        )
    if others:
        yield PreparationStep(f"close {name}: {open_to[-1]}", lambda: s3.put_bucket_acl(Bucket=name, ACL="private"))
    if lets_in:
        yield PreparationStep(
            f"close {name}: {open_to[0]}", lambda: _keep(aws, name, json.loads(policy["Policy"]), statements)
        )
    if is_ours:
        yield from _undisturbed(aws, name)


def _undisturbed(aws: Aws, name: str) -> Iterator[PreparationStep]:
    s3 = aws.s3
    rules = or_none(("NoSuchLifecycleConfiguration",), s3.get_bucket_lifecycle_configuration, Bucket=name)
    kept = {"ID", "Status", "Filter", "Prefix", "AbortIncompleteMultipartUpload"}
    if rules and any(rule.keys() - kept for rule in rules["Rules"]):
        yield PreparationStep(
            f"delete the lifecycle rules of {name}, which delete or move results",
            lambda: s3.delete_bucket_lifecycle(Bucket=name),
        )
    copies = or_none(("ReplicationConfigurationNotFoundError",), s3.get_bucket_replication, Bucket=name)
    if copies:
        found = copies["ReplicationConfiguration"]["Rules"]
        to = ", ".join(sorted({str(rule.get("Destination", {}).get("Bucket")) for rule in found}))
        yield PreparationStep(
            f"end the replication of {name}, which copies results to {to}",
            lambda: s3.delete_bucket_replication(Bucket=name),
        )


def _keep(aws: Aws, name: str, policy: dict[str, Any], statements: list[Any]) -> None:
    """The policy with nothing but what it forbids."""
    forbids = [each for each in statements if each.get("Effect") == "Deny"]
    if forbids:
        aws.s3.put_bucket_policy(Bucket=name, Policy=json.dumps(policy | {"Statement": forbids}))
    else:
        aws.s3.delete_bucket_policy(Bucket=name)


def _whom(statement: dict[str, Any]) -> str:
    whom = statement.get("Principal", statement.get("NotPrincipal"))
    word = whom if isinstance(whom, str) else json.dumps(whom)
    return f"all but {word}" if "NotPrincipal" in statement else word


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
