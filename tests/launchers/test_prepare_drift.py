"""What somebody changed about a prepared account is seen, said, and put right; against moto's account."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_private_key
from moto import mock_aws

from arat_ray.launchers import destroy_aws
from arat_ray.launchers.aws_account import Aws, Wanted, connect
from arat_ray.launchers.prepare_aws import plan
from tests.launchers.filled import CLUSTERS

REGION, BUCKET, ACCOUNT = "us-west-2", "lab-results", "123456789012"


class Account(NamedTuple):
    """A prepared account, and what it was prepared for."""

    aws: Aws
    wanted: Wanted

    @property
    def group(self) -> str:
        (found,) = self.aws.ec2.describe_security_groups(Filters=[{"Name": "group-name", "Values": ["arat-ray"]}])[
            "SecurityGroups"
        ]
        return str(found["GroupId"])

    def plan(self) -> list[str]:
        return [step.says for step in plan(self.aws, self.wanted)[0]]

    def let_in(self, **rule: Any) -> None:
        self.aws.ec2.authorize_security_group_ingress(GroupId=self.group, IpPermissions=[rule])

    def trust(self, kind: str, **statement: Any) -> None:
        policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole"} | statement]}
        self.aws.iam.update_assume_role_policy(RoleName=f"arat-ray-{kind}", PolicyDocument=json.dumps(policy))

    def bucket_policy(self, *statements: dict[str, Any]) -> None:
        given = [{"Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{BUCKET}/*"} | each for each in statements]
        policy = {"Version": "2012-10-17", "Statement": given}
        with self.unblocked():
            self.aws.s3.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps(policy))

    def acl(self, name: str) -> None:
        with self.unblocked():
            self.aws.s3.put_bucket_acl(Bucket=BUCKET, ACL=name)

    @contextmanager
    def unblocked(self) -> Iterator[None]:
        """What is done behind the back of the block on public access, which is there again afterwards."""
        block = self.aws.s3.get_public_access_block(Bucket=BUCKET)["PublicAccessBlockConfiguration"]
        self.aws.s3.delete_public_access_block(Bucket=BUCKET)
        yield
        self.aws.s3.put_public_access_block(Bucket=BUCKET, PublicAccessBlockConfiguration=block)


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    """Each test leaves it as it was, by what it tests."""
    key = tmp_path_factory.mktemp("keys") / "arat-ray.pem"
    with pytest.MonkeyPatch.context() as patch, mock_aws():
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
            patch.setenv(name, "testing")
        for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL"):
            patch.delenv(name, raising=False)
        made = Account(connect(REGION), Wanted(REGION, BUCKET, "203.0.113.7/32", key, CLUSTERS / "aws-iam.json"))
        for step in plan(*made)[0]:
            step.act()
        yield made


def everybodys_policy(account: Account) -> None:
    account.bucket_policy({"Effect": "Allow", "Principal": "*"})


def another_fingerprint(account: Account) -> None:
    account.aws.ec2.delete_key_pair(KeyName="arat-ray")
    account.aws.ec2.create_key_pair(KeyName="arat-ray", KeyType="ed25519")


def an_older_key(account: Account) -> None:
    account.aws.ec2.delete_key_pair(KeyName="arat-ray")
    account.aws.ec2.create_key_pair(KeyName="arat-ray", KeyType="rsa")


def wider_permissions(account: Account) -> None:
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    account.aws.iam.put_role_policy(
        RoleName="arat-ray-worker", PolicyName="arat-ray", PolicyDocument=json.dumps(policy)
    )


def one_more_policy(account: Account) -> None:
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
    account.aws.iam.put_role_policy(RoleName="arat-ray-head", PolicyName="debug", PolicyDocument=json.dumps(policy))


def administrator(account: Account) -> None:
    everything = [{"Effect": "Allow", "Action": "*", "Resource": "*"}]
    document = json.dumps({"Version": "2012-10-17", "Statement": everything})
    named = {policy["PolicyName"]: policy["Arn"] for policy in account.aws.iam.list_policies(Scope="Local")["Policies"]}
    if "Everything" not in named:  # moto has none of AWS' own
        made = account.aws.iam.create_policy(PolicyName="Everything", PolicyDocument=document)
        named["Everything"] = made["Policy"]["Arn"]
    account.aws.iam.attach_role_policy(RoleName="arat-ray-worker", PolicyArn=named["Everything"])


def another_role_in_the_profile(account: Account) -> None:
    iam = account.aws.iam
    iam.remove_role_from_instance_profile(InstanceProfileName="arat-ray-worker", RoleName="arat-ray-worker")
    iam.add_role_to_instance_profile(InstanceProfileName="arat-ray-worker", RoleName="arat-ray-head")


def no_way_out(account: Account) -> None:
    everything = [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
    account.aws.ec2.revoke_security_group_egress(GroupId=account.group, IpPermissions=everything)


def no_more_ssh(account: Account) -> None:
    ssh = [{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "203.0.113.7/32"}]}]
    account.aws.ec2.revoke_security_group_ingress(GroupId=account.group, IpPermissions=ssh)


def from_a_prefix_list(account: Account) -> None:
    made = account.aws.ec2.create_managed_prefix_list(
        PrefixListName="all", MaxEntries=1, AddressFamily="IPv4", Entries=[{"Cidr": "0.0.0.0/0"}]
    )
    listed = [{"PrefixListId": made["PrefixList"]["PrefixListId"]}]
    account.let_in(IpProtocol="tcp", FromPort=22, ToPort=22, PrefixListIds=listed)


def from_another_group(account: Account) -> None:
    other = account.aws.ec2.create_security_group(GroupName="other", Description="other")["GroupId"]
    account.let_in(IpProtocol="-1", UserIdGroupPairs=[{"GroupId": other}])


def a_trust_of_two(account: Account) -> None:
    both = {"Service": "ec2.amazonaws.com", "AWS": "arn:aws:iam::999999999999:root"}
    account.trust("head", Principal=both)


def half_open(account: Account) -> None:
    block = {"BlockPublicAcls": True, "IgnorePublicAcls": True, "BlockPublicPolicy": False}
    account.aws.s3.put_public_access_block(
        Bucket=BUCKET, PublicAccessBlockConfiguration=block | {"RestrictPublicBuckets": True}
    )


def forbidden_and_allowed(account: Account) -> None:
    plain_http = {"Bool": {"aws:SecureTransport": "false"}}
    account.bucket_policy(
        {"Effect": "Deny", "Principal": "*", "Condition": plain_http},
        {"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::999999999999:root"}},
    )


def expires(account: Account) -> None:
    rule = {"ID": "tidy", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 7}}
    account.aws.s3.put_bucket_lifecycle_configuration(Bucket=BUCKET, LifecycleConfiguration={"Rules": [rule]})


def another_encryption(account: Account) -> None:
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}}
    account.aws.s3.put_bucket_encryption(Bucket=BUCKET, ServerSideEncryptionConfiguration={"Rules": [rule]})


def to_anybody(**ports: Any) -> Callable[[Account], None]:
    return lambda account: account.let_in(**ports, IpRanges=[{"CidrIp": "0.0.0.0/0"}])


TCP = {"IpProtocol": "tcp"}
DRIFT: list[tuple[str, Callable[[Account], Any], str]] = [
    ("SSH from all", to_anybody(**TCP, FromPort=22, ToPort=22), "out with tcp 22 from 0.0.0.0/0"),
    ("the dashboard from all", to_anybody(**TCP, FromPort=8265, ToPort=8265), "out with tcp 8265 from 0.0.0.0/0"),
    ("all ports", to_anybody(**TCP, FromPort=0, ToPort=65535), "out with tcp 0-65535 from 0.0.0.0/0"),
    ("all protocols", to_anybody(IpProtocol="-1"), "out with everything from 0.0.0.0/0"),
    ("UDP", to_anybody(IpProtocol="udp", FromPort=1, ToPort=9), "out with udp 1-9 from 0.0.0.0/0"),
    (
        "a wider network",
        lambda here: here.let_in(**TCP, FromPort=22, ToPort=22, IpRanges=[{"CidrIp": "203.0.113.0/24"}]),
        "out with tcp 22 from 203.0.113.0/24",
    ),
    (
        "IPv6",
        lambda here: here.let_in(**TCP, FromPort=22, ToPort=22, Ipv6Ranges=[{"CidrIpv6": "::/0"}]),
        "out with tcp 22 from ::/0",
    ),
    ("a prefix list", from_a_prefix_list, "out with tcp 22 from pl-"),
    ("another group", from_another_group, "out with everything from sg-"),
    ("no SSH", no_more_ssh, "in with tcp 22 from 203.0.113.7/32"),
    ("no way out", no_way_out, "reach the internet"),
    ("a trust of all", lambda here: here.trust("head", Principal="*"), 'arat-ray-head, which now is for "*"'),
    ("a trust of AWS: *", lambda here: here.trust("worker", Principal={"AWS": "*"}), 'is for {"AWS": "*"}'),
    ("a trust of two", a_trust_of_two, "arn:aws:iam::999999999999:root"),
    (
        "a trust of another service",
        lambda here: here.trust("worker", Principal={"Service": "lambda.amazonaws.com"}),
        "lambda.amazonaws.com",
    ),
    ("wider permissions", wider_permissions, "give arat-ray-worker the permissions under 'worker'"),
    ("an inline policy", one_more_policy, "take the policy debug out of arat-ray-head"),
    (
        "an attached policy",
        administrator,
        "detach the policy arn:aws:iam::123456789012:policy/Everything from arat-ray-worker",
    ),
    ("another role", another_role_in_the_profile, "in the place of arat-ray-head"),
    ("a public policy", everybodys_policy, "its policy lets in *"),
    (
        "another account's policy",
        lambda here: here.bucket_policy({"Effect": "Allow", "Principal": {"AWS": "999999999999"}}),
        '{"AWS": "999999999999"}',
    ),
    (
        "all but one",
        lambda here: here.bucket_policy({"Effect": "Allow", "NotPrincipal": {"AWS": "999999999999"}}),
        'lets in all but {"AWS": "999999999999"}',
    ),
    ("a policy that also forbids", forbidden_and_allowed, "its policy lets in"),
    ("a public list", lambda here: here.acl("public-read"), "AllUsers"),
    (
        "a list of all accounts",
        lambda here: here.acl("authenticated-read"),
        "AuthenticatedUsers",
    ),
    ("no block", lambda here: here.aws.s3.delete_public_access_block(Bucket=BUCKET), "block public access"),
    ("half a block", half_open, "block public access"),
    ("no encryption", lambda here: here.aws.s3.delete_bucket_encryption(Bucket=BUCKET), "encrypt what"),
    ("another encryption", another_encryption, "encrypt what"),
    (
        "lists again",
        lambda here: here.aws.s3.delete_bucket_ownership_controls(Bucket=BUCKET),
        "to its owner, without lists",
    ),
    ("an expiry", expires, "delete the lifecycle rules"),
    ("another key", another_fingerprint, "replace the key pair"),
    ("an older key", an_older_key, "replace the key pair"),
    ("a readable key", lambda here: here.wanted.key.chmod(0o644), "readable for you alone"),
]


@pytest.mark.parametrize(("drift", "says"), [each[1:] for each in DRIFT], ids=[each[0] for each in DRIFT])
def test_what_was_changed_is_one_step_that_puts_it_right(
    drift: Callable[[Account], Any], says: str, account: Account
) -> None:
    drift(account)
    steps, _ = plan(*account)
    assert len(steps) == 1, [step.says for step in steps]
    assert says in steps[0].says
    steps[0].act()
    assert account.plan() == []


def test_what_a_policy_forbids_stays(account: Account) -> None:
    kept = {
        "Sid": "NoHttp",
        "Effect": "Deny",
        "Principal": "*",
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    account.bucket_policy(kept, {"Effect": "Allow", "Principal": "*"})
    (step,) = plan(*account)[0]
    step.act()
    policy = json.loads(account.aws.s3.get_bucket_policy(Bucket=BUCKET)["Policy"])
    assert [each["Sid"] for each in policy["Statement"]] == ["NoHttp"]
    account.aws.s3.delete_bucket_policy(Bucket=BUCKET)


def test_another_type_of_machine_in_the_file_is_another_permission(account: Account, tmp_path: Path) -> None:
    file = tmp_path / "aws.yaml"
    file.write_text((CLUSTERS / "aws.yaml").read_text().replace("InstanceType: g5.2xlarge", "InstanceType: g6.2xlarge"))
    (step,) = plan(account.aws, account.wanted._replace(cluster=file))[0]
    assert "give arat-ray-head the permissions" in step.says
    step.act()
    policy = account.aws.iam.get_role_policy(RoleName="arat-ray-head", PolicyName="arat-ray")["PolicyDocument"]
    assert '"ec2:InstanceType": ["g6.2xlarge"]' in json.dumps(policy)
    (back,) = plan(*account)[0]
    back.act()
    assert account.plan() == []


def test_the_key_that_is_put_back_is_that_of_the_file(account: Account) -> None:
    another_fingerprint(account)
    (step,) = plan(*account)[0]
    assert account.plan() == [step.says], "a plan changes nothing"
    step.act()
    (pair,) = account.aws.ec2.describe_key_pairs(KeyNames=["arat-ray"], IncludePublicKey=True)["KeyPairs"]
    mine = load_ssh_private_key(account.wanted.key.read_bytes(), None).public_key()
    assert pair["PublicKey"].split()[:2] == mine.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode().split()
    assert {"Key": "made-by", "Value": "arat-ray"} in pair["Tags"], "--destroy finds it"


@pytest.mark.parametrize("content", [b"", b"mine", b"\xff\xfe", b"-----BEGIN OPENSSH ", b"x" * 10_000])
def test_a_file_that_holds_no_key_is_refused_by_name(content: bytes, account: Account, tmp_path: Path) -> None:
    file = tmp_path / "other.pem"
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(ValueError, match=r"other\.pem: holds no private key"):
        plan(account.aws, account.wanted._replace(key=file))
    framed = b"-----BEGIN OPENSSH PRIVATE KEY-----\n" + content[:40] + b"\n-----END OPENSSH PRIVATE KEY-----\n"
    file.write_bytes(framed)
    with pytest.raises(ValueError, match=r"other\.pem: holds no private key"):
        plan(account.aws, account.wanted._replace(key=file))


def test_a_bucket_of_others_making_is_not_rewritten(account: Account) -> None:
    s3, name = account.aws.s3, "labs-own"
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
    policy = {"Effect": "Allow", "Principal": {"AWS": "999999999999"}, "Action": "s3:*", "Resource": "arn:aws:s3:::x"}
    s3.put_bucket_policy(Bucket=name, Policy=json.dumps({"Version": "2012-10-17", "Statement": policy}))
    with pytest.raises(
        ValueError, match=r"labs-own was not made by `prepare`, and its policy lets in .*choose another"
    ):
        plan(account.aws, account.wanted._replace(bucket=name))
    s3.delete_bucket_policy(Bucket=name)
    assert len(plan(account.aws, account.wanted._replace(bucket=name))[0]) >= 1
    s3.delete_bucket(Bucket=name)


def test_a_role_that_was_widened_can_still_be_taken_away(account: Account) -> None:
    administrator(account)
    one_more_policy(account)
    steps, _ = destroy_aws.plan(account.aws, bucket=None, key=account.wanted.key, vpc=None)
    for step in steps:
        if "role" in step.says or "profile" in step.says:
            step.act()
    names = {role["RoleName"] for role in account.aws.iam.list_roles()["Roles"]}
    assert not names & {"arat-ray-head", "arat-ray-worker"}
    for step in plan(*account)[0]:
        step.act()
    assert account.plan() == []
