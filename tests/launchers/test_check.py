"""The shipped cluster files, and what is said about each change for the worse."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from arat_ray.cli import main
from arat_ray.experiment.config import load
from arat_ray.experiment.spec import Resources
from arat_ray.launchers import aws, azure, defaults, gcp, kuberay, pods, ray_up, slurm
from arat_ray.launchers.check import check
from arat_ray.launchers.document import PLACEHOLDER, documents
from arat_ray.launchers.schema import folder_of
from tests.launchers.filled import CLUSTERS, ROOT, SHIPPED, VALUES, changed, filled
from tests.launchers.worse import BROKEN


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
            found = [pod for _, each in pods.clusters(loaded(name)) for pod in pods_of(each)]
            assert len(found) == 4
            for pod in found:
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


def batch(folder: Path, **programs: str) -> subprocess.CompletedProcess[str]:
    """clusters/slurm.sh as a batch job of one node, with stand-ins for Slurm's and Ray's programs."""
    stand_ins = folder / "venv" / "bin"
    stand_ins.mkdir(parents=True, exist_ok=True)
    given = {
        "scontrol": "echo node1",
        "srun": 'while [[ "$1" == --* ]]; do shift; done; exec "$@"',
        "hostname": "echo 10.0.0.1",
        "ray": 'stat --format=\'%a %n\' "$RAY_TMPDIR" "$RAY_AUTH_TOKEN_PATH"; wc -c < "$RAY_AUTH_TOKEN_PATH"',
        "python": "printf %064d 7",
    }
    for name, text in {**given, **programs}.items():
        (stand_ins / name).write_text(f"#!/bin/bash\n{text}\n")
        (stand_ins / name).chmod(0o700)
    (folder / "slurm.sh").write_text(filled("slurm.sh"))
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_NODELIST": "node1", "SLURM_CPUS_PER_TASK": "8"}
    environment = {"HOME": str(folder), "PATH": "/usr/bin:/bin", "SLURM_JOB_USER": "me", **job}
    command = ["bash", str(folder / "slurm.sh"), "layers.yaml"]
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)


def test_under_slurm_rays_folder_and_the_token_are_ones_own_and_end_with_the_job(tmp_path: Path) -> None:
    seen = set()
    for _ in range(2):
        done = batch(tmp_path)
        assert done.returncode == 0, done.stderr
        own, token, size = done.stdout.splitlines()[:3]
        assert re.fullmatch(r"700 /tmp/ray-\w{10}", own)
        assert re.fullmatch(rf"600 {tmp_path}/\.ray-token\.7\.\w{{10}}", token)
        assert size == "64"
        seen |= {own, token}
        assert not Path(own.partition(" ")[2]).exists()
        assert not list(tmp_path.glob(".ray-token*"))
    assert len(seen) == 4, "no name is used again"


@pytest.mark.parametrize("plant", ["folder", "link"])
def test_under_slurm_a_folder_that_others_made_is_not_used(plant: str, tmp_path: Path) -> None:
    planted = tmp_path / "planted"
    planted.mkdir(mode=0o777)
    target = planted if plant == "folder" else tmp_path / "link"
    if plant == "link":
        target.symlink_to(planted)
    guessed = f'[[ "$1" == --dry-run ]] && echo "{target}" || exec /usr/bin/mktemp "$@"'
    done = batch(tmp_path, mktemp=guessed, ray="echo started")
    assert done.returncode != 0
    assert "started" not in done.stdout
    assert not list(planted.iterdir())


def test_under_slurm_a_job_that_was_killed_leaves_no_token_behind_its_next_start(tmp_path: Path) -> None:
    (tmp_path / ".ray-token.7.abcdefghij").write_text("old")
    (tmp_path / ".ray-token.77.abcdefghij").write_text("of another job")
    failed = batch(tmp_path, ray='touch "$RAY_TMPDIR/raylet.log"; echo "$RAY_TMPDIR"; exit 3')
    assert failed.returncode == 3
    assert [each.name for each in tmp_path.glob(".ray-token*")] == [".ray-token.77.abcdefghij"]
    (log,) = Path(failed.stdout.strip()).iterdir()
    assert log.name == "raylet.log", "Ray's logs stay where it failed"
    shutil.rmtree(log.parent)
