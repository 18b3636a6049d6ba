"""Preemption: the notice that a machine is about to be taken away; two minutes on AWS, half of one elsewhere.

Each worker asks for it, since no part of Ray does: the cloud's metadata service, and Ray itself, which is told by
Kubernetes, by `ray drain-node`, and here by whoever hears of it first, so that nothing new is started on that machine.

AWS: EC2 user guide, "Spot Instance interruption notices"; Google Cloud: Compute Engine, "Preemptible VM instances";
Azure: "Scheduled Events for Linux VMs".
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple

import ray
import requests
from ray.exceptions import RayError

from arat_ray.cluster import ray_internals
from arat_ray.text import plain

logger = logging.getLogger(__name__)
EVERY_S = 5.0
ANSWER_S = 1.0
LOOK_FOR_S = 300.0
"""How long it is asked which cloud this is: the first answer of Azure's service may take two minutes."""
LINK_LOCAL = "http://169.254.169.254"


class Notice(NamedTuple):
    """Of a preemption: who gave it, and the time that is left."""

    by: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.by} takes its machine away in {self.seconds:.0f} s"


Ask = Callable[[requests.Session], Notice | None]


def aws(session: requests.Session, *, base: str | None = None) -> Notice | None:
    """Raises requests.RequestException where this is no machine of AWS, or its service does not answer."""
    base = base or os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", LINK_LOCAL).rstrip("/")
    lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    token = session.put(f"{base}/latest/api/token", headers=lifetime, timeout=ANSWER_S)
    token.raise_for_status()
    path, headers = f"{base}/latest/meta-data/spot/instance-action", {"X-aws-ec2-metadata-token": token.text}
    answer = session.get(path, headers=headers, timeout=ANSWER_S)
    if answer.status_code == 404:
        return None
    answer.raise_for_status()
    return Notice("AWS", _left(datetime.fromisoformat(answer.json()["time"])))


def google(session: requests.Session, *, base: str | None = None) -> Notice | None:
    """Raises requests.RequestException where this is no machine of Google's, or its service does not answer."""
    base = base or f"http://{os.environ.get('GCE_METADATA_HOST', 'metadata.google.internal')}"
    path, headers = f"{base}/computeMetadata/v1/instance/preempted", {"Metadata-Flavor": "Google"}
    answer = session.get(path, headers=headers, timeout=ANSWER_S)
    answer.raise_for_status()
    return Notice("Google Cloud", 30.0) if answer.text.strip() == "TRUE" else None


def azure(session: requests.Session, *, base: str = LINK_LOCAL) -> Notice | None:
    """Raises requests.RequestException where this is no machine of Azure's, or its service does not answer."""

    def get(path: str) -> requests.Response:
        answer = session.get(f"{base}/metadata/{path}", headers={"Metadata": "true"}, timeout=ANSWER_S)
        answer.raise_for_status()
        return answer

    name = get("instance/compute/name?api-version=2021-02-01&format=text").text
    for event in get("scheduledevents?api-version=2020-07-01").json()["Events"]:
        if event["EventType"] == "Preempt" and name in event["Resources"]:
            at = event.get("NotBefore")
            return Notice("Azure", _left(parsedate_to_datetime(at)) if at else 30.0)
    return None


CLOUDS: tuple[Ask, ...] = (aws, google, azure)


def _left(at: datetime) -> float:
    return max(0.0, (at - datetime.now(UTC)).total_seconds())


class MetadataService:
    """The metadata service of the cloud that this machine is in, looked for until one answers or LOOK_FOR_S end."""

    def __init__(self, session: requests.Session) -> None:
        self.session, self.until = session, time.monotonic() + LOOK_FOR_S
        self.cloud: Ask | None = None

    def asked(self) -> Notice | None:
        """A notice, if there is one; None as well where the service does not answer: it is asked again."""
        off = os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true"
        candidates: Sequence[Ask] = [self.cloud] if self.cloud else [c for c in CLOUDS if not (c is aws and off)]
        if not self.cloud and time.monotonic() >= self.until:
            return None
        for cloud in candidates:
            try:
                notice = cloud(self.session)
            except (requests.RequestException, ValueError, KeyError):
                continue
            self.cloud = cloud
            return notice
        return None


class PreemptionListener(threading.Thread):
    """In a worker: listens until there is a notice, which then stays its `notice`."""

    def __init__(self) -> None:
        super().__init__(daemon=True, name="preemption")
        context = ray.get_runtime_context()
        self.node, self.gcs = context.get_node_id(), context.gcs_address
        self.notice: Notice | None = None

    def run(self) -> None:
        with requests.Session() as session:
            session.trust_env = False  # no proxy knows this machine
            service = MetadataService(session)
            while self.notice is None:
                if notice := service.asked():
                    self._pass_on(notice)
                    self.notice = notice
                    return
                self.notice = self._drained()
                time.sleep(EVERY_S)

    def _drained(self) -> Notice | None:
        """Whether Ray was told; None as well where it cannot be asked just now."""
        try:
            deadline_ms = ray_internals.draining_nodes().get(self.node)
        except (RayError, RuntimeError):
            return None
        if deadline_ms is None:
            return None
        return Notice("Ray", max(0.0, deadline_ms / 1000 - time.time()))

    def _pass_on(self, notice: Notice) -> None:
        """Tell Ray, so that it starts nothing here any more."""
        deadline_ms = int(1000 * (time.time() + notice.seconds))
        try:
            ray_internals.drain_node(self.gcs, self.node, why=str(notice), deadline_ms=deadline_ms)
        except RayError as error:
            logger.warning(plain(f"{notice}; Ray could not be told: {error}"))


_listening: list[PreemptionListener] = []
"""Of this process, which trains one trial after another."""


def listen() -> PreemptionListener:
    """This process's listener, which listens from now on."""
    if not _listening:
        _listening.append(PreemptionListener())
        _listening[0].start()
    return _listening[0]
