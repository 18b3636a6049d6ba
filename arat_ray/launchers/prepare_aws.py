"""`arat-ray cluster prepare aws`: what clusters/aws.yaml needs in an account, said first, then made, once.

A plan is a list of steps, each with what it would do; what is there already as it should be has no step, so a plan made
again after it was carried out is empty, and one that is empty says that nothing was changed since.
"""

from __future__ import annotations

import ipaddress

from arat_ray.launchers import aws_bucket, aws_group, aws_key, aws_roles
from arat_ray.launchers.aws_account import ROLES, Aws, PreparationStep, Wanted, connect
from arat_ray.launchers.aws_roles import fill

__all__ = ["Aws", "PreparationStep", "Wanted", "connect", "fill", "one_address", "plan"]


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


def plan(aws: Aws, wanted: Wanted) -> tuple[list[PreparationStep], dict[str, str]]:
    """The steps that are missing, and what goes in the place of the placeholders.

    The identifier of a security group that is yet to be made appears among the values when its step has run.
    """
    account = aws.sts.get_caller_identity()["Account"]
    address = one_address(wanted.ssh_from)
    values = {
        "<your-region>": wanted.region,
        "<your-account>": account,
        "<your-bucket>": wanted.bucket,
        "<your-address>": address.partition("/")[0],
        aws_roles.TYPES: aws_roles.worker_types(wanted.cluster or wanted.policies.with_name("aws.yaml")),
    }
    vpc = wanted.vpc or _default_vpc(aws)
    subnets = aws.ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["Subnets"]
    if not subnets:
        raise ValueError(f"the network {vpc} has no subnets in {wanted.region}; name another one with --vpc")
    subnets.sort(key=lambda each: each["AvailabilityZone"])
    values["<your-subnet>"] = ", ".join(each["SubnetId"] for each in subnets)
    values["<your-zones>"] = ",".join(dict.fromkeys(each["AvailabilityZone"] for each in subnets))
    steps = [*aws_group.steps(aws, vpc, address, values), *aws_key.steps(aws, wanted.key)]
    steps += aws_bucket.steps(aws, wanted, account)
    for role in ROLES:
        steps += aws_roles.steps(aws, role, wanted.policies, values)
    return [*steps, *aws_roles.for_spot(aws)], values


def _default_vpc(aws: Aws) -> str:
    found = aws.ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    if not found:
        raise ValueError("the account has no default network in this region; name one with --vpc")
    return str(found[0]["VpcId"])
