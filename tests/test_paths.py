"""A path that cannot be opened is one line and exit code 2, whichever command gets it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from arat_ray.cli import main
from tests.places import KINDS

ATTACK = ("--attack", "pgd", "--epsilon", "0.1", "--split", "test")
COMMANDS: list[list[str]] = [
    ["results", "show", "PLACE"],
    ["results", "trials", "PLACE"],
    ["results", "why", "PLACE", "0"],
    ["results", "rebuild", "PLACE"],
    ["pareto", "PLACE"],
    ["pick", "PLACE", "--knee"],
    ["compare", "PLACE", "PLACE"],
    ["confirm", "PLACE", "--seeds", "1"],
    ["evaluate", "PLACE", *ATTACK],
    ["export", "PLACE", "-o", "x.safetensors"],
    ["train", "FILE", "--results", "PLACE"],
    ["tune", "FILE", "--results", "PLACE"],
    ["tune", "FILE", "--from", "PLACE"],
    ["validate", "PLACE"],
    ["tune", "PLACE"],
]
FILE = """
name: small
train:
  dataset: {name: digits}
  model: {name: tiny, width: 2}
  method: {name: pgd_at}
  attack: {name: pgd, norm: linf, epsilon: 0.2, step_size: 0.1, steps: 1}
  epochs: 1
  batch_size: 64
  seed: 0
validate: {every: 1, images: 100, attack: {name: pgd, norm: linf, epsilon: 0.2, step_size: 0.1, steps: 1}}
search: {batch_size: {choice: [32, 64]}}
sampler: {name: tpe, seed: 0}
budget: {trials: 1}
"""


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__.strip("_"))
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "file.yaml").write_text(FILE)
    monkeypatch.chdir(tmp_path)  # it goes back when the rights of this process are its own again
    for path, _ in request.param(tmp_path):
        yield path


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words[:2]))
def test_a_path_that_cannot_be_opened_is_one_line(words: list[Any], place: Path, tmp_path: Path) -> None:
    named = {"PLACE": str(place), "FILE": str(tmp_path / "file.yaml")}
    done = CliRunner().invoke(main, [named.get(word, word) for word in words])
    assert isinstance(done.exception, SystemExit), (done.exception, done.output)
    assert done.exit_code == 2, done.output
    last = done.output.splitlines()[-1]
    assert last.startswith("Error: ")
    assert place.name in last
