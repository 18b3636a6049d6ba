"""What an attack could gain: the variants compute the same, and the race is written."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import limits
import pytest
import torch


def test_variants_of_a_mode_compute_the_same_gradient() -> None:
    networks = {name: model.double() for name, model in limits.networks(2).items()}
    draws = torch.Generator().manual_seed(0)
    x, y = torch.rand(4, 3, 32, 32, generator=draws, dtype=torch.float64), torch.arange(4)
    gradients = {name: limits.ascend(model, x, y) for name, model in networks.items()}
    for mode in ("train mode", "eval mode"):
        for name, gradient in gradients.items():
            if name.startswith(mode):
                torch.testing.assert_close(gradient, gradients[mode], rtol=1e-6, atol=1e-9)
    assert not torch.allclose(gradients["train mode"], gradients["eval mode"])


def test_the_race_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "limits.md"
    options = ["--widths=1", "--batch-sizes=2", "--rounds=2", "--product=32", f"--output={output}"]
    monkeypatch.setattr(sys, "argv", [limits.__file__, *options])
    limits.main()
    written = json.loads(output.with_suffix(".json").read_text())["1"]
    assert len(written) == 1 + 6
    assert {len(seconds) for turns in written.values() for seconds in turns.values()} == {2}
    assert "| eval mode, folded | " in output.read_text()
