"""The measurement of a card, in small on the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import gpu
import pytest
import torch

from arat_ray.training.run import Train
from tests.benchmarks.conftest import BENCHMARKS

SMALL = ["--device=cpu", "--width=1", "--narrow=1", "--batch-sizes", "4", "--product=16", "--seconds=0"]


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, *options: str) -> dict[str, Any]:
    arguments = [gpu.__file__, *SMALL, *options, f"--output={folder / 'gpu.md'}"]
    monkeypatch.setattr(sys, "argv", arguments)
    gpu.main()
    written: dict[str, Any] = json.loads((folder / "gpu.json").read_text())
    return written


def test_all_of_it_runs_on_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = gpu.trained

    def trained(*asked: Any) -> Train:
        """With an attack of one step in the place of ten."""
        train = whole(*asked)
        assert train.attack is not None
        return train.model_copy(update={"attack": train.attack.model_copy(update={"steps": 1})})

    monkeypatch.setattr(gpu, "trained", trained)
    written = run(monkeypatch, tmp_path, "--trials", "1")
    rows = [row for title, rows in written.items() if title != "conditions" for row in rows]
    assert len(rows) == 4 + 8 + 2 + 4 + 1
    assert not [row for row in rows if "left_out" in row]
    for row in written["Training steps"]:
        assert row["images_s"] == pytest.approx(4 / (row["ms"] / 1000))
        assert row["share"] == pytest.approx(100 * row["tflop_s"] / written["The card's peak"][0]["tflop_s"])
        assert row["forecast_gib"] > 0
    assert [row["same_bits"] for row in written["The same run twice"]] == ["yes", "yes"]
    lines = (tmp_path / "gpu.md").read_text().splitlines()
    assert sum(line.startswith("| ") for line in lines) == len(rows) + 5


def test_what_there_is_no_time_for_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = run(monkeypatch, tmp_path, "--minutes", "0")
    assert {row["left_out"] for row in written["Training steps"]} == {"no time left"}
    assert "arat, width 1, batch 4, ieee: no time left" in (tmp_path / "gpu.md").read_text()


def test_a_measurement_that_fails_leaves_the_others_alone() -> None:
    def fails() -> gpu.Row:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")

    card = gpu.Card("cpu", seconds=0, minutes=1)
    assert card.row("large", fails) == {"what": "large", "left_out": "CUDA out of memory."}


def test_flops_are_those_of_forward_and_both_gradients() -> None:
    x, weight = torch.rand(2, 3, 8, 8, requires_grad=True), torch.rand(5, 3, 3, 3, requires_grad=True)
    with gpu.Flops() as counter:
        torch.nn.functional.conv2d(x, weight, padding=1).sum().backward()
    assert counter.total == 3 * (2 * 2 * 5 * 8 * 8 * 3 * 9)  # twice the products, three times over


def test_it_loads_no_more_than_torch_numpy_and_pydantic() -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r}); import gpu\n"
        "print(*{'ray', 'optuna', 'pyarrow', 'scipy', 'torchvision', 'yaml', 'rich'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
