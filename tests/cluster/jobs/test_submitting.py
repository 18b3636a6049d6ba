"""What goes to a cluster with a job, what is refused on the way, and which address and token are meant."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from arat_ray.cli import main
from arat_ray.cluster.jobs import client
from arat_ray.cluster.jobs.client import check_same_ray, connect, job_server, token
from arat_ray.cluster.jobs.submission import Submission, entrypoint

Write = Callable[..., Path]
NOBODY = "http://127.0.0.1:1"


@pytest.fixture(autouse=True)
def _no_cluster_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (*client.ADDRESS_VARIABLES, "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "")  # restored after the test, whatever it sets
    monkeypatch.setenv("HOME", str(tmp_path))


def filled(folder: Path, **sizes: int) -> Path:
    """A folder with files of so many bytes; `__` stands for `/` and `_dot_` for `.`."""
    for name, size in sizes.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)
    return folder


@pytest.mark.parametrize(
    ("results", "command"),
    [
        ("results", "arat-ray tune 'my file.yaml' --results \"$HOME\"/results --resume --trials 3"),
        ("/shared/a b", "arat-ray tune 'my file.yaml' --results '/shared/a b' --resume --trials 3"),
        ("s3://bucket/x", "arat-ray tune 'my file.yaml' --results s3://bucket/x --resume --trials 3"),
    ],
)
def test_the_head_runs_the_command_with_results_that_outlive_the_job(results: str, command: str) -> None:
    submission = Submission("s", "tune", results, ["--resume", "--trials", "3"])
    assert entrypoint(submission, "my file.yaml") == command


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--", "--trails", "3"], "No such option"),
        (["--", "--budget-usd", "3"], "needs a price"),
        (["--", "--address", "x"], "--address stands before"),
        (["--", "--results", "x"], "--results stands before"),
        (["--", "--from", "results/other"], "write the whole path"),
        (["--data", "sets"], "--data sets is relative"),
        (["--", "--data", "sets"], "--data sets is relative"),
        (["--env", "A_9"], "--env A_9: there is no such variable here; write A_9=VALUE"),
        (["--address", NOBODY], "no job server answers at http://127.0.0.1:1"),
        ([], "which cluster? give --address"),
    ],
)
def test_what_the_head_would_refuse_is_refused_here(words: list[str], problem: str, write: Write) -> None:
    done = CliRunner().invoke(main, ["submit", str(write()), *words])
    assert done.exit_code == 2
    assert problem in done.output


def test_data_that_only_the_cluster_has_is_left_to_it(write: Write) -> None:
    from tests.cluster.studies import EXPERIMENT

    there = {"name": "parquet", "train": "/nowhere/train.parquet"}
    file = write(train=EXPERIMENT["train"] | {"dataset": there})
    done = CliRunner().invoke(main, ["submit", str(file), "--address", NOBODY])
    assert "where only the cluster has the data set, add --no-validate" in done.output
    done = CliRunner().invoke(main, ["submit", str(file), "--address", NOBODY, "--no-validate"])
    assert "no job server answers" in done.output
    file = write(train=EXPERIMENT["train"] | {"dataset": there | {"train": "train.parquet"}})
    done = CliRunner().invoke(main, ["submit", str(file), "--address", NOBODY])
    assert "train.dataset.train: train.parquet is relative" in done.output
    done = CliRunner().invoke(main, ["submit", str(file), "--address", NOBODY, "--data", "/shared"])
    assert "where only the cluster has the data set, add --no-validate" in done.output


def test_a_server_that_keeps_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "ANSWER_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(client.NoAnswerError, match="no job server"):
        connect(f"http://127.0.0.1:{silent.getsockname()[1]}")


def test_the_address_that_is_given_counts_before_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://third:1")
    assert job_server(None) == "http://third:1"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "https://second/")
    assert job_server(None) == "https://second"
    assert job_server("first:8265") == "http://first:8265"


@pytest.mark.parametrize("address", ["ray://head:10001", "auto", "http://", "http://head:port"])
def test_what_is_no_job_server_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="is no address of a job server"):
        job_server(address)


def test_the_token_is_found_where_ray_looks_for_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert token() is None
    filled(tmp_path, _dot_ray__auth_token=3)
    assert token() == "xxx"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"RAY_AUTH_TOKEN_PATH names .*nowhere, which is not there"):
        token()
    (tmp_path / "nowhere").write_text("second\n")
    assert token() == "second"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "first")
    assert token() == "first"


def test_another_minor_version_of_ray_is_refused() -> None:
    check_same_ray(here="2.60.0", there="2.60.1")
    with pytest.raises(ValueError, match=r"the cluster runs Ray 2\.9\.3 and this machine Ray 2\.60\.0"):
        check_same_ray(here="2.60.0", there="2.9.3")
