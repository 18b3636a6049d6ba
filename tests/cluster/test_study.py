"""Whole studies on Ray: start, stop, kill, resume, extend; one worker and two; failures."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ray._private import node as ray_node
from rich.console import Console

from arat_ray.exit_codes import BUDGETS, INTERRUPTED
from arat_ray.experiment.spec import Experiment
from arat_ray.frontier.dominance import non_dominated
from arat_ray.results import reader
from arat_ray.study.progress import Progress
from arat_ray.study.recorder import Recorder
from arat_ray.study.single import _NoTrials
from arat_ray.study.state import trial_id
from arat_ray.training import checkpoint
from tests import moving
from tests.cluster.studies import (
    COMMAND,
    EXPERIMENT,
    ray_processes,
    state_of,
    title,
    tune,
    tune_command,
    tune_without_ray,
    tune_words,
    wait_until,
    without_ray,
)
from tests.study.driving import opened

pytestmark = pytest.mark.ray
psutil: Any = ray_node.psutil
Write = Callable[..., Path]


def rows(file: Path, table: str) -> list[dict[str, Any]]:
    return list(reader.read(file.parent / "results" / "small", table).to_pylist())


def rows_so_far(file: Path, table: str) -> list[dict[str, Any]]:
    return rows(file, table) if reader.part_files(file.parent / "results" / "small" / table) else []


def assert_whole(file: Path, trials: int, epochs: int = 3, begun_anew: str | None = None) -> None:
    """As many trials as asked for, each complete, each epoch once, the front marked, no Optuna trial running.

    A trial that was begun anew has an attempt more, of which epochs may be left.
    """
    found = rows(file, "trials")
    if begun_anew:
        (lost,) = (row for row in found if row["trial_id"] == begun_anew and row["attempt"] == 1)
        assert lost["status"] == "failed"
        assert "not a checkpoint of arat-ray" in lost["error"]
        found.remove(lost)
    assert sorted(row["number"] for row in found) == list(range(trials))
    assert {row["status"] for row in found} == {"complete"}
    keys = Counter((row["trial_id"], row["attempt"], row["epoch"]) for row in rows(file, "epochs"))
    assert set(keys.values()) == {1}
    wanted = {(row["trial_id"], row["attempt"], epoch) for row in found for epoch in range(1, epochs + 1)}
    assert {key for key in set(keys) - wanted if key[:2] != (begun_anew, 1)} == set()
    assert wanted <= set(keys)
    front = non_dominated([[row["clean_accuracy"], row["robust_accuracy"]] for row in found])
    assert [row["on_front"] for row in found] == front.tolist()
    journal = (file.parent / "results" / "small" / "journal" / "optuna.log").read_text()
    assert journal


def test_a_study_runs_to_its_end_prints_the_front_and_is_extended_after_its_data_has_moved(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARAT_CACHE", str(tmp_path / "cache"))
    moving.parquet(tmp_path / "sets/train.parquet", count=800)
    moving.parquet(tmp_path / "sets/test.parquet", first=900, count=40)
    places = {key: str(tmp_path / f"sets/{key}.parquet") for key in ("train", "test")}
    train = EXPERIMENT["train"] | {"dataset": {"name": "parquet", **places}}
    file = write(train=train)
    done = tune(file, "--trials", "2")
    assert done.returncode == 0, done.stderr
    assert "front: " in done.stdout
    assert done.stdout.splitlines()[-1] == "budget.trials: all 2 trials have ended"
    assert "Traceback" not in done.stderr
    chatter = [line for line in done.stderr.splitlines() if "starting Ray" not in line and "chmod 600" not in line]
    assert len(chatter) <= 2, done.stderr  # Ray's own is silenced
    assert done.stderr.startswith("starting Ray\n") or "chmod 600" in done.stderr.splitlines()[0]
    assert "starting 2 worker(s)" in done.stdout
    assert_whole(file, trials=2)
    (tmp_path / "sets").rename(tmp_path / "elsewhere")
    again = tune_without_ray(file, "--trials", "2", "--data", str(tmp_path / "elsewhere"))
    assert again.returncode == 0, again.stderr
    assert "all 2 trials" in again.stdout
    monkeypatch.setenv("ARAT_DATA", str(tmp_path / "elsewhere"))
    study, before = file.parent / "results" / "small", tmp_path / "before"
    for table in ("trials", "epochs"):
        shutil.copytree(study / table, before / table)
    more = tune(file, "--trials", "3")
    assert more.returncode == 0, more.stderr
    assert_whole(file, trials=3)
    for table in ("trials", "epochs"):  # as if the driver had been killed between the record and its tables
        shutil.rmtree(study / table)
        shutil.move(before / table, study)
    again = tune_without_ray(file, "--trials", "3")
    assert "all 3 trials" in again.stdout
    assert_whole(file, trials=3)
    assert_front_is_attacked(study)
    moving.parquet(tmp_path / "elsewhere/train.parquet", first=1, count=800)
    refused = tune_without_ray(file, "--trials", "4")
    assert refused.returncode == 2
    assert "holds results of other data: other pixels and labels of the 800 train images" in refused.stderr
    moving.parquet(tmp_path / "elsewhere/train.parquet", count=800)
    other = write(train=train, search={"method.invariance_weight": {"loguniform": [0.1, 100]}})
    refused = tune_without_ray(other)
    assert refused.returncode == 2
    assert "search.method.invariance_weight.loguniform is [0.1, 10.0] there and [0.1, 100.0] here" in refused.stderr


def assert_front_is_attacked(study: Path) -> None:
    """With AutoAttack, spread over Ray, into the tables that the front is then drawn from."""
    conditions = ("--attack", "autoattack", "--split", "test")
    asked = ("evaluate", str(study), "--front", *conditions, "--epsilon", "0.05", "--images", "4", "--batch-size", "2")
    done = subprocess.run([*COMMAND, *asked, "--workers", "2"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    members = {row["trial_id"] for row in reader.read(study, "trials").to_pylist() if row["on_front"]}
    found = [row for row in reader.read(study, "evaluations").to_pylist() if row["attack"] == "autoattack"]
    assert {row["trial_id"] for row in found} == members
    assert [row["attack_version"] for row in found] == ["pyautoattack 0.2.0, exact"] * len(members)
    drawn = without_ray("pareto", str(study), *conditions, "--json")
    front = json.loads(drawn.stdout)
    assert (front["attack"], front["images"], front["coverage"]["evaluated"]) == ("autoattack", 4, len(members))
    measured = {(row["trial_id"], row["accuracy"]) for row in found}
    assert {(row["trial_id"], row["robust_accuracy"]) for row in front["trials"]} <= measured


def damage_a_checkpoint(study: Path, workers: set[int]) -> str | None:
    """Cut the checkpoint of a trial that has not ended in half, and say which, where there is one."""
    wait_until(lambda: not any(map(title, workers)), 90, "workers whose driver was killed to end: they still write")
    for trial in state_of(study).unfinished():
        path = study / "checkpoints" / trial_id("small", trial.number) / checkpoint.LAST
        if path.exists():
            os.truncate(path, path.stat().st_size // 2)
            return trial_id("small", trial.number)
    return None


def test_a_killed_driver_is_resumed_without_a_lost_or_doubled_row_though_a_checkpoint_is_damaged(write: Write) -> None:
    train = EXPERIMENT["train"] | {"epochs": 6, "attack": EXPERIMENT["train"]["attack"] | {"steps": 4}}
    file = write(train=train)
    moments = [lambda: len(rows_so_far(file, "epochs")) >= 2, lambda: len(rows_so_far(file, "epochs")) >= 9]
    for is_time in moments:
        driver = subprocess.Popen(tune_command(file, "--resume"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(is_time, 240, "enough epochs")
        assert driver.poll() is None
        workers = ray_processes()
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    reported = {(row["trial_id"], row["epoch"]) for row in rows(file, "epochs")}
    refused = tune_without_ray(file)
    assert refused.returncode == 2
    assert "interrupted study; go on with --resume" in refused.stderr
    damaged = damage_a_checkpoint(file.parent / "results" / "small", workers)
    done = tune(file, "--resume")
    assert done.returncode == 0, done.stderr
    assert (damaged is not None) == ("last.pt.damaged; it begins anew" in done.stdout), done.stdout
    assert_whole(file, trials=4, epochs=6, begun_anew=damaged)
    assert reported <= {(row["trial_id"], row["epoch"]) for row in rows(file, "epochs")}


def test_ctrl_c_saves_exits_with_130_and_says_how_to_go_on(write: Write) -> None:
    train = EXPERIMENT["train"] | {"epochs": 40, "attack": EXPERIMENT["train"]["attack"] | {"steps": 10}}
    file = write(train=train, budget={"trials": 2})
    driver = subprocess.Popen(tune_command(file), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: len(rows_so_far(file, "epochs")) >= 3, 240, "some epochs")
    titles = [title(pid) for pid in ray_processes()]
    assert not [each for each in titles if b"Dashboard" in each or b"IDLE" in each], "of no use to anybody"
    driver.send_signal(signal.SIGINT)
    _, stderr = driver.communicate(timeout=60)
    assert driver.returncode == INTERRUPTED
    assert f"go on with: arat-ray tune {file}" in stderr
    assert "--resume" in stderr
    assert "Traceback" not in stderr
    assert {row["status"] for row in rows(file, "trials")} == {"stopped"}


def test_a_budget_stops_running_trials_counts_what_was_spent_before_and_says_so(write: Write) -> None:
    train = EXPERIMENT["train"] | {"epochs": 400, "attack": EXPERIMENT["train"]["attack"] | {"steps": 10}}
    price = {"price": {"usd_per_device_hour": 3600}}
    file = write(train=train, resources=EXPERIMENT["resources"] | price)
    stopped = tune(file, "--budget-usd", "4")
    assert stopped.returncode == BUDGETS["usd"], stopped.stderr
    assert re.fullmatch(
        r"stopped by budget.usd: \d+\.\d\d of 4 usd are spent; go on with --resume and a larger --budget-usd",
        stopped.stderr.splitlines()[-1],
    )
    found = rows(file, "trials")
    assert {row["status"] for row in found} == {"stopped"}
    assert sum(row["cost_usd"] for row in found) >= 4
    again = tune_without_ray(file, "--budget-usd", "4", "--resume")
    assert again.returncode == BUDGETS["usd"]
    assert rows(file, "trials") == found, "nothing is started for a budget that is spent"


def test_a_search_learns_from_an_earlier_study_and_keeps_it_out_of_its_tables(write: Write) -> None:
    earlier = write().parent / "results" / "earlier"
    experiment = Experiment.model_validate(EXPERIMENT)
    console = Console(file=io.StringIO())
    progress = Progress(console, goals=experiment.maximize, total=12, ended=0, epochs=3)
    recorder = Recorder(experiment, opened(earlier, experiment), _NoTrials(), progress)
    for number in range(12):
        sampled = {"method.invariance_weight": 1.0 + number / 2}
        recorder.start(number, sampled, experiment.resolve(sampled))
        epoch = {
            "epoch": 3,
            "validation_images": 500,
            "validation_clean_accuracy": 0.9,
            "validation_robust_accuracy": number / 20,
        }
        recorder.report(number, {"row": epoch, "replayed": False, "device": "cpu", "peak_memory_gib": 0.1})
        recorder.end(number)
    recorder.close("interrupted")
    file = write(constraints={"robust_accuracy": {"min": 0.9}}, budget={"trials": 1}, sampler={"name": "gp", "seed": 0})
    done = tune(file, "--from", str(earlier))
    assert done.returncode == 0, done.stderr
    assert f"learning from {earlier}: 12 of 12 complete trials" in done.stdout
    (row,) = rows(file, "trials")
    assert (row["status"], row["feasible"], row["on_front"]) == ("complete", False, False)
    assert "none of 1 trials satisfies the constraints" in done.stdout
    (source,) = json.loads((file.parent / "results" / "small" / "study.json").read_text())["from"]
    assert (source["study"], len(source["taken"])) == (str(earlier), 12)


SECRETS = (
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN", "WANDB_API_KEY"),
    *("HF_TOKEN", "GITHUB_TOKEN", "PGPASSWORD"),
)
SHADOWS = ("torch", "random", "json", "numpy", "ray", "pickle")


def test_a_study_in_odd_surroundings_goes_on_after_a_trial_that_diverges_and_ends_after_too_many_in_a_row(
    write: Write, tmp_path: Path
) -> None:
    """Credentials in the environment, no home, a long TMPDIR, tokens asked for, modules of famous names, odd labels."""
    labels = {"[/pytorch/third_party/gloo] :smile:": 1e20, "[/x] \x1b[2J": 0.05, "c": 1e21, "d": 1e22, "e": 0.06}
    search = {"optimizer.learning_rate": {"choice": labels}}
    one = {"cpus_per_worker": 1, "concurrent_trials": 1}
    file = write(search=search, sampler={"name": "grid", "seed": 0}, budget={"max_failures": 2}, resources=one)
    for name in SHADOWS:
        (file.parent / f"{name}.py").write_text("raise SystemExit('this is not what was meant')")
    long = tmp_path / ("long" * 30)
    long.mkdir()
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        environment = {name: f"canary-{name}" for name in SECRETS} | {"HOME": "/proc/nonexistent"}
        environment |= {"TMPDIR": str(long), "RAY_TMPDIR": short, "RAY_AUTH_MODE": "token"}
        environment["AWS_ENDPOINT_URL"] = "http://canary:canary@127.0.0.1:9"
        driver = subprocess.Popen(
            [sys.executable, "-P", *tune_command(file, "--verbose")[1:]],  # as the installed script; Ray's logs stay
            env=os.environ | environment,
            cwd=file.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_until(lambda: are_at_work() or driver.poll() is not None, 240, "a worker")
        assert driver.poll() is None, driver.communicate()
        listening = listens_on(driver.pid)
        arguments = b"".join(map(title, ray_processes()))
        stdout, stderr = driver.communicate(timeout=300)
        assert driver.returncode == BUDGETS["max_failures"], stderr
        assert "3 trial(s) failed" in stderr
        last = stderr.splitlines()[-1]
        assert last.startswith("stopped by budget.max_failures: 2 trials in a row have failed, the last one with: Div")
        assert last.endswith("go on with --resume and that mended, or a larger --max-failures")
        assert listening
        assert not [address for address in listening if address != "127.0.0.1"]
        sessions = list(Path(short).glob("*/r/session_2*"))
        assert sessions
        assert all(path.stat().st_mode & 0o077 == 0 for path in Path(short).iterdir())
        assert (sessions[0] / "logs" / "runtime_env_agent.log").exists()
        assert not [path for root in (short, tmp_path) for path in files_below(Path(root)) if holds_canary(path)]
        assert "canary" not in stdout + stderr
        assert "\x1b" not in stdout + stderr
        assert r"(learning_rate [/x] \x1b[2J)" in stdout
        assert "(learning_rate [/pytorch/third_party/gloo] :smile:)" in stdout
        assert b"canary" not in arguments
    ended = sorted(rows(file, "trials"), key=lambda row: row["number"])
    assert [row["status"] for row in ended[:4]] == ["failed", "complete", "failed", "failed"]
    assert "lower optimizer.learning_rate (1e+20)" in ended[0]["error"]
    assert all(row["status"] == "stopped" for row in ended[4:])


def are_at_work() -> bool:
    return any(title(pid).startswith(b"ray::") for pid in ray_processes())


def listens_on(pid: int) -> set[str]:
    """The addresses on which a process and those that it started take connections."""
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    found = set()
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            connections = process.net_connections("tcp")
            found |= {each.laddr.ip.removeprefix("::ffff:") for each in connections if each.status == "LISTEN"}
    return found


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]


def holds_canary(path: Path) -> bool:
    return b"canary" in path.read_bytes()


def test_ctrl_c_while_ray_starts_ends_with_130_and_leaves_nothing(write: Write) -> None:
    file = write()
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        driver = subprocess.Popen(
            tune_command(file),
            env=os.environ | {"RAY_TMPDIR": short},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        wait_until(lambda: bool(ray_processes()), 240, "Ray to begin to start")
        os.killpg(driver.pid, signal.SIGINT)
        _, stderr = driver.communicate(timeout=90)
        assert driver.returncode == INTERRUPTED, stderr
        assert "--resume" in stderr
        assert "Traceback" not in stderr
        assert not ray_processes()
        assert list(Path(short).iterdir()) == []


def test_two_workers_train_one_trial_after_another_and_are_replaced_when_one_dies(write: Write) -> None:
    train = EXPERIMENT["train"] | {"epochs": 6, "attack": EXPERIMENT["train"]["attack"] | {"steps": 3}}
    file = write(train=train, resources={"workers": 2, "cpus_per_worker": 1}, budget={"trials": 3})
    driver = subprocess.Popen(tune_command(file), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until(
        lambda: any(row["number"] and row["epochs_done"] for row in rows_so_far(file, "trials")), 300, "another trial"
    )
    workers = [pid for pid in ray_processes() if b"RayTrainWorker" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert len(workers) == 2
    assert {psutil.Process(psutil.Process(pid).ppid()).ppid() for pid in workers} == {driver.pid}, (
        "forks of its fork server"
    )
    os.kill(workers[0], signal.SIGKILL)
    _, stderr = driver.communicate(timeout=300)
    assert driver.returncode == 0, stderr
    found = rows(file, "trials")
    (lost,) = (row for row in found if row["status"] == "failed")
    assert lost["number"] in (1, 2), "the first trial was over"
    assert "worker" in lost["error"]
    complete = {(row["number"], row["attempt"]) for row in found if row["status"] == "complete"}
    assert complete == {(number, 2 if number == lost["number"] else 1) for number in range(3)}
    assert {row["workers"] for row in found} == {2}
    epochs = [(row["trial_id"], row["epoch"]) for row in rows(file, "epochs")]
    assert sorted(epochs) == [(f"small-{number:05d}", epoch) for number in range(3) for epoch in range(1, 7)]
    assert {row["validation_images"] for row in rows(file, "epochs")} == {500}


SLOW = """
import sys, time, types
import ray._private.node as node, ray._private.services as services
node.time = types.SimpleNamespace(sleep=time.sleep, time=time.time, monotonic=lambda: 1000 * time.monotonic())
services.RAYLET_EXECUTABLE = sys.argv.pop(1)
from arat_ray.cli import main
main()
"""
RAYLET = """#!/bin/sh
test -e {folder}/failed || {{ touch {folder}/failed; exit 1; }}
sleep 2
exec {raylet} "$@"
"""


def test_a_ray_that_fails_and_then_is_slower_than_its_limits_starts_and_what_never_fits_is_an_error(
    write: Write,
) -> None:
    """Ray's clock runs a thousand times as fast: so its limit of 30 s is long over when its node is there."""
    from ray._private.services import RAYLET_EXECUTABLE

    file = write(resources={"gpus_per_worker": 64})
    raylet = file.parent / "raylet"
    raylet.write_text(RAYLET.format(folder=file.parent, raylet=RAYLET_EXECUTABLE))
    raylet.chmod(0o755)
    refused = subprocess.run(
        [sys.executable, "-c", SLOW, str(raylet), *tune_words(file)],
        env=os.environ | {"RAY_raylet_start_wait_time_s": "1", "HOME": str(file.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 2, refused.stderr
    lines = refused.stderr.splitlines()
    assert [line for line in lines if not line.endswith(" s")][:2] == ["starting Ray", "starting Ray once more"], lines
    assert "64 GPU each, which this cluster can never place" in lines[-1]
    assert "Traceback" not in refused.stderr
    assert "resources.gpus_per_worker" not in refused.stdout
    assert not rows(file, "trials")


def test_an_address_where_nobody_answers_is_an_error(write: Write) -> None:
    refused = tune_without_ray(write(), "--address", "127.0.0.1:1")
    assert refused.returncode == 2
    assert "no Ray cluster answers at 127.0.0.1:1" in refused.stderr


def test_a_signal_that_takes_ray_along_still_saves_and_ends(write: Write) -> None:
    """As `timeout`, a batch system or a closed terminal do it: SIGTERM to the whole process group."""
    train = EXPERIMENT["train"] | {"epochs": 40, "attack": EXPERIMENT["train"]["attack"] | {"steps": 10}}
    file = write(train=train, budget={"trials": 1})
    driver = subprocess.Popen(
        tune_command(file), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    wait_until(lambda: len(rows_so_far(file, "epochs")) >= 3, 240, "some epochs")
    os.killpg(driver.pid, signal.SIGTERM)
    assert driver.wait(timeout=90) == INTERRUPTED
    assert {row["status"] for row in rows(file, "trials")} == {"stopped"}
