"""KubeRay: RayCluster and RayJob against the definitions of KubeRay and Kubernetes, and what keeps pods closed.

The definitions in kuberay.json are KubeRay's, trimmed; see there for version and licence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Any

from arat_ray.launchers import pods
from arat_ray.launchers.defaults import METRICS, pin_problem
from arat_ray.launchers.pods import clusters, nodes, templates
from arat_ray.launchers.problems import (
    Problem,
    Rule,
    Violation,
    amount,
    apply,
    at,
    listed,
    mapping,
    shown,
    values_by_name,
)
from arat_ray.launchers.schema import against, folder_of, strict
from arat_ray.text import did_you_mean

OBJECT_META = {"$ref": "#/$defs/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}
OURS = {"RayCluster": "RayClusterSpec", "RayJob": "RayJobSpec"}


@cache
def _definitions() -> dict[str, Any]:
    """Kubernetes' strict definitions, the newest that the package has, and KubeRay's among them."""
    folder = folder_of("kubernetes_validate") / "kubernetes-json-schema"
    versions = {
        tuple(map(int, found[1].split("."))): each
        for each in folder.iterdir()
        if (found := re.fullmatch(r"v([\d.]+)-local-strict", each.name))
    }
    definitions = versions[max(versions)] / "_definitions.json"
    kubernetes: dict[str, Any] = json.loads(definitions.read_text(encoding="utf-8"))["$defs"]
    kuberay = json.loads(files("arat_ray.launchers").joinpath("kuberay.json").read_text(encoding="utf-8"))
    return kubernetes | {name: strict(kuberay[name]) for name in OURS.values()}


@cache
def _kinds() -> dict[tuple[str, str], str]:
    """Kubernetes' own kinds: (apiVersion, kind) -> name of the definition."""
    return {
        (f"{each['group']}/{each['version']}".removeprefix("/"), each["kind"]): name
        for name, definition in _definitions().items()
        for each in definition.get("x-kubernetes-group-version-kind", [])
    }


def schema(documents: list[Any]) -> list[Problem]:
    """Where an object breaks its definition; paths begin with the number of the document.

    Raises ValueError where kubernetes-validate or jsonschema are not installed.
    """
    return [problem for index, each in enumerate(documents) for problem in _object(index, mapping(each))]


def _object(index: int, given: dict[str, Any]) -> list[Problem]:
    version, kind = str(given.get("apiVersion")), str(given.get("kind"))
    if version == "ray.io/v1" and kind in OURS:
        own: dict[str, Any] = {
            "type": "object",
            "properties": {
                "apiVersion": {}, "kind": {}, "metadata": OBJECT_META, "spec": {"$ref": f"#/$defs/{OURS[kind]}"},
            },
            "required": ["metadata", "spec"],
            "additionalProperties": False,
        }  # fmt: skip
    elif (version, kind) in _kinds():
        own = {"$ref": f"#/$defs/{_kinds()[version, kind]}"}
    else:
        known = OURS if version == "ray.io/v1" else {kind for _, kind in _kinds()}
        fix = did_you_mean(kind, known).removeprefix("; ") if kind not in known else "write apiVersion: ray.io/v1"
        return [Problem((index, "kind"), f"{version} {kind} is not known", fix[:120])]
    return against(own | {"$defs": _definitions()}, given, prefix=(index,))


def _token(documents: Any) -> Iterator[Violation]:
    for path, cluster in clusters(documents):
        if (mode := at(cluster, "authOptions", "mode")) != "token":
            yield Violation((*path, "authOptions", "mode"), mode)


def _closed_network(documents: Any) -> Iterator[Violation]:
    policies = [
        mapping(at(each, "spec", "podSelector", "matchLabels"))
        for each in documents
        if at(each, "kind") == "NetworkPolicy" and "Ingress" in listed(at(each, "spec", "policyTypes"))
    ]
    for path, template, _ in templates(documents):
        labels = mapping(at(template, "metadata", "labels"))
        if not any(selector.items() <= labels.items() for selector in policies):
            yield Violation((*path, "metadata", "labels"), labels or None)
    for index, each in enumerate(documents):
        if at(each, "kind") == "NetworkPolicy":
            for number, rule in enumerate(listed(at(each, "spec", "ingress"))):
                here = (index, "spec", "ingress", number)
                if not at(rule, "from"):
                    yield Violation((*here, "from"), at(rule, "from"))
                for source, whom in enumerate(listed(at(rule, "from"))):
                    if _is_everybody(whom):
                        yield Violation((*here, "from", source), whom)


def _is_everybody(source: Any) -> bool:
    """Whether a source of a NetworkPolicy is every pod of a namespace or of all, or every address."""
    if str(at(source, "ipBlock", "cidr")).endswith("/0"):
        return True
    selectors = [mapping(source).get(key) for key in ("podSelector", "namespaceSelector")]
    given = [each for each in selectors if isinstance(each, dict)]
    return bool(given) and not any(each.get("matchLabels") or each.get("matchExpressions") for each in given)


def _not_exposed(documents: Any) -> Iterator[Violation]:
    for path, cluster in clusters(documents):
        here, head = (*path, "headGroupSpec"), cluster.get("headGroupSpec")
        for key in (("serviceType",), ("headService", "spec", "type")):
            if (kind := at(head, *key)) not in (None, "ClusterIP"):
                yield Violation((*here, *key), kind)
        if at(head, "enableIngress"):
            yield Violation((*here, "enableIngress"), True)
    for index, each in enumerate(documents):
        kind = at(each, "kind")
        if kind in ("Ingress", "HTTPRoute", "Gateway", "Route"):
            yield Violation((index, "kind"), kind)
        if kind == "Service":
            if (found := at(each, "spec", "type")) not in (None, "ClusterIP"):
                yield Violation((index, "spec", "type"), found)
            if at(each, "spec", "externalIPs"):
                yield Violation((index, "spec", "externalIPs"), at(each, "spec", "externalIPs"))


def _pinned_ray(documents: Any) -> Iterator[Violation]:
    for path, cluster in clusters(documents):
        version = cluster.get("rayVersion")
        if version is None or (says := pin_problem(f"=={version}")) is not None:
            yield Violation((*path, "rayVersion"), None if version is None else f"{version}, {says}")


def _no_api(documents: Any) -> Iterator[Violation]:
    for path, template, is_head in templates(documents):
        here = ("spec", "automountServiceAccountToken")
        if not is_head and at(template, *here) is not False:
            yield Violation((*path, *here), at(template, *here))


def _usage_statistics(documents: Any) -> Iterator[Violation]:
    for path, container in nodes(documents):
        env = values_by_name(container.get("env"))
        if env.get("RAY_USAGE_STATS_ENABLED") != "0":
            yield Violation((*path, "env"), env.get("RAY_USAGE_STATS_ENABLED"))


def _metrics(documents: Any) -> Iterator[Violation]:
    for path, container in nodes(documents):
        env = values_by_name(container.get("env"))
        if env.get(METRICS) != "0":
            yield Violation((*path, "env"), env.get(METRICS))


def _limits(documents: Any) -> Iterator[Violation]:
    for path, container in nodes(documents):
        for key in ("cpu", "memory"):
            if at(container, "resources", "limits", key) is None:
                yield Violation((*path, "resources", "limits", key))


def _head_without_cpus(documents: Any) -> Iterator[Violation]:
    for path, cluster in clusters(documents):
        cpus = at(cluster, "headGroupSpec", "rayStartParams", "num-cpus")
        if cpus != "0":
            yield Violation((*path, "headGroupSpec", "rayStartParams", "num-cpus"), cpus)


def _bounded(documents: Any) -> Iterator[Violation]:
    for path, cluster in clusters(documents):
        if cluster.get("enableInTreeAutoscaling") is not True:
            yield Violation((*path, "enableInTreeAutoscaling"), cluster.get("enableInTreeAutoscaling"))
        for index, group in enumerate(listed(cluster.get("workerGroupSpecs"))):
            here = (*path, "workerGroupSpecs", index)
            if at(group, "minReplicas") != 0:
                yield Violation((*here, "minReplicas"), at(group, "minReplicas"))
            if not isinstance(at(group, "maxReplicas"), int):
                yield Violation((*here, "maxReplicas"))


def _idle(documents: Any) -> Iterator[Violation]:
    for path, cluster in clusters(documents):
        seconds = at(cluster, "autoscalerOptions", "idleTimeoutSeconds")
        if not isinstance(seconds, int) or not 0 < seconds <= 3600:
            yield Violation((*path, "autoscalerOptions", "idleTimeoutSeconds"), seconds)


def _job_ends(documents: Any) -> Iterator[Violation]:
    for index, each in enumerate(documents):
        if at(each, "kind") == "RayJob" and at(each, "spec", "shutdownAfterJobFinishes") is not True:
            yield Violation((index, "spec", "shutdownAfterJobFinishes"), at(each, "spec", "shutdownAfterJobFinishes"))


RULES = (
    Rule(
        "token-auth",
        "whoever reaches Ray's ports runs code on the cluster (CVE-2023-48022)",
        "write authOptions: {mode: token}",
        _token,
    ),
    Rule(
        "closed-network",
        "by default all pods of a Kubernetes cluster reach each other, and Ray's metrics ports ask for no token",
        "give the pods a label that a NetworkPolicy with policyTypes: [Ingress] here selects, and let in by name",
        _closed_network,
    ),
    Rule(
        "not-exposed",
        "the dashboard takes jobs, which are code",
        "leave the service at ClusterIP, without an ingress, and use kubectl port-forward",
        _not_exposed,
    ),
    Rule(
        "ray-pinned",
        "head and workers must be one version",
        'write rayVersion: "2.60.0", that of the image',
        _pinned_ray,
    ),
    Rule(
        "workers-without-api",
        "a job on a worker needs no access to Kubernetes",
        "write automountServiceAccountToken: false in the worker's pod",
        _no_api,
    ),
    Rule("no-usage-statistics", "Ray reports home", 'set RAY_USAGE_STATS_ENABLED to "0" in env', _usage_statistics),
    Rule(
        "metrics-closed",
        "Ray's metrics port asks for no token",
        f'set {METRICS} to "0" in env',
        _metrics,
    ),
    Rule("limited", "Ray takes a pod's limits for what the node has", "write limits of cpu and memory", _limits),
    Rule(
        "head-computes-nothing",
        "a trial on the head can starve the study's driver",
        'write rayStartParams: {num-cpus: "0"}',
        _head_without_cpus,
    ),
    Rule(
        "workers-bounded",
        "without a lower bound of 0 and an upper one, machines are paid for that nobody uses",
        "write enableInTreeAutoscaling: true, minReplicas: 0 and a maxReplicas",
        _bounded,
    ),
    Rule(
        "idle-ends", "idle pods hold GPUs", "write autoscalerOptions: {idleTimeoutSeconds: 600} (at most 3600)", _idle
    ),
    Rule("job-ends", "a finished job would hold its pods", "write shutdownAfterJobFinishes: true", _job_ends),
    *pods.RULES,
)


def rules(documents: list[Any]) -> list[Problem]:
    """The defaults for KubeRay that the objects break; paths begin with the number of the document."""
    return apply(RULES, documents)


def quantity(value: Any) -> float:
    """Kubernetes' "8", 8 or "500m" as a number; 0 for what is none."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(m?)", shown(value))
    return amount(float(found[1]) / (1000 if found[2] else 1)) if found else 0.0
