"""What the roles of clusters/aws-iam.json let a cluster do, and what they refuse it."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import boto3
import pytest

from arat_ray.launchers.aws_roles import worker_types
from arat_ray.storage import objects
from arat_ray.storage.address import parse
from arat_ray.storage.datasets import cached
from tests.launchers.filled import CLUSTERS
from tests.launchers.iam import is_allowed
from tests.storage.conftest import CREDENTIALS

BUCKET = "arn:aws:s3:::lab-results"
INSTANCE = "arn:aws:ec2:us-west-2:123456789012:instance/i-1"
LAUNCH = {
    "aws:RequestTag/ray-cluster-name": "arat-ray",
    "ec2:MetadataHttpTokens": "required",
    "ec2:InstanceType": "g5.2xlarge",
    "ec2:InstanceProfile": "arn:aws:iam::123456789012:instance-profile/arat-ray-worker",
}


@pytest.mark.parametrize("kind", ["head", "worker"])
@pytest.mark.parametrize(
    ("prefix", "allowed"),
    [
        ("results/study/", True),
        ("results/", True),
        ("results", True),
        ("data/cifar/", True),
        (None, False),
        ("", False),
        ("r", False),
        ("resultsof/others", False),
        ("secrets/", False),
        ("database/", False),
    ],
)
def test_the_bucket_is_listed_below_results_and_data_alone(kind: str, prefix: str | None, allowed: bool) -> None:
    asked = {} if prefix is None else {"s3:prefix": prefix}
    assert is_allowed(kind, "s3:ListBucket", BUCKET, asked) == allowed
    assert not is_allowed(kind, "s3:ListBucket", "arn:aws:s3:::other", asked)


@pytest.mark.parametrize("kind", ["head", "worker"])
@pytest.mark.parametrize(
    ("action", "key", "allowed"),
    [
        ("GetObject", "results/a", True),
        ("PutObject", "results/a", True),
        ("DeleteObject", "results/a", True),
        ("GetObject", "data/a", True),
        ("PutObject", "data/a", False),
        ("DeleteObject", "data/a", False),
        ("GetObject", "private/a", False),
        ("PutObject", "private/a", False),
        ("PutBucketPolicy", "", False),
        ("PutObjectAcl", "results/a", False),
    ],
)
def test_results_are_written_data_read_and_nothing_else_is_reached(
    kind: str, action: str, key: str, allowed: bool
) -> None:
    assert is_allowed(kind, f"s3:{action}", f"{BUCKET}/{key}") == allowed


@pytest.mark.parametrize(
    ("change", "allowed"),
    [
        ({}, True),
        ({"ec2:InstanceType": "g6.2xlarge"}, True),
        ({"ec2:InstanceType": "p5.48xlarge"}, False),
        ({"ec2:InstanceType": ""}, False),
        ({"ec2:MetadataHttpTokens": "optional"}, False),
        ({"aws:RequestTag/ray-cluster-name": "other"}, False),
        ({"ec2:InstanceProfile": "arn:aws:iam::123456789012:instance-profile/arat-ray-head"}, False),
        ({"ec2:InstanceProfile": "arn:aws:iam::123456789012:instance-profile/admin"}, False),
    ],
)
def test_the_head_starts_machines_of_the_files_types_with_the_workers_role_alone(
    change: dict[str, str], allowed: bool
) -> None:
    assert is_allowed("head", "ec2:RunInstances", INSTANCE, {**LAUNCH, **change}) == allowed
    assert not is_allowed("worker", "ec2:RunInstances", INSTANCE, {**LAUNCH, **change})
    for key in change:
        assert not is_allowed("head", "ec2:RunInstances", INSTANCE, {k: v for k, v in LAUNCH.items() if k != key})


@pytest.mark.parametrize("tag", ["arat-ray", "other", None])
def test_the_head_ends_its_own_machines_alone(tag: str | None) -> None:
    tagged = {} if tag is None else {"ec2:ResourceTag/ray-cluster-name": tag}
    assert is_allowed("head", "ec2:TerminateInstances", INSTANCE, tagged) == (tag == "arat-ray")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no workers"),
        ("available_node_types: {head: {}}\nhead_node_type: head\n", "no workers"),
        ("available_node_types: {a: {node_config: {}}}\n", "a.node_config.InstanceType: None is no type"),
        ("available_node_types: {a: {node_config: {InstanceType: [g5]}}}\n", "is no type of machine"),
        ("available_node_types: {a: {node_config: {InstanceType: <your-type>}}}\n", "is no type of machine"),
        ("- 1\n", "no workers"),
    ],
)
def test_a_cluster_file_without_types_is_refused_by_name(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ValueError, match=f"c.yaml: .*{re.escape(says)}"):
        worker_types(tmp_path / "c.yaml")


def test_the_types_are_those_of_all_workers_and_not_the_heads(tmp_path: Path) -> None:
    assert worker_types(CLUSTERS / "aws.yaml") == "g5.2xlarge"
    (tmp_path / "c.yaml").write_text(
        "head_node_type: h\navailable_node_types:\n  h: {node_config: {InstanceType: m6i.xlarge}}\n"
        "  a: {node_config: {InstanceType: g5.2xlarge}}\n  b: {node_config: {InstanceType: g6.2xlarge}}\n"
        "  c: {node_config: {InstanceType: g5.2xlarge}}\n"
    )
    assert worker_types(tmp_path / "c.yaml") == "g5.2xlarge,g6.2xlarge"


class Requests(logging.Handler):
    """The requests that moto's server answered."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        found = re.search(r'"(?:\x1b\[\d+m)*([A-Z]+) (\S+) HTTP', record.getMessage())
        if found:
            self.seen.append((found[1], found[2]))


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Requests]:
    from moto.server import ThreadedMotoServer

    log, seen = logging.getLogger("werkzeug"), Requests()
    monkeypatch.setattr(log, "propagate", False)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.get_host_and_port()))
    for name in ("ARAT_CACHE", "ARAT_DATA"):
        monkeypatch.setenv(name, str(tmp_path / name))
    before = log.level
    log.setLevel(logging.INFO)
    log.addHandler(seen)
    yield seen
    log.removeHandler(seen)
    log.setLevel(before)
    server.stop()


def test_what_a_study_asks_its_bucket_is_what_its_role_allows(requests: Requests, tmp_path: Path) -> None:
    results, data = parse("s3://lab-results/results/small"), parse("s3://lab-results/data/digits")
    with pytest.raises(OSError, match="there is no bucket 'lab-results'"):
        objects.check(results)
    client = boto3.client("s3", endpoint_url=results.endpoint)
    client.create_bucket(Bucket="lab-results")
    client.put_object(Bucket="lab-results", Key="data/digits/train.parquet", Body=b"rows")
    del requests.seen[:]
    objects.check(results)
    assert objects.stats(results, "study.json") == {}
    file = tmp_path / "rows"
    file.write_bytes(b"rows")
    with file.open("rb") as content:
        objects.put(results, "trials/part-0.parquet", content)
    assert objects.read(results, "trials/part-0.parquet") == b"rows"
    objects.get(results, "trials/part-0.parquet", tmp_path / "copy")
    begun = objects.put_over(results, "journal/record-00000.jsonl", b"begun", None)
    objects.put_over(results, "journal/record-00000.jsonl", b"begun and on", begun)
    objects.delete(results, "journal/record-00000.jsonl")
    assert objects.stats(results, "trials/").keys() == {"trials/part-0.parquet"}
    assert objects.folders(parse("s3://lab-results/results")) == ["small"]
    assert (cached(data.uri) / "train.parquet").read_bytes() == b"rows"
    asked = [_as_iam_sees_it(*each) for each in requests.seen]
    assert {action for action, *_ in asked} == {"s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject"}
    for action, resource, context in asked:
        for kind in ("head", "worker"):
            assert is_allowed(kind, action, resource, context), (action, resource, context)


def _as_iam_sees_it(method: str, target: str) -> tuple[str, str, dict[str, str]]:
    parts = urlsplit(target)
    bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
    if not key:
        prefix = parse_qs(parts.query, keep_blank_values=True).get("prefix")
        return "s3:ListBucket", f"arn:aws:s3:::{bucket}", {"s3:prefix": prefix[0]} if prefix else {}
    action = {"HEAD": "s3:GetObject", "GET": "s3:GetObject", "PUT": "s3:PutObject", "DELETE": "s3:DeleteObject"}[method]
    return action, f"arn:aws:s3:::{bucket}/{key}", {}
