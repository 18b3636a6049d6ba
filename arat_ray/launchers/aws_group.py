"""The cluster's security group: SSH from one address, everything from itself, nothing else; all the way out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from arat_ray.launchers.aws_account import NAME, TAGS, Aws, PreparationStep

SOURCES = {
    "IpRanges": "CidrIp",
    "Ipv6Ranges": "CidrIpv6",
    "PrefixListIds": "PrefixListId",
    "UserIdGroupPairs": "GroupId",
}
"""Where EC2 keeps the sources of a rule, and what names one."""


class Door(NamedTuple):
    """One way in (or out): a protocol and ports, for one source."""

    protocol: str
    first: int | None
    last: int | None
    kind: str
    source: str

    def __str__(self) -> str:
        ports = "" if self.first is None else f" {self.first}" + (f"-{self.last}" if self.last != self.first else "")
        return f"{'everything' if self.protocol == '-1' else self.protocol + ports} from {self.source}"

    def permission(self, owner: str | None = None) -> dict[str, Any]:
        """As EC2 takes it; `owner` is the account of a source that is another account's group."""
        source = {SOURCES[self.kind]: self.source} | ({"UserId": owner} if owner else {})
        ports = {"FromPort": self.first, "ToPort": self.last}
        given = {key: port for key, port in ports.items() if port is not None}
        return {"IpProtocol": self.protocol, **given, self.kind: [source]}


def find_group(aws: Aws, vpc: str | None) -> Any:
    """Our security group (in any network where none is given), None where there is none."""
    filters = [{"Name": "group-name", "Values": [NAME]}]
    filters += [{"Name": "vpc-id", "Values": [vpc]}] if vpc else [{"Name": "tag:made-by", "Values": [NAME]}]
    return next(iter(aws.ec2.describe_security_groups(Filters=filters)["SecurityGroups"]), None)


def steps(aws: Aws, vpc: str, address: str, values: dict[str, str]) -> Iterator[PreparationStep]:
    """What makes the group, or closes and opens what it should; its identifier goes into the values."""
    group = find_group(aws, vpc)
    if group is None:
        yield PreparationStep(
            f"make the security group {NAME} in {vpc}: SSH from {address}, everything from itself",
            lambda: _make(aws, vpc, address, values),
        )
        return
    name = group["GroupId"]
    values["<your-security-group>"] = name
    there, wanted = dict(doors(group["IpPermissions"])), _wanted(address, name)
    if there.keys() != wanted:
        closed, opened = sorted(there.keys() - wanted, key=str), sorted(wanted - there.keys(), key=str)
        changes = [*(f"out with {door}" for door in closed), *(f"in with {door}" for door in opened)]
        yield PreparationStep(
            f"put right what the security group {name} lets in: {'; '.join(changes)}",
            lambda: _put_right(aws, name, opened, [door.permission(there[door]) for door in closed]),
        )
    out = Door("-1", None, None, "IpRanges", "0.0.0.0/0")
    if out not in dict(doors(group["IpPermissionsEgress"])):
        yield PreparationStep(
            f"let the nodes of the security group {name} reach the internet, which they install from",
            lambda: aws.ec2.authorize_security_group_egress(GroupId=name, IpPermissions=[out.permission()]),
        )


def doors(permissions: Iterable[Any]) -> Iterator[tuple[Door, str | None]]:
    """Each way that a group's permissions open, by whatever kind of source, and the account of another group."""
    for each in permissions:
        for kind, key in SOURCES.items():
            for source in each.get(kind, []):
                ports = (each.get("FromPort"), each.get("ToPort"))
                yield Door(each["IpProtocol"], *ports, kind, source[key]), source.get("UserId")


def _wanted(address: str, group: str) -> set[Door]:
    ssh = Door("tcp", 22, 22, "Ipv6Ranges" if ":" in address else "IpRanges", address)
    return {ssh, Door("-1", None, None, "UserIdGroupPairs", group)}


def _make(aws: Aws, vpc: str, address: str, values: dict[str, str]) -> None:
    made = aws.ec2.create_security_group(
        GroupName=NAME,
        Description="arat-ray: SSH from one address, all from itself",
        VpcId=vpc,
        TagSpecifications=[{"ResourceType": "security-group", "Tags": TAGS}],
    )
    _put_right(aws, made["GroupId"], sorted(_wanted(address, made["GroupId"]), key=str), [])
    values["<your-security-group>"] = made["GroupId"]


def _put_right(aws: Aws, group: str, opened: list[Door], closed: list[dict[str, Any]]) -> None:
    if closed:
        aws.ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=closed)
    if opened:
        permissions = [door.permission() for door in opened]
        aws.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=permissions)
