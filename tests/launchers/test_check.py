"""The shipped cluster files, and what is said about each change for the worse."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from arat_ray.cli import main
from arat_ray.experiment.config import Resources, load
from arat_ray.launchers import aws, azure, capacity, defaults, gcp, kuberay, ray_up, slurm
from arat_ray.launchers.check import CLOUDS, check
from arat_ray.launchers.document import PLACEHOLDER, documents
from arat_ray.launchers.problems import Problem
from arat_ray.launchers.schema import folder_of
from tests.launchers.filled import CLUSTERS, ROOT, SHIPPED, VALUES, changed, filled


def problems(tmp_path: Path, name: str, text: str, resources: Resources | None = None) -> list[str]:
    file = tmp_path / name
    file.write_text(text)
    return [line.removeprefix(f"{file}:") for line in check(file, resources).problems]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_file_lacks_nothing_but_what_only_its_user_knows(name: str) -> None:
    found = check(CLUSTERS / name).problems
    assert found
    assert all(re.search(r"<your-[a-z0-9-]+> is not filled in", line) for line in found)


@pytest.mark.parametrize("name", SHIPPED)
def test_each_placeholder_is_named_with_its_line(name: str) -> None:
    lines = (CLUSTERS / name).read_text().splitlines()
    in_comments = re.compile(r"^\s*#(?!SBATCH)|\s#.*")
    wanted = {
        (number, found)
        for number, line in enumerate(lines, 1)
        for found in PLACEHOLDER.findall(in_comments.sub("", line) if not in_comments.match(line) else "")
    }
    said = {
        (int(found[1]), found[2])
        for line in check(CLUSTERS / name).problems
        if (found := re.match(r".*?:(\d+): .*?(<your-[a-z0-9-]+>)", line))
    }
    assert said == wanted


@pytest.mark.parametrize("name", SHIPPED)
def test_a_file_is_ready_when_it_is_filled_in(name: str, tmp_path: Path) -> None:
    assert problems(tmp_path, name, filled(name)) == []


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_file_opens_with_its_commands_its_cost_and_what_to_fill_in(name: str) -> None:
    text = (CLUSTERS / name).read_text()
    head = "\n".join(line for line in text.split("\n\n")[0].splitlines() if line.startswith("#"))
    assert f"arat-ray cluster check clusters/{name}" in head
    assert "Cost per hour" in head
    fill = head[head.index("To be filled in") :]
    unfilled = {line.split(" is not filled in")[0].rsplit(" ", 1)[-1] for line in check(CLUSTERS / name).problems}
    assert unfilled <= set(PLACEHOLDER.findall(fill)) | {"<your-worker-2>"}
    assert unfilled <= VALUES.keys()


def test_what_the_commands_of_a_shipped_file_run_writes_where_all_nodes_see_it_and_it_stays() -> None:
    for name in SHIPPED:
        text = (CLUSTERS / name).read_text().replace("\\\n#", "").replace("\\\n", "")
        runs = [line for line in text.splitlines() if re.search(r"arat-ray (submit|tune) ", line)]
        assert runs, name
        places = [found for line in runs for found in re.findall(r"--results[ =](\S+)", line)]
        assert len(places) == len(runs), f"{name}: {runs}"
        (place,) = set(places)
        if name == "aws.yaml":
            head, worker = (aws_policies()[kind] for kind in ("head", "worker"))
            for policy in (head, worker):
                assert f"arn:aws:s3:::{place.removeprefix('s3://')}/*" in json.dumps(policy)
        elif name == "kuberay.yaml":
            pods = [pod for _, each in kuberay.clusters(loaded(name)) for pod in pods_of(each)]
            assert len(pods) == 4
            for pod in pods:
                (mount,) = [each for each in pod["containers"][0]["volumeMounts"] if each["mountPath"] == place]
                (volume,) = [each for each in pod["volumes"] if each["name"] == mount["name"]]
                assert volume["persistentVolumeClaim"] == {"claimName": "<your-results-claim>"}
            assert "PersistentVolumeClaim" not in {each["kind"] for each in loaded(name)}, "`kubectl delete` would"
        elif name != "slurm.sh":
            (config,) = loaded(name)
            used = [line for _, line in ray_up.commands(config, "initialization_commands") if place in line]
            assert any(re.search(rf"mount -t nfs.* {place}|test -w {place} \|\| {{ echo", line) for line in used), name


def loaded(name: str) -> list[Any]:
    return [each.data for each in documents(CLUSTERS / name)]


def aws_policies() -> Any:
    return json.loads((CLUSTERS / "aws-iam.json").read_text())


def pods_of(cluster: Any) -> list[Any]:
    return [each["template"]["spec"] for each in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


@pytest.mark.parametrize("name", SHIPPED)
def test_placeholders_that_are_left_in_comments_do_not_matter(name: str, tmp_path: Path) -> None:
    head, separator, _ = (CLUSTERS / name).read_text().partition("\n#SBATCH" if name.endswith(".sh") else "\n\n")
    body = filled(name).partition(separator)[2]
    assert PLACEHOLDER.search(head)
    assert problems(tmp_path, name, head + separator + body) == []


BROKEN = [
    # the clouds' own models, and Ray's schema closed
    (
        "aws.yaml",
        "InstanceType: m6i.xlarge",
        "InstanceTyp: m6i.xlarge",
        "unknown key 'InstanceTyp'; did you mean 'InstanceType'",
    ),
    (
        "aws.yaml",
        "InstanceType: g5.2xlarge",
        "InstanceType: g5.2xlrge",
        "g5.2xlrge is not known; did you mean 'g5.2xlarge'",
    ),
    (
        "aws.yaml",
        "cache_stopped_nodes:",
        "cache_stopped_node:",
        "key 'cache_stopped_node'; did you mean 'cache_stopped_nodes'",
    ),
    ("aws.yaml", "VolumeSize: 100", "VolumeSize: large", "Ebs.VolumeSize: large is not a whole number"),
    ("aws.yaml", "HttpTokens: required", "HttpToken: required", "did you mean 'HttpTokens'"),
    ("aws.yaml", "MarketType: spot", "MarketType: spots", "spots is not known; did you mean 'spot'"),
    ("aws.yaml", "SubnetIds: [subnet-0123456789abcdef0]", "SubnetIds: subnet-1", "SubnetIds: subnet-1 is not a list"),
    ("aws.yaml", "[subnet-0123456789abcdef0]", "[7]", "SubnetIds[0]: 7 is not text"),
    ("aws.yaml", "idle_timeout_minutes:", "idle_timeout_minuts:", "did you mean 'idle_timeout_minutes'"),
    ("aws.yaml", "    max_workers: 8", "    max_worker: 8", "worker.max_worker: unknown key"),
    ("aws.yaml", "head_node_type: head", "head_node_type: haed", "haed is not among available_node_types"),
    ("aws.yaml", "  region: us-west-2\n", "", "provider.region: is missing"),
    ("aws.yaml", "type: aws", "type: asw", "asw cannot be checked; did you mean 'aws'"),
    ("aws.yaml", "      KeyName: arat-ray\n", "", "KeyName: is missing"),
    ("aws.yaml", "upscaling_speed: 1.0", "upscaling_speed: fast", "upscaling_speed: fast is not a number"),
    ("aws.yaml", "max_workers: 8", "max_workers: 8\nmin_workers: 0", "unknown key 'min_workers'"),
    ("aws.yaml", "resources: {CPU: 8, GPU: 1}", "resources: {CPU: 8, GPU: one}", "GPU: one is not a whole number"),
    ("gcp.yaml", "machineType: g2-standard-8", "machineTyp: g2-standard-8", "did you mean 'machineType'"),
    ("gcp.yaml", "provisioningModel: SPOT", "provisioningModel: SPOTS", "SPOTS is not known"),
    ("gcp.yaml", "onHostMaintenance: TERMINATE", "onHostMaintenance: STOP", "STOP is not known"),
    ("gcp.yaml", "autoDelete: true", "autoDelete: maybe", "autoDelete: maybe is not true or false"),
    ("gcp.yaml", "      scheduling:\n", "      scheduling: []\n      schedule:\n", "scheduling: [] is not a mapping"),
    ("gcp.yaml", "  project_id: robust-lab\n", "", "provider.project_id: is missing"),
    ("azure.yaml", "vmSize: Standard_D4s_v5", "vmsize: Standard_D4s_v5", "did you mean 'vmSize'"),
    ("azure.yaml", "osDiskSize: 150", "osDiskSize: big", "osDiskSize: big is not a whole number"),
    ("azure.yaml", "priority: Spot", "priority: Spott", "Spott is not known; did you mean 'Spot'"),
    ("azure.yaml", "location: westus2", "region: westus2", "provider.location: is missing"),
    (
        "azure.yaml",
        "azure_arm_parameters: &common",
        "azure_parameters: {}\n      azure_arm_parameters: &common",
        "azure_parameters",
    ),
    ("local.yaml", "192.168.7.3]", "7]", "worker_ips[1]: 7 is not text"),
    ("local.yaml", "worker_ips:", "worker_ip:", "did you mean 'worker_ips'"),
    ("local.yaml", "min_workers: 2", "available_node_types: {}", "has no place with provider local"),
    ("kuberay.yaml", "workerGroupSpecs:", "workerGroups:", "did you mean 'workerGroupSpecs'"),
    ("kuberay.yaml", "maxReplicas: 8", "maxReplica: 8", "did you mean 'maxReplicas'"),
    ("kuberay.yaml", "image: reg", "imag: reg", "key 'imag'; did you mean 'image'"),
    ("kuberay.yaml", "mountPath: /results}]", "mountPoint: /results}]", "did you mean 'mountPath'"),
    ("kuberay.yaml", "shutdownAfterJobFinishes", "shutdownAfterJobFinish", "did you mean 'shutdownAfterJobFinishes'"),
    ("kuberay.yaml", "kind: RayCluster", "kind: RayClusters", "RayClusters is not known; did you mean 'RayCluster'"),
    ("kuberay.yaml", "policyTypes: [Ingress]", "policyType: [Ingress]", "did you mean 'policyTypes'"),
    ("kuberay.yaml", "mode: token", "mode: tokens", "tokens is not known"),
    ("kuberay.yaml", "minReplicas: 0", 'minReplicas: "0"', "minReplicas: 0 is not a whole number"),
    ("slurm.sh", "--gpus-per-node=1", "--gpu-per-node=1", "did you mean 'gpus-per-node'"),
    ("slurm.sh", "--nodes=4", "--nodes=four", "nodes: four is not a whole number"),
    ("slurm.sh", "#SBATCH --time=24:00:00\n", "", "time: is missing"),
    ("slurm.sh", "| awk '{print $1}')", "| awk '{print $1}'", "bash cannot read it"),
    # the defaults, by name; each with a reason and a fix
    ("aws.yaml", "export RAY_AUTH_MODE=token", "export", "setup_commands: is missing [token-auth]"),
    ("aws.yaml", "ulimit -n 65536; ray start --address", "RAY_AUTH_MODE=disabled ray start --address", "[token-auth]"),
    ("aws.yaml", '  "~/.ray": "~/.ray" ', '  "~/ray": "~/.ray" ', "[token-sent]"),
    ("aws.yaml", "umask 077; mkdir", "mkdir", "initialization_commands: is missing [token-private]"),
    ("aws.yaml", "chmod 600 ~/.ray/auth_token", "true", "setup_commands: is missing [token-private]"),
    (
        "aws.yaml",
        "--dashboard-host=127.0.0.1",
        "--dashboard-host=0.0.0.0",
        "--dashboard-host=0.0.0.0 [dashboard-local]",
    ),
    ("aws.yaml", " --dashboard-host=127.0.0.1", "", "is missing [dashboard-local]"),
    ("aws.yaml", " RAY_USAGE_STATS_ENABLED=0", "", "[no-usage-statistics]"),
    ("aws.yaml", "==2.60.0", ">=2.60", "ray[default,train,tune]>=2.60, not one exact version [ray-pinned]"),
    ("aws.yaml", "==2.60.0", "", "is ray[default,train,tune] [ray-pinned]"),
    ("aws.yaml", "==2.60.0", "==2.51.0", "older than 2.52 (CVE-2025-62593) [ray-pinned]"),
    ("aws.yaml", "==2.60.0", "==2.59.1", "where arat-ray is made for 2.60 [ray-pinned]"),
    ("aws.yaml", "--object-manager-port=8076", "--object-manager-port=10076", "[ports-apart]"),
    ("aws.yaml", "{CPU: 0}", "{CPU: 4}", "resources.CPU: is 4 [head-computes-nothing]"),
    ("aws.yaml", "min_workers: 0", "min_workers: 1", "worker.min_workers: is 1 [workers-bounded]"),
    ("aws.yaml", "    max_workers: 8\n", "", "worker.max_workers: is missing [workers-bounded]"),
    ("aws.yaml", "\nmax_workers: 8\n", "\n", "max_workers: is missing [workers-bounded]"),
    ("aws.yaml", "idle_timeout_minutes: 10", "idle_timeout_minutes: 600", "is 600 [idle-ends]"),
    ("aws.yaml", "idle_timeout_minutes: 10\n", "", "idle_timeout_minutes: is missing [idle-ends]"),
    ("aws.yaml", "cache_stopped_nodes: false", "cache_stopped_nodes: true", "is true [down-terminates]"),
    ("aws.yaml", "SecurityGroupIds: [sg-0123456789abcdef0]", "SecurityGroupIds: []", "is [] [own-security-group]"),
    (
        "aws.yaml",
        "  type: aws\n",
        "  type: aws\n  security_group: {IpPermissions: [{FromPort: 22, IpRanges: [{CidrIp: 0.0.0.0/0}]}]}\n",
        "is 0.0.0.0/0 [own-security-group]",
    ),
    ("aws.yaml", "HttpTokens: required", "HttpTokens: optional", "HttpTokens: is optional [imds-v2]"),
    ("aws.yaml", "HttpPutResponseHopLimit: 1", "HttpPutResponseHopLimit: 2", "is 2 [imds-v2]"),
    ("aws.yaml", "Encrypted: true", "Encrypted: false", "Ebs.Encrypted: is false [encrypted-disk]"),
    ("aws.yaml", "VolumeType: gp3", "VolumeType: gp2", "is gp2 [encrypted-disk]"),
    ("aws.yaml", "DeleteOnTermination: true", "DeleteOnTermination: false", "[encrypted-disk]"),
    ("aws.yaml", "{Name: arat-ray-worker}", "{Name: arat-ray-head}", "is arat-ray-head [own-instance-profile]"),
    ("aws.yaml", "      IamInstanceProfile: {Name: arat-ray-head}\n", "", "is missing [own-instance-profile]"),
    ("aws.yaml", "      InstanceMarketOptions: {MarketType: spot}\n", "", "is missing [spot-workers]"),
    ("gcp.yaml", "cache_stopped_nodes: false", "cache_stopped_nodes: true", "[down-terminates]"),
    ("gcp.yaml", "subnetworks/arat-ray", "subnetworks/default", "[own-network]"),
    ("gcp.yaml", "  ssh_private_key: ~/.ssh/arat-ray\n", "", "auth.ssh_private_key: is missing [own-key]"),
    ("gcp.yaml", 'block-project-ssh-keys, value: "true"', 'block-project-ssh-keys, value: "false"', "[own-key]"),
    ("gcp.yaml", "autoDelete: true", "autoDelete: false", "[disk-ends]"),
    ("gcp.yaml", "arat-ray-worker@robust-lab.iam", "1-compute@developer", "[own-worker-account]"),
    ("gcp.yaml", "auth/devstorage.read_write", "auth/cloud-platform", "[own-worker-account]"),
    ("gcp.yaml", "provisioningModel: SPOT", "provisioningModel: STANDARD", "is STANDARD [spot-workers]"),
    ("gcp.yaml", "instanceTerminationAction: DELETE", "instanceTerminationAction: STOP", "is STOP [spot-workers]"),
    ("azure.yaml", "use_internal_ips: true", "use_internal_ips: false", "[no-public-address]"),
    (
        "azure.yaml",
        "use_internal_ips: true",
        "use_internal_ips: true\n  use_external_head_ip: true",
        "[no-public-address]",
    ),
    ("azure.yaml", "priority: Spot", "priority: Regular", "is Regular [spot-workers]"),
    ("azure.yaml", "evictionPolicy: Delete", "evictionPolicy: Deallocate", "is Deallocate [spot-workers]"),
    ("azure.yaml", "{CPU: 0}", "{CPU: 4}", "[head-computes-nothing]"),
    ("local.yaml", "--dashboard-host=127.0.0.1", "--dashboard-host=0.0.0.0", "[dashboard-local]"),
    ("local.yaml", "--num-cpus=0 ", "", "[head-computes-nothing]"),
    ("local.yaml", "RAY_AUTH_MODE=token RAY", "RAY", "[token-auth]"),
    ("kuberay.yaml", "authOptions: {mode: token}", "authOptions: {mode: disabled}", "is disabled [token-auth]"),
    ("kuberay.yaml", "labels: {app: arat-ray}", "labels: {app: other}", "[closed-network]"),
    ("kuberay.yaml", "policyTypes: [Ingress]", "policyTypes: [Egress]", "[closed-network]"),
    ("kuberay.yaml", "serviceType: ClusterIP", "serviceType: LoadBalancer", "is LoadBalancer [not-exposed]"),
    ("kuberay.yaml", "serviceType: ClusterIP", "enableIngress: true", "enableIngress: is true [not-exposed]"),
    ("kuberay.yaml", "arat-ray:0.1.0", "arat-ray:latest", "[image-pinned]"),
    ("kuberay.yaml", 'rayVersion: "2.60.0"', 'rayVersion: "2.50.0"', "CVE-2025-62593) [ray-pinned]"),
    ("kuberay.yaml", "runAsNonRoot: true", "runAsNonRoot: false", "[runs-unprivileged]"),
    ("kuberay.yaml", "name: ray-head\n", "name: ray-head\n            tty: true\n", None),
    (
        "kuberay.yaml",
        "            securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}",
        "            securityContext: {privileged: true}",
        "privileged: is true [runs-unprivileged]",
    ),
    (
        "kuberay.yaml",
        "automountServiceAccountToken: false",
        "automountServiceAccountToken: true",
        "[workers-without-api]",
    ),
    ("kuberay.yaml", 'STATS_ENABLED, value: "0"', 'STATS_ENABLED, value: "1"', "[no-usage-statistics]"),
    ("kuberay.yaml", 'limits: {cpu: "4", memory: 8Gi}', 'limits: {cpu: "4"}', "limits.memory: is missing [limited]"),
    ("kuberay.yaml", 'num-cpus: "0"', 'num-cpus: "4"', "[head-computes-nothing]"),
    ("kuberay.yaml", "minReplicas: 0", "minReplicas: 1", "[workers-bounded]"),
    ("kuberay.yaml", "enableInTreeAutoscaling: true", "enableInTreeAutoscaling: false", "[workers-bounded]"),
    ("kuberay.yaml", "idleTimeoutSeconds: 600", "idleTimeoutSeconds: 86400", "[idle-ends]"),
    ("kuberay.yaml", "shutdownAfterJobFinishes: true", "shutdownAfterJobFinishes: false", "[job-ends]"),
    ("slurm.sh", "RAY_AUTH_MODE=token", "RAY_AUTH_MODE=disabled", "is disabled [token-auth]"),
    ("slurm.sh", "RAY_AUTH_MODE=token ", "", "[token-auth]"),
    ("slurm.sh", "umask 077\n", "", "umask: is missing [token-private]"),
    ("slurm.sh", "trap 'rm -f \"$RAY_AUTH_TOKEN_PATH\"' EXIT\n", "", "[token-removed]"),
    ("slurm.sh", "set -euo pipefail", "export RAY_AUTH_TOKEN=abc", "[token-hidden]"),
    ("slurm.sh", " --kill-on-bad-exit=1", "", "[one-cluster]"),
    ("slurm.sh", '--min-nodes "$SLURM_JOB_NUM_NODES"', "", "[one-cluster]"),
    ("slurm.sh", ' --cpus-per-task="$SLURM_CPUS_PER_TASK"', "", "[all-cpus]"),
    ("slurm.sh", " --dashboard-host=127.0.0.1", "", "[dashboard-local]"),
    ("slurm.sh", "--dashboard-host=127.0.0.1", "--dashboard-host=0.0.0.0", "is 0.0.0.0 [dashboard-local]"),
    ("slurm.sh", " RAY_USAGE_STATS_ENABLED=0", "", "[no-usage-statistics]"),
    ("slurm.sh", "#SBATCH --exclusive\n", "", "[nodes-alone]"),
]


@pytest.mark.parametrize(("name", "old", "new", "said"), BROKEN, ids=[f"{n}-{w!r}"[:70] for n, _, w, _ in BROKEN])
def test_a_change_for_the_worse_is_refused_by_what_it_broke(
    name: str, old: str, new: str, said: str | None, tmp_path: Path
) -> None:
    found = problems(tmp_path, name, changed(name, old, new))
    if said is None:
        assert found == []
        return
    assert any(said in line for line in found), found
    assert all("; " in line for line in found), "each problem ends with its fix"


def test_every_rule_is_broken_by_one_of_these_changes() -> None:
    tables = (
        defaults.EVERYWHERE,
        defaults.IN_A_CLOUD,
        defaults.LOCAL,
        aws.RULES,
        gcp.RULES,
        azure.RULES,
        kuberay.RULES,
        slurm.RULES,
    )
    tried = {found for *_, said in BROKEN for found in re.findall(r"\[([a-z0-9-]+)\]", said or "")}
    assert {rule.name for table in tables for rule in table} <= tried


def test_the_line_is_that_of_the_key(tmp_path: Path) -> None:
    text = changed("aws.yaml", "InstanceType: g5.2xlarge", "InstanceType: g5.2xlrge")
    wanted = next(number for number, line in enumerate(text.splitlines(), 1) if "g5.2xlrge" in line)
    assert problems(tmp_path, "aws.yaml", text)[0].startswith(f"{wanted}: available_node_types.worker.node_config")


FITS = Resources(workers=1, gpus_per_worker=1, cpus_per_worker=4)


@pytest.mark.parametrize("name", [name for name in SHIPPED if name != "local.yaml"])
def test_a_trial_with_more_gpus_than_any_node_is_refused(name: str, tmp_path: Path) -> None:
    assert problems(tmp_path, name, filled(name), FITS) == []
    (line, *_) = problems(tmp_path, name, filled(name), FITS.model_copy(update={"gpus_per_worker": 2}))
    assert "a worker of a trial takes 4 CPU and 2 GPU, and the largest node is" in line
    assert "1 GPU)" in line
    (line, *_) = problems(tmp_path, name, filled(name), FITS.model_copy(update={"workers": 9}))
    assert re.search(r"takes 9 workers of 4 CPU and 1 GPU, and all nodes together hold [48]: ", line)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_experiment_that_its_commands_name_fits_onto_each_cluster(name: str, tmp_path: Path) -> None:
    assert "search_spaces/layers.yaml" in filled(name)
    assert problems(tmp_path, name, filled(name), load(ROOT / "search_spaces" / "layers.yaml").resources) == []


def test_nodes_of_unknown_size_are_left_to_the_doctor_and_stated_ones_compared(tmp_path: Path) -> None:
    file = tmp_path / "local.yaml"
    file.write_text(filled("local.yaml"))
    assert check(file, FITS).problems == []
    assert "arat-ray doctor" in check(file, FITS).notes[0]
    start = "ray start --address=$RAY_HEAD_IP:6379"
    stated = changed("local.yaml", start, f"{start} --num-cpus=8 --num-gpus=0")
    assert any(
        "the largest node is 2 x worker (8 CPU, 0 GPU)" in line for line in problems(tmp_path, "l.yaml", stated, FITS)
    )


def test_the_command_answers_ready_or_exits_with_2(tmp_path: Path) -> None:
    good, bad = tmp_path / "aws.yaml", CLUSTERS / "aws.yaml"
    good.write_text(filled("aws.yaml"))
    experiment = str(CLUSTERS.parent / "search_spaces" / "quickstart.yaml")
    done = CliRunner().invoke(main, ["cluster", "check", str(good), "--experiment", experiment])
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[0] == f"{good} is ready"
    assert re.search(r"at most 8 x worker \(8 CPU, 1 GPU\): \d+ trials at once", done.output)
    done = CliRunner().invoke(main, ["cluster", "check", str(bad)])
    assert done.exit_code == 2
    assert f"{bad}:" in done.output
    assert "is ready" not in done.output


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cluster_name: [\n", "bad.yaml:2: "),
        ("provider: {type: aws}\nprovider: {type: aws}\n", "bad.yaml:2: key 'provider' stands twice"),
        ("name: quickstart\n", "is no cluster file"),
        ("- 1\n", "is no cluster file"),
        ("", "is no cluster file"),
    ],
)
def test_what_is_no_cluster_file_is_refused_without_a_traceback(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(ValueError, match=re.escape(said)):
        check(tmp_path / "bad.yaml")


def with_one_part_replaced(part: Any, by: object) -> Iterator[Any]:
    """The same nested data, each time with another of its mappings or lists replaced."""
    items = part.items() if isinstance(part, dict) else enumerate(part)
    for key, value in items:
        if isinstance(value, dict | list):
            for other in (by, *with_one_part_replaced(value, by)):
                copy = part.copy()
                copy[key] = other
                yield copy


@pytest.mark.parametrize("name", [name for name in SHIPPED if name.endswith("yaml")])
@pytest.mark.parametrize("by", [7, None, "x", [7], {"x": 7}])
def test_parts_of_the_wrong_kind_are_problems_and_not_crashes(name: str, by: object, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_text(filled(name))
    data = [each.data for each in documents(file)]
    if name == "kuberay.yaml":
        for broken in with_one_part_replaced(data, by):
            assert kuberay.rules(broken) is not None
            assert capacity.of_kuberay(broken) is not None
        return
    for config in with_one_part_replaced(data[0], by):
        found = defaults.rules(config)
        if (cloud := CLOUDS.get(name.removesuffix(".yaml"))) is not None:
            found += cloud.rules(config) + cloud.schema(config)
        assert all(isinstance(each, Problem) for each in ray_up.schema(config) + found)
        capacity.of_ray_up(config)


def test_ray_itself_takes_the_files_that_are_ready() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    for name in ("aws.yaml", "gcp.yaml", "azure.yaml", "local.yaml"):
        config = prepare_config(yaml.safe_load(filled(name)))
        validate_config(config)
        (most, *_) = [kind["max_workers"] for kind in config["available_node_types"].values() if kind["max_workers"]]
        assert most == config["max_workers"], name


def test_a_missing_package_is_named_with_the_extra() -> None:
    with pytest.raises(
        ValueError, match=r"needs the package kubernetes_of_nowhere: pip install 'arat-ray\[launchers\]'"
    ):
        folder_of("kubernetes_of_nowhere")


def shell(name: str, home: Path, command: str) -> subprocess.CompletedProcess[str]:
    bash = shutil.which("bash")
    assert bash is not None
    environment = {"HOME": str(home), "PATH": f"{home}/stand-ins:/usr/bin:/bin"}
    return subprocess.run([bash, "-c", command], env=environment, capture_output=True, text=True, check=False)


def commands_of(name: str, *keys: str, **replaced: str) -> list[str]:
    config = yaml.safe_load(filled(name))
    found = [command for _, command in ray_up.commands(config, *keys)]
    return [command.replace("/shared/results", replaced.get("shared", "/shared/results")) for command in found]


RAY_UP = ("aws.yaml", "gcp.yaml", "azure.yaml", "local.yaml")


@pytest.mark.parametrize("name", RAY_UP)
def test_setup_commands_prepare_a_home_once_and_again(name: str, tmp_path: Path) -> None:
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("secret")
    (tmp_path / ".bashrc").write_text("export RAY_AUTH_MODE=token\n")  # as the commands at the file's head say
    dist = tmp_path / "arat-ray" / "dist"
    dist.mkdir(parents=True)
    (dist / "arat_ray-0.1.0-py3-none-any.whl").touch()
    prepare = [each for each in commands_of(name, "setup_commands") if "/uv" not in each]  # which installs packages
    for command in [commands_of(name, "initialization_commands")[0], *prepare] * 2:
        done = shell(name, tmp_path, command)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / ".ray" / "auth_token").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / ".ray").stat().st_mode & 0o777 == 0o700
    first, *rest = (tmp_path / ".bashrc").read_text().splitlines()
    assert first.startswith("export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 PATH=$HOME/venv/bin:")
    assert rest == ["export RAY_AUTH_MODE=token"]
    assert [each.name for each in dist.iterdir()] == ["arat_ray-0.1.0-py3-none-any.whl"]


@pytest.mark.parametrize("name", RAY_UP)
def test_a_node_that_lives_on_installs_the_newest_wheel_alone(name: str, tmp_path: Path) -> None:
    dist = tmp_path / "arat-ray" / "dist"
    dist.mkdir(parents=True)
    for version, built in (("0.9.0", 2), ("0.10.0", 3), ("0.8.0", 1)):
        wheel = dist / f"arat_ray-{version}-py3-none-any.whl"
        wheel.touch()
        os.utime(wheel, (built, built))
    steps = commands_of(name, "setup_commands")
    (clean,) = [step for step in steps if "rm --" in step]
    assert steps.index(clean) < next(i for i, step in enumerate(steps) if "dist/*.whl" in step and "install" in step)
    done = shell(name, tmp_path, clean)
    assert done.returncode == 0, done.stderr
    assert [each.name for each in dist.iterdir()] == ["arat_ray-0.10.0-py3-none-any.whl"]


def test_machines_of_your_own_without_the_shared_folder_are_refused(tmp_path: Path) -> None:
    (look,) = [each for each in commands_of("local.yaml", "initialization_commands") if "/shared" in each]
    done = shell("local.yaml", tmp_path, look)
    assert (done.returncode, done.stderr) == (1, "/shared/results is not there or cannot be written\n")
    assert shell("local.yaml", tmp_path, look.replace("/shared/results", str(tmp_path))).returncode == 0


@pytest.mark.parametrize("name", ["gcp.yaml", "azure.yaml"])
def test_nodes_of_a_cloud_mount_the_share_and_stop_where_they_cannot(name: str, tmp_path: Path) -> None:
    (tmp_path / "stand-ins").mkdir()
    sudo = tmp_path / "stand-ins" / "sudo"
    sudo.write_text('#!/bin/sh\necho "$@"\n')
    sudo.chmod(0o700)
    install, mount = [each for each in commands_of(name, "initialization_commands") if "nfs" in each]
    assert shell(name, tmp_path, f"{{ {install}; }} && {{ {mount}; }}").returncode == 0
    make, last = shell(name, tmp_path, mount).stdout.splitlines()
    assert make == "mkdir -p /results"
    assert re.fullmatch(r"mount -t nfs( -o \S+)? 10\.84\.0\.9:/results /results", last)
    sudo.write_text('#!/bin/sh\n[ "$1" != mount ]\n')
    assert shell(name, tmp_path, mount).returncode == 1


def test_the_laptop_gets_the_versions_of_azures_packages_that_the_head_gets() -> None:
    text = (CLUSTERS / "azure.yaml").read_text()
    (laptop,) = re.findall(r"^#   pip install (.*\\\n.*)$", text, re.MULTILINE)
    head = " ".join(commands_of("azure.yaml", "head_setup_commands"))
    pins = re.compile(r"[\w-]+==[\w.]+")
    assert len(pins.findall(head)) == 8
    assert sorted(pins.findall(laptop)) == sorted(pins.findall(head))
