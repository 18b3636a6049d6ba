"""`arat-ray cluster prepare aws`: what clusters/aws.yaml needs in an account, said first, then made, once.

A plan is a list of steps, each with what it would do; what is there already as it should be has no step, so a plan made
again after it was carried out is empty.
"""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from arat_ray.launchers.document import PLACEHOLDER, text_of
from arat_ray.launchers.schema import folder_of

NAME = "arat-ray"
"""Of the security group, the key pair and the cluster; roles and profiles are arat-ray-head and arat-ray-worker."""
TAGS = [{"Key": "made-by", "Value": NAME}]
ROLES = ("head", "worker")
SPOT = "spot.amazonaws.com"
PRIVATE = {
    "BlockPublicAcls": True,
    "IgnorePublicAcls": True,
    "BlockPublicPolicy": True,
    "RestrictPublicBuckets": True,
}
ENCRYPTED = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}, "BucketKeyEnabled": True}]}


class Step(NamedTuple):
    """One change: what it does, in words, and the act."""

    says: str
    act: Callable[[], None]


class Wanted(NamedTuple):
    """What to prepare: where, for whom, and from which files."""

    region: str
    bucket: str
    ssh_from: str
    key: Path
    policies: Path
    vpc: str | None = None


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


def one_address(text: str) -> str:
    """An address as its /32 (or /128). Raises ValueError for a network of more than one address."""
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f"--ssh-from {text!r} is no address; write your own, such as 203.0.113.7/32") from error
    if network.num_addresses > 1:
        raise ValueError(
            f"--ssh-from {text!r} lets {network.num_addresses} addresses in; give one, such as 203.0.113.7/32"
        )
    return str(network)


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


def plan(aws: Aws, wanted: Wanted) -> tuple[list[Step], dict[str, str]]:
    """The steps that are missing, and what goes in the place of the placeholders.

    The identifier of a security group that is yet to be made appears among the values when its step has run.
    """
    values = {
        "<your-region>": wanted.region,
        "<your-account>": aws.sts.get_caller_identity()["Account"],
        "<your-bucket>": wanted.bucket,
        "<your-address>": one_address(wanted.ssh_from).partition("/")[0],
    }
    vpc = wanted.vpc or _default_vpc(aws)
    subnets = aws.ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["Subnets"]
    if not subnets:
        raise ValueError(f"the network {vpc} has no subnets in {wanted.region}; name another one with --vpc")
    subnets.sort(key=lambda each: each["AvailabilityZone"])
    values["<your-subnet>"] = ", ".join(each["SubnetId"] for each in subnets)
    values["<your-zones>"] = ",".join(dict.fromkeys(each["AvailabilityZone"] for each in subnets))
    steps = [*_group(aws, vpc, one_address(wanted.ssh_from), values), *_key(aws, wanted.key), *_bucket(aws, wanted)]
    for role in ROLES:
        steps += _role(aws, role, wanted.policies, values)
    if not aws.iam.list_roles(PathPrefix=f"/aws-service-role/{SPOT}/")["Roles"]:
        steps.append(
            Step(
                "make the service-linked role for spot machines, which the first one of an account needs",
                lambda: aws.iam.create_service_linked_role(AWSServiceName=SPOT),
            )
        )
    return steps, values


def _default_vpc(aws: Aws) -> str:
    found = aws.ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    if not found:
        raise ValueError("the account has no default network in this region; name one with --vpc")
    return str(found[0]["VpcId"])


def find_group(aws: Aws, vpc: str | None) -> Any:
    """Our security group (in any network where none is given), None where there is none."""
    filters = [{"Name": "group-name", "Values": [NAME]}]
    filters += [{"Name": "vpc-id", "Values": [vpc]}] if vpc else [{"Name": "tag:made-by", "Values": [NAME]}]
    return next(iter(aws.ec2.describe_security_groups(Filters=filters)["SecurityGroups"]), None)


def _group(aws: Aws, vpc: str, address: str, values: dict[str, str]) -> Iterator[Step]:
    group = find_group(aws, vpc)
    key = "CidrIpv6" if ":" in address else "CidrIp"
    ssh = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, f"{key.replace('Cidr', '')}Ranges": [{key: address}]}

    def let_in(group_id: str) -> None:
        inside = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group_id}]}
        aws.ec2.authorize_security_group_ingress(GroupId=group_id, IpPermissions=[ssh, inside])
        values["<your-security-group>"] = group_id

    def make() -> None:
        tags = [{"ResourceType": "security-group", "Tags": TAGS}]
        made = aws.ec2.create_security_group(
            GroupName=NAME,
            Description="arat-ray: SSH from one address, all from itself",
            VpcId=vpc,
            TagSpecifications=tags,
        )
        let_in(made["GroupId"])

    def replace() -> None:
        if group["IpPermissions"]:
            aws.ec2.revoke_security_group_ingress(GroupId=group["GroupId"], IpPermissions=group["IpPermissions"])
        let_in(group["GroupId"])

    if group is None:
        yield Step(f"make the security group {NAME} in {vpc}: SSH from {address}, everything from itself", make)
        return
    values["<your-security-group>"] = group["GroupId"]
    if not _lets_in_only(group, address):
        says = f"replace what the security group {group['GroupId']} lets in: SSH from {address}, everything from itself"
        yield Step(says, replace)


def _lets_in_only(group: Any, address: str) -> bool:
    found: set[tuple[Any, ...]] = set()
    for rule in group["IpPermissions"]:
        ports = (rule["IpProtocol"], rule.get("FromPort"), rule.get("ToPort"))
        found |= {(*ports, each["CidrIp"]) for each in rule.get("IpRanges", [])}
        found |= {(*ports, each["CidrIpv6"]) for each in rule.get("Ipv6Ranges", [])}
        found |= {(rule["IpProtocol"], each["GroupId"]) for each in rule.get("UserIdGroupPairs", [])}
    return found == {("tcp", 22, 22, address), ("-1", group["GroupId"])}


def _key(aws: Aws, file: Path) -> Iterator[Step]:
    there = or_none(("InvalidKeyPair.NotFound",), aws.ec2.describe_key_pairs, KeyNames=[NAME]) is not None

    def make() -> None:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)  # before AWS makes what it shows once
        with ExitStack() as refused:
            refused.callback(file.unlink)
            with os.fdopen(descriptor, "w") as handle:
                tags = [{"ResourceType": "key-pair", "Tags": TAGS}]
                made = aws.ec2.create_key_pair(KeyName=NAME, KeyType="ed25519", TagSpecifications=tags)
                handle.write(made["KeyMaterial"])
            refused.pop_all()

    if there and not file.exists():
        raise ValueError(f"AWS has the key pair {NAME}, but {file} is not here: bring it, or begin anew with --destroy")
    if file.exists() and not there:
        raise ValueError(f"{file} is here, but AWS has no key pair {NAME}: move the file away, or choose another --key")
    if not there:
        yield Step(f"make the key pair {NAME}; its private half goes to {file}, readable for you alone", make)


def _bucket(aws: Aws, wanted: Wanted) -> Iterator[Step]:
    name = wanted.bucket
    from botocore.exceptions import ClientError

    try:
        there = or_none(("404", "NoSuchBucket"), aws.s3.head_bucket, Bucket=name) is not None
    except ClientError as error:
        if code_of(error) != "403":
            raise
        raise ValueError(f"the bucket {name} belongs to somebody else; choose another name with --bucket") from error
    if not there:
        where = {} if wanted.region == "us-east-1" else {"LocationConstraint": wanted.region}

        def make() -> None:
            aws.s3.create_bucket(Bucket=name, **({"CreateBucketConfiguration": where} if where else {}))
            aws.s3.put_bucket_tagging(Bucket=name, Tagging={"TagSet": TAGS})

        yield Step(f"make the bucket {name} in {wanted.region}", make)
    public = there and or_none(("NoSuchPublicAccessBlockConfiguration",), aws.s3.get_public_access_block, Bucket=name)
    if not public or public["PublicAccessBlockConfiguration"] != PRIVATE:
        yield Step(
            f"block public access to {name}",
            lambda: aws.s3.put_public_access_block(Bucket=name, PublicAccessBlockConfiguration=PRIVATE),
        )
    missing = ("ServerSideEncryptionConfigurationNotFoundError",)
    if not there or or_none(missing, aws.s3.get_bucket_encryption, Bucket=name) is None:
        yield Step(
            f"encrypt what {name} holds",
            lambda: aws.s3.put_bucket_encryption(Bucket=name, ServerSideEncryptionConfiguration=ENCRYPTED),
        )


def _policy(file: Path, name: str, values: dict[str, str]) -> Any:
    try:
        return json.loads(fill(text_of(file), values))[name]
    except (json.JSONDecodeError, KeyError) as error:
        raise ValueError(f"{file}: is not a file of policies with trust, head and worker: {error}") from error


def _role(aws: Aws, kind: str, policies: Path, values: dict[str, str]) -> Iterator[Step]:
    name, missing = f"{NAME}-{kind}", ("NoSuchEntity",)
    trust = json.dumps(_policy(policies, "trust", values))

    def give() -> None:
        document = json.dumps(_policy(policies, kind, values))
        aws.iam.put_role_policy(RoleName=name, PolicyName=NAME, PolicyDocument=document)

    def make() -> None:
        aws.iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust, Tags=TAGS)

    if or_none(missing, aws.iam.get_role, RoleName=name) is None:
        yield Step(f"make the role {name}", make)
    given = or_none(missing, aws.iam.get_role_policy, RoleName=name, PolicyName=NAME)
    wanted = _policy(policies, kind, values)
    if given is None or given["PolicyDocument"] != wanted:
        yield Step(f"give {name} the permissions under {kind!r} of {policies}", give)
    profile = or_none(missing, aws.iam.get_instance_profile, InstanceProfileName=name)
    if profile is None:
        yield Step(
            f"make the instance profile {name}",
            lambda: aws.iam.create_instance_profile(InstanceProfileName=name, Tags=TAGS),
        )
    if profile is None or not profile["InstanceProfile"]["Roles"]:
        yield Step(
            f"put the role {name} into the instance profile",
            lambda: aws.iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name),
        )


def fill(text: str, values: dict[str, str]) -> str:
    """The text with the placeholders replaced whose values are known."""
    return PLACEHOLDER.sub(lambda found: values.get(found[0], found[0]), text)
