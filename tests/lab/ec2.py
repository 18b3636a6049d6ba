"""An EC2 whose instances are hosts: moto answers the calls, and what it says is running runs.

moto invents public addresses, so it lives in a lab, from where nobody can reach one.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import boto3
import requests

from tests.lab.hosts import Host, Lab

REGION = "us-west-2"
NETWORK = "172.31.0.0/16"
"""Of the default VPC that moto has; its subnets leave the upper end free."""
ADDRESS, LAPTOP = "172.31.255.1", "172.31.255.2"
ENDPOINT = f"http://{ADDRESS}:5000"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "lab", "AWS_SECRET_ACCESS_KEY": "lab"}
ENVIRONMENT = {
    **CREDENTIALS,
    "AWS_ENDPOINT_URL": ENDPOINT,
    "AWS_DEFAULT_REGION": REGION,
    "AWS_EC2_METADATA_DISABLED": "true",
}
"""Of all hosts, in the place of the roles that a machine of EC2 asks its metadata service for."""
ANSWERS_S, POLL_S = 60, 0.5


def start(lab: Lab) -> Host:
    """A host on which moto answers for EC2, IAM, STS and S3."""
    host = lab.boot("cloud", ADDRESS)
    moto = ("python", "-m", "moto.server", "-H", ADDRESS, "-p", ENDPOINT.rpartition(":")[2])
    log = lab.folder / "moto.log"
    process = host.start(*moto, log=log, env={"MOTO_IAM_LOAD_MANAGED_POLICIES": "true"})
    give_up = time.monotonic() + ANSWERS_S
    with host.network():
        while not _answers():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < give_up, log.read_text()
            time.sleep(0.2)
        client("ec2").describe_instances()  # the first call waits for moto to load what AWS has
    return host


def _answers() -> bool:
    try:
        return requests.get(f"{ENDPOINT}/moto-api/", timeout=5).ok
    except requests.ConnectionError:
        return False


def client(service: str) -> Any:
    """boto3's client for it, which works inside `host.network()`."""
    names = {name.lower(): value for name, value in CREDENTIALS.items()}
    return boto3.Session(**names, region_name=REGION).client(service, endpoint_url=ENDPOINT)


def running(ec2: Any) -> dict[str, Any]:
    """The instances that run, by their names."""
    found = ec2.describe_instances(Filters=[{"Name": "instance-state-name", "Values": ["running"]}])
    return {each["InstanceId"]: each for reservation in found["Reservations"] for each in reservation["Instances"]}


class Machines(threading.Thread):
    """Boots a host for each instance that runs, and kills the host of each that runs no more."""

    def __init__(self, lab: Lab, cloud: Host) -> None:
        super().__init__(name="machines", daemon=True)
        self.hosts: dict[str, Host] = {}
        self._lab, self._cloud, self._end = lab, cloud, threading.Event()

    def __enter__(self) -> Machines:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self.join()

    def run(self) -> None:
        with self._cloud.network():
            ec2 = client("ec2")
            while not self._end.wait(POLL_S):
                instances = running(ec2)
                for name in self.hosts.keys() - instances:
                    self.hosts.pop(name).kill()
                for name in instances.keys() - self.hosts:
                    self.hosts[name] = self._boot(ec2, instances[name])

    def _boot(self, ec2: Any, instance: Any) -> Host:
        key = ec2.describe_key_pairs(KeyNames=[instance["KeyName"]], IncludePublicKey=True)["KeyPairs"][0]
        name = instance["PrivateDnsName"].partition(".")[0]
        return self._lab.boot(name, instance["PrivateIpAddress"], authorized=key["PublicKey"])
