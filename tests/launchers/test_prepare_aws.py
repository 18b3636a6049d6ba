"""What is made in an account, made once, and taken away again; against moto's account in this process."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from click.testing import CliRunner, Result
from moto import mock_aws

from arat_ray.cli import main
from arat_ray.launchers.check import check
from arat_ray.launchers.prepare_aws import Aws, Wanted, connect, one_address, plan
from tests.launchers.filled import CLUSTERS

REGION, BUCKET = "us-west-2", "lab-results"
POLICIES = CLUSTERS / "aws-iam.json"


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "testing")
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    with mock_aws():
        yield connect(REGION)


def prepare(tmp_path: Path, *more: str, says: str | None = None) -> Result:
    fixed = ["--region", REGION, "--bucket", BUCKET, "--key", str(tmp_path / "arat-ray.pem"), "--iam", str(POLICIES)]
    return CliRunner().invoke(main, ["cluster", "prepare", "aws", *fixed, *more], input=says)


FROM = ("--ssh-from", "203.0.113.7/32")


def rules_in(aws: Aws) -> list[Any]:
    named = [{"Name": "group-name", "Values": ["arat-ray"]}]
    (group,) = aws.ec2.describe_security_groups(Filters=named)["SecurityGroups"]
    return [group["GroupId"], group["IpPermissions"]]


def test_all_is_made_once_as_closed_as_the_files_say_and_taken_away_again(aws: Aws, tmp_path: Path) -> None:
    before = prepare(tmp_path, *FROM, says="n\n")
    assert before.exit_code == 1
    assert "make the security group arat-ray" in before.output
    assert not aws.s3.list_buckets()["Buckets"], "nothing is made before the answer"
    assert not (tmp_path / "arat-ray.pem").exists()

    file = tmp_path / "aws.yaml"
    file.write_text((CLUSTERS / "aws.yaml").read_text())
    made = prepare(tmp_path, *FROM, "--write", str(file), says="y\n")
    assert made.exit_code == 0, made.output
    group, permissions = rules_in(aws)
    assert sorted((each["IpProtocol"], each.get("FromPort"), each.get("ToPort")) for each in permissions) == [
        ("-1", None, None),
        ("tcp", 22, 22),
    ]
    assert [each["CidrIp"] for rule in permissions for each in rule["IpRanges"]] == ["203.0.113.7/32"]
    assert [each["GroupId"] for rule in permissions for each in rule["UserIdGroupPairs"]] == [group]
    assert (tmp_path / "arat-ray.pem").stat().st_mode & 0o777 == 0o600
    assert "PRIVATE KEY" in (tmp_path / "arat-ray.pem").read_text()
    blocked = aws.s3.get_public_access_block(Bucket=BUCKET)["PublicAccessBlockConfiguration"]
    assert set(blocked.values()) == {True}
    assert len(blocked) == 4
    encrypted = aws.s3.get_bucket_encryption(Bucket=BUCKET)["ServerSideEncryptionConfiguration"]["Rules"]
    assert encrypted[0]["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    for kind in ("head", "worker"):
        profile = aws.iam.get_instance_profile(InstanceProfileName=f"arat-ray-{kind}")["InstanceProfile"]
        assert [role["RoleName"] for role in profile["Roles"]] == [f"arat-ray-{kind}"]
        policy = aws.iam.get_role_policy(RoleName=f"arat-ray-{kind}", PolicyName="arat-ray")["PolicyDocument"]
        assert "<your-" not in json.dumps(policy)
        assert (group in json.dumps(policy)) == (kind == "head")
    assert len(aws.iam.list_roles(PathPrefix="/aws-service-role/spot.amazonaws.com/")["Roles"]) == 1

    assert [line for line in check(file).problems if "<your-ami>" not in line] == []
    assert re.search(r"SubnetIds: \[subnet-\w+, subnet-\w+", file.read_text())
    assert "availability_zone: us-west-2a,us-west-2b" in file.read_text()
    assert f"--results s3://{BUCKET}/results" in file.read_text(), "the commands at its head are ready as well"

    again = prepare(tmp_path, *FROM)
    assert again.exit_code == 0, again.output
    assert "nothing is left to do" in again.output

    moved = prepare(tmp_path, "--ssh-from", "198.51.100.9", "--yes")
    assert moved.exit_code == 0, moved.output
    assert [each["CidrIp"] for rule in rules_in(aws)[1] for each in rule["IpRanges"]] == ["198.51.100.9/32"]
    assert moved.output.count("done:") == 1

    aws.s3.put_object(Bucket=BUCKET, Key="results/study/trials/part-00000.parquet", Body=b"rows")
    gone = prepare(tmp_path, "--destroy", "--yes")
    assert gone.exit_code == 0, gone.output
    assert f"kept: the bucket {BUCKET}: it holds objects" in gone.output
    assert aws.s3.list_objects_v2(Bucket=BUCKET)["KeyCount"] == 1
    assert not (tmp_path / "arat-ray.pem").exists()
    assert not aws.ec2.describe_key_pairs()["KeyPairs"]
    names = {role["RoleName"] for role in aws.iam.list_roles()["Roles"]}
    assert not names & {"arat-ray-head", "arat-ray-worker"}
    assert not aws.iam.list_instance_profiles()["InstanceProfiles"]
    assert "arat-ray" not in {each["GroupName"] for each in aws.ec2.describe_security_groups()["SecurityGroups"]}

    aws.s3.delete_object(Bucket=BUCKET, Key="results/study/trials/part-00000.parquet")
    assert prepare(tmp_path, "--destroy", "--yes").exit_code == 0
    assert not aws.s3.list_buckets()["Buckets"]
    assert "nothing is left to do" in prepare(tmp_path, "--destroy").output


def test_nothing_is_taken_away_that_others_made_or_that_machines_use(aws: Aws, tmp_path: Path) -> None:
    aws.s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    aws.iam.create_role(RoleName="arat-ray-head", AssumeRolePolicyDocument="{}")
    done = prepare(tmp_path, "--destroy", "--yes")
    assert "kept: the role arat-ray-head: it was not made by `prepare`" in done.output
    assert f"kept: the bucket {BUCKET}: it was not made by `prepare`" in done.output
    assert aws.iam.get_role(RoleName="arat-ray-head")
    assert aws.s3.list_buckets()["Buckets"]

    tags = [{"ResourceType": "instance", "Tags": [{"Key": "ray-cluster-name", "Value": "arat-ray"}]}]
    aws.ec2.run_instances(ImageId="ami-12c6146b", MinCount=1, MaxCount=1, TagSpecifications=tags)
    done = prepare(tmp_path, "--destroy", "--yes")
    assert done.exit_code == 2
    assert "first: ray down clusters/aws.yaml" in done.output


def test_a_lost_key_is_said_and_no_other_file_overwritten(aws: Aws, tmp_path: Path) -> None:
    (tmp_path / "arat-ray.pem").write_text("mine")
    done = prepare(tmp_path, *FROM, "--yes")
    assert done.exit_code == 2
    assert "is here, but AWS has no key pair arat-ray" in done.output
    assert (tmp_path / "arat-ray.pem").read_text() == "mine"
    (tmp_path / "arat-ray.pem").unlink()
    aws.ec2.create_key_pair(KeyName="arat-ray")
    assert "AWS has the key pair arat-ray, but" in prepare(tmp_path, *FROM, "--yes").output


def test_a_key_that_aws_refuses_leaves_no_empty_file_in_the_way(aws: Aws, tmp_path: Path) -> None:
    key = tmp_path / "new" / "arat-ray.pem"
    steps, _ = plan(aws, Wanted(REGION, BUCKET, FROM[1], key, POLICIES))
    (make,) = [step for step in steps if "key pair" in step.says]
    aws.ec2.create_key_pair(KeyName="arat-ray")  # somebody was faster
    with pytest.raises(ClientError, match="Duplicate"):
        make.act()
    assert not key.exists()
    aws.ec2.delete_key_pair(KeyName="arat-ray")
    make.act()
    assert "PRIVATE KEY" in key.read_text()
    assert key.stat().st_mode & 0o777 == 0o600


def test_ssh_is_opened_for_one_address_only() -> None:
    assert one_address("203.0.113.7") == "203.0.113.7/32"
    assert one_address("2001:db8::7") == "2001:db8::7/128"
    for text in ("0.0.0.0/0", "203.0.113.0/24", "home", ""):
        with pytest.raises(ValueError, match="such as 203"):
            one_address(text)


def statements(kind: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(POLICIES.read_text())[kind]["Statement"]
    return found


def listed(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]


def test_the_roles_may_do_what_they_need_and_nothing_else() -> None:
    allowed = {
        kind: {action for each in statements(kind) for action in listed(each["Action"])} for kind in ("head", "worker")
    }
    results = {"s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"}
    assert allowed["worker"] == results | {"s3:ListBucket", "s3:GetBucketLocation"}
    assert allowed["head"] - allowed["worker"] == {
        "ec2:DescribeInstances",
        "ec2:DescribeInstanceTypes",
        "ec2:RunInstances",
        "ec2:CreateTags",
        "ec2:TerminateInstances",
        "iam:PassRole",
    }
    for kind in ("head", "worker"):
        (shows,) = [each for each in statements(kind) if each["Action"] == "s3:ListBucket"]
        prefixes = ["results", "results/*", "data", "data/*"]
        assert shows["Condition"] == {"StringLike": {"s3:prefix": prefixes}}, "a listing without a prefix is of all"
        for each in statements(kind):
            assert each["Effect"] == "Allow"
            for resource in listed(each["Resource"]):
                if set(listed(each["Action"])) <= {"ec2:DescribeInstances", "ec2:DescribeInstanceTypes"}:
                    continue  # EC2 knows no resources for these
                assert resource.startswith("arn:aws:"), resource
            if set(listed(each["Action"])) & results:
                reads_only = listed(each["Action"]) == ["s3:GetObject"]
                where = "data" if reads_only else "results"  # data sets are read, not written
                assert listed(each["Resource"]) == [f"arn:aws:s3:::<your-bucket>/{where}/*"]


def test_the_head_ends_its_own_machines_and_passes_the_workers_role_only() -> None:
    (end,) = [each for each in statements("head") if "ec2:TerminateInstances" in listed(each["Action"])]
    assert end["Condition"] == {"StringEquals": {"ec2:ResourceTag/ray-cluster-name": "arat-ray"}}
    assert "cluster_name: arat-ray\n" in re.sub(r" +#.*", "", (CLUSTERS / "aws.yaml").read_text())
    (give,) = [each for each in statements("head") if "iam:PassRole" in listed(each["Action"])]
    assert give["Resource"] == "arn:aws:iam::<your-account>:role/arat-ray-worker"
    assert give["Condition"] == {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}}
    launches = [each for each in statements("head") if each["Action"] == "ec2:RunInstances"]
    (launch,) = [each for each in launches if "instance/*" in each["Resource"]]
    assert launch["Condition"]["StringEquals"]["ec2:MetadataHttpTokens"] == "required"
    assert launch["Condition"]["ArnEquals"]["ec2:InstanceProfile"].endswith("instance-profile/arat-ray-worker")
