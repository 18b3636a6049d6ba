"""Every command that takes a study, a checkpoint or --results takes an address, on a machine that has nothing yet."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from arat_ray.cli import main
from arat_ray.results import reader
from arat_ray.storage import objects
from arat_ray.storage.address import mirror_of, parse, root
from tests.cluster.studies import EXPERIMENT
from tests.storage.conftest import there


def arat_ray(*arguments: str, code: int = 0) -> Result:
    """One command on a machine without a mirror."""
    shutil.rmtree(root(), ignore_errors=True)
    done = CliRunner().invoke(main, list(arguments))
    assert done.exit_code == code, done.output
    assert str(root()) not in done.output  # the user never wrote that path
    return done


@pytest.fixture
def file(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An experiment, for commands that are typed where the mirrors lie below, as below a home."""
    assert address  # whose machine has its mirrors in a place of its own
    root().parent.mkdir(parents=True)
    monkeypatch.chdir(root().parent)
    path = tmp_path / "small.yaml"
    train: dict[str, Any] = EXPERIMENT["train"] | {"epochs": 2}
    path.write_text(yaml.safe_dump(EXPERIMENT | {"train": train}))
    return path


def test_a_run_is_trained_measured_chosen_compared_and_exported_from_a_bucket(
    file: Path, address: str, tmp_path: Path
) -> None:
    trained = arat_ray("train", str(file), "--results", address.removesuffix("/small"))
    checkpoint = f"{address}/checkpoints/small-00000/last.pt"
    assert f"checkpoint: {checkpoint}" in trained.output
    expected = ["study.json", "study.yaml", "journal/record-00000.jsonl"]
    expected += [f"{name}/part-00000.parquet" for name in ("trials", "epochs")]
    expected += [f"checkpoints/small-00000/{name}.pt" for name in ("last", "best")]
    assert set(there(mirror_of(parse(address)))) == set(expected)
    again = arat_ray("train", str(file), "--results", address.removesuffix("/small"))
    assert f"{address} is complete already" in again.output.replace("\n", "")

    measure = ("--epsilon", "0.2", "--split", "test", "--images", "20")
    one = arat_ray("evaluate", checkpoint, "--attack", "pgd", *measure)
    assert f"added to {address}/evaluations and examples" in one.output
    arat_ray("evaluate", address, "--attack", "apgd", "--batch-size", "10", *measure)
    assert [name for name in there(mirror_of(parse(address))) if "/attacks/" in name and "00001.safetensors" in name]

    front = json.loads(arat_ray("pareto", address, "--json").output)
    assert [trial["study"] for trial in front["trials"]] == [address]
    of_tests = arat_ray("pareto", address, "--attack", "pgd", "--split", "test", "--csv")
    assert "pgd-20" in of_tests.output
    evaluations = [row["evaluation_id"] for row in _evaluations(address)]
    compared = arat_ray("compare", f"{address}/{evaluations[0]}", checkpoint, "--attack", "apgd")
    assert f"A: {address} small-00000 last, pgd-20" in compared.output
    chosen = tmp_path / "chosen.yaml"
    arat_ray("pick", address, "--max", "clean", "-o", str(chosen))
    assert yaml.safe_load(chosen.read_text())["train"]["epochs"] == 2
    arat_ray("export", checkpoint, "-o", str(tmp_path / "model.safetensors"))
    plan = arat_ray("tune", str(file), "--from", address, "--dry-run")
    assert f"learning from {address}: 1 of 1 complete trials" in plan.output.replace("\n", "")
    assert "small-confirm: " in arat_ray("confirm", address, "--seeds", "2", "--dry-run").output
    assert "complete after 2 epochs" in arat_ray("results", "why", address, "0").output
    assert arat_ray("results", "show", address).output.startswith(f"{address}: ")
    arat_ray("results", "export", address, "--to", "csv", "--output", str(tmp_path / "csv"))
    with (tmp_path / "csv" / "small" / "evaluations.csv").open(newline="") as written:
        assert {row["evaluation_id"] for row in csv.DictReader(written)} > set(evaluations)  # and those without attack


def test_a_study_is_verified_mended_and_gone_on_with_by_machines_that_never_saw_it(file: Path, address: str) -> None:
    arat_ray("train", str(file), "--results", address.removesuffix("/small"))
    arat_ray("evaluate", address, "--attack", "pgd", "--epsilon", "0.2", "--split", "test", "--images", "20")
    place, name = parse(address), "journal/record-00000.jsonl"
    before = there(mirror_of(place))
    verified = arat_ray("results", "verify", address).output
    assert (
        f"OK: {address}: a record of 6 lines, 1 trials, 2 epochs, 2 evaluations, 20 examples, 1 checkpoints" in verified
    )

    objects.put(place, name, io.BytesIO(before[name].replace(b'"epoch":2', b'"epoch":7', 1)))
    objects.put(place, "trials/part-00000.parquet", io.BytesIO(before["trials/part-00000.parquet"][:-1]))
    objects.put(place, "epochs/part-00001.parquet", io.BytesIO(before["epochs/part-00000.parquet"]))
    damaged = arat_ray("results", "verify", address, code=1).output
    assert f"{address}/{name}, line 6 is damaged" in damaged
    assert "trials/part-00000.parquet is damaged" in damaged
    assert "epochs has 2 rows twice" in damaged
    refused = arat_ray("train", str(file), "--results", address.removesuffix("/small"), "--resume", code=2).output
    assert f"arat-ray results rebuild {address}" in refused.replace("\n", "")
    mended = arat_ray("results", "rebuild", address).output
    assert "record: written again from all that is left, in rewritten-1" in mended
    assert "in no source" not in mended
    assert "OK" in arat_ray("results", "verify", address).output
    assert arat_ray("train", str(file), "--results", address.removesuffix("/small"), "--resume").exit_code == 0
    assert "OK" in arat_ray("results", "verify", address).output
    assert there(mirror_of(place))[name] != before[name], "the old record stays"


def _evaluations(address: str) -> list[dict[str, Any]]:
    study = mirror_of(parse(address))
    return [row for row in reader.read(study, "evaluations").to_pylist() if row["attack"] != "none"]


def test_places_that_cannot_be_are_refused(file: Path, address: str) -> None:
    nowhere = arat_ray("pareto", f"{address}/nothing", code=2)
    assert f"there is no folder {address}/nothing" in nowhere.output
    unknown = arat_ray("pareto", "s4://bucket/small", code=2)
    assert "unknown scheme 's4'" in unknown.output
    missing = arat_ray("tune", str(file), "--results", "s3://no-such-bucket/studies", code=2)
    assert "there is no bucket 'no-such-bucket'" in missing.output
    none = arat_ray("export", f"{address}/checkpoints/small-00000/last.pt", "-o", "model.pt2", code=2)
    assert "there is no study and no checkpoint" in none.output
