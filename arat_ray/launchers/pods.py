"""Every pod that a KubeRay file asks for, of head, workers, submitter and autoscaler, and what keeps it small."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from arat_ray.launchers.document import PLACEHOLDER
from arat_ray.launchers.problems import Path, Rule, Violation, at, listed, mapping

WITHOUT_SUBMITTER = ("HTTPMode", "InteractiveMode")
"""How a RayJob may be submitted without a pod of its own."""
IN_PODS: dict[str, Path] = {
    "Pod": ("spec",),
    "CronJob": ("spec", "jobTemplate", "spec", "template", "spec"),
    **dict.fromkeys(
        ("Job", "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController"),
        ("spec", "template", "spec"),
    ),
}
"""Where Kubernetes' own kinds have a pod."""
CONTAINERS = ("containers", "initContainers", "ephemeralContainers")
BY_DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")


class Container(NamedTuple):
    """A container, where it stands, and the pod around it, where that one stands."""

    path: Path
    container: dict[str, Any]
    pod_path: Path
    pod: dict[str, Any]


def clusters(documents: Any) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Each cluster that the objects ask for, and where it stands."""
    for index, each in enumerate(documents):
        if at(each, "kind") == "RayCluster":
            yield (index, "spec"), mapping(at(each, "spec"))
        elif at(each, "kind") == "RayJob":
            yield (index, "spec", "rayClusterSpec"), mapping(at(each, "spec", "rayClusterSpec"))


def templates(documents: Any) -> Iterator[tuple[Path, dict[str, Any], bool]]:
    """Each pod template of a cluster's nodes, where it stands, and whether it is the head's."""
    for path, cluster in clusters(documents):
        yield (*path, "headGroupSpec", "template"), mapping(at(cluster, "headGroupSpec", "template")), True
        for index, group in enumerate(listed(cluster.get("workerGroupSpecs"))):
            yield (*path, "workerGroupSpecs", index, "template"), mapping(at(group, "template")), False


def nodes(documents: Any) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Each container of a cluster's nodes, and where it stands."""
    for path, template, _ in templates(documents):
        for index, container in enumerate(listed(at(template, "spec", "containers"))):
            yield (*path, "spec", "containers", index), mapping(container)


def _pods(documents: Any) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path, template, _ in templates(documents):
        yield (*path, "spec"), mapping(template.get("spec"))
    for index, each in enumerate(documents):
        kind = at(each, "kind")
        if kind == "RayJob" and (template := at(each, "spec", "submitterPodTemplate")) is not None:
            yield (index, "spec", "submitterPodTemplate", "spec"), mapping(at(template, "spec"))
        elif isinstance(kind, str) and kind in IN_PODS:
            yield (index, *IN_PODS[kind]), mapping(at(each, *IN_PODS[kind]))


def _containers(documents: Any) -> Iterator[Container]:
    for path, pod in _pods(documents):
        for key in CONTAINERS:
            for index, container in enumerate(listed(pod.get(key))):
                yield Container((*path, key, index), mapping(container), path, pod)
    for path, cluster in clusters(documents):
        if cluster.get("enableInTreeAutoscaling") is True:  # KubeRay adds it to the head's pod
            head = (*path, "headGroupSpec", "template", "spec")
            pod = mapping(at(cluster, "headGroupSpec", "template", "spec"))
            yield Container((*path, "autoscalerOptions"), mapping(cluster.get("autoscalerOptions")), head, pod)


def _submitter(documents: Any) -> Iterator[Violation]:
    for index, each in enumerate(documents):
        if at(each, "kind") != "RayJob":
            continue
        mode, template = at(each, "spec", "submissionMode"), at(each, "spec", "submitterPodTemplate")
        if mode == "SidecarMode":
            yield Violation((index, "spec", "submissionMode"), mode)
        elif mode not in WITHOUT_SUBMITTER and not listed(at(template, "spec", "containers")):
            yield Violation((index, "spec", "submitterPodTemplate"), template)


def _unprivileged(documents: Any) -> Iterator[Violation]:
    for each in _containers(documents):
        own, around = mapping(each.container.get("securityContext")), mapping(each.pod.get("securityContext"))
        here = (*each.path, "securityContext")
        if own.get("runAsNonRoot", around.get("runAsNonRoot")) is not True:
            yield Violation((*here, "runAsNonRoot"), own.get("runAsNonRoot", around.get("runAsNonRoot")))
        if own.get("runAsUser", around.get("runAsUser")) == 0:
            yield Violation((*here, "runAsUser"), 0)
        if own.get("allowPrivilegeEscalation") is not False:
            yield Violation((*here, "allowPrivilegeEscalation"), own.get("allowPrivilegeEscalation"))
        if listed(at(own, "capabilities", "drop")) != ["ALL"]:
            yield Violation((*here, "capabilities", "drop"), at(own, "capabilities", "drop"))
        if at(own, "capabilities", "add"):
            yield Violation((*here, "capabilities", "add"), at(own, "capabilities", "add"))
        profile = at(own, "seccompProfile", "type") or at(around, "seccompProfile", "type")
        if profile not in ("RuntimeDefault", "Localhost"):
            yield Violation((*here, "seccompProfile", "type"), profile)
        if own.get("privileged"):
            yield Violation((*here, "privileged"), True)


def _apart_from_the_node(documents: Any) -> Iterator[Violation]:
    for path, pod in _pods(documents):
        for key in ("hostNetwork", "hostPID", "hostIPC"):
            if pod.get(key):
                yield Violation((*path, key), True)
        for index, volume in enumerate(listed(pod.get("volumes"))):
            if (folder := at(volume, "hostPath")) is not None:
                yield Violation((*path, "volumes", index, "hostPath"), at(folder, "path") or folder)
    for each in _containers(documents):
        for index, port in enumerate(listed(each.container.get("ports"))):
            if at(port, "hostPort"):
                yield Violation((*each.path, "ports", index, "hostPort"), at(port, "hostPort"))


def _by_digest(documents: Any) -> Iterator[Violation]:
    for each in _containers(documents):
        is_default = each.path[-1] == "autoscalerOptions" and "image" not in each.container  # that of the head
        if not is_default and not is_by_digest(each.container.get("image")):
            yield Violation((*each.path, "image"), each.container.get("image"))


def is_by_digest(image: Any) -> bool:
    """Whether an image is named by what it holds, or is yet to be filled in."""
    text = str(image)
    return bool(BY_DIGEST.search(text)) or ("@sha256:" in text and bool(PLACEHOLDER.search(text)))


RULES = (
    Rule(
        "image-pinned",
        "a tag can be moved, and later pods would run other code",
        "write IMAGE@sha256:DIGEST, as `docker push` prints it (docker inspect --format '{{.RepoDigests}}' IMAGE)",
        _by_digest,
    ),
    Rule(
        "submitter-closed",
        "KubeRay's own pod for it runs without a securityContext",
        "write a submitterPodTemplate with a securityContext, as in clusters/kuberay.yaml, and no SidecarMode",
        _submitter,
    ),
    Rule(
        "runs-unprivileged",
        "a job must not become root on its node",
        "write securityContext: {runAsNonRoot: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}, "
        "seccompProfile: {type: RuntimeDefault}}",
        _unprivileged,
    ),
    Rule(
        "apart-from-the-node",
        "a pod in the node's network, processes or files reaches what is not the job's",
        "leave it out, and mount a volume",
        _apart_from_the_node,
    ),
)
