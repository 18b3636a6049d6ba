"""A study's folder is its own experiment's: also one that was written before there was a key."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from arat_ray.experiment.config import load
from arat_ray.experiment.spec import Experiment
from arat_ray.results import reader
from arat_ray.study import folder as study_folder

FILE = """
name: small
train:
  dataset: {name: digits, images: 200SUBSET}
  model: {name: tiny, width: 4}
  epochs: 1
  batch_size: 64
  seed: 0
  method: {name: standard}
validate:
  {every: 1, images: 50, split: testSUBSET, attack: {name: pgd, norm: linf, epsilon: 0.1, step_size: 0.1, steps: 1}}
"""


def experiment(path: Path, subset: str) -> Experiment:
    path.write_text(FILE.replace("SUBSET", subset))
    return load(path)


def claimed(folder: Path, path: Path, subset: str) -> dict[str, Any]:
    with study_folder.claim(folder, experiment(path, subset), path, kind="train", resume=True):
        written: dict[str, Any] = json.loads((folder / "study.json").read_text())
    return written


def test_a_study_of_the_first_images_does_not_go_on_with_drawn_ones(tmp_path: Path) -> None:
    study, path = tmp_path / "small", tmp_path / "small.yaml"
    written = claimed(study, path, ", subset: first")
    for part in (written["identity"]["train"]["dataset"], written["identity"]["validate"]):
        assert part.pop("subset") == "first"  # as it was before there was such a key
    (study / "study.json").write_text(json.dumps(written))
    with pytest.raises(ValueError, match=r'another experiment: .*subset is "first" there and "stratified" here'):
        claimed(study, path, "")
    claimed(study, path, ", subset: first")


def test_a_study_of_drawn_images_does_not_go_on_with_the_first(tmp_path: Path) -> None:
    study, path = tmp_path / "small", tmp_path / "small.yaml"
    claimed(study, path, "")
    claimed(study, path, "")
    with pytest.raises(ValueError, match=r'subset is "stratified" there and "first" here'):
        claimed(study, path, ", subset: first")


@pytest.mark.parametrize("kept", [("journal",), ("journal", "checkpoints"), ("journal", "trials", "epochs")])
def test_a_start_that_was_cut_off_is_started_again(kept: tuple[str, ...], tmp_path: Path) -> None:
    study, path = tmp_path / "small", tmp_path / "small.yaml"
    claimed(study, path, "")
    for each in study.iterdir():
        if each.name not in kept:
            shutil.rmtree(each) if each.is_dir() else each.unlink()
    shutil.rmtree(study / "journal")
    (study / "journal").mkdir()
    (study / "checkpoints").mkdir()
    for part in study.glob("*/part-*.parquet"):  # as they are before anything is in the record
        table = pq.read_table(part)
        known = {key: value for key, value in table.schema.metadata.items() if key not in (reader.MARK, reader.SEAL)}
        pq.write_table(table.replace_schema_metadata(known), part)
    claimed(study, path, "")


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds other files and no study"):
        claimed(tmp_path / "small", tmp_path / "small.yaml", "")
