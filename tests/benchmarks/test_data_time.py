"""Augmented images a second: both sides serve the same kind of images, and the race is written."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import data
import pytest
import torch


def test_both_sides_crop_and_flip_alike() -> None:
    """One image with one bright pixel: wherever it lands, both sides put it there equally often."""
    image = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    image[:, :, 10, 5] = 255
    indices = torch.zeros(2000, dtype=torch.long)
    torch.manual_seed(0)
    served = [data.batches(image, None, channels_last=False)(indices), data.pil(image)(indices)]
    for images in served:
        assert images.shape == (2000, 3, 32, 32)
        assert images.dtype == torch.float32
        assert images.amax() == 1
    ours, theirs = (images.mean((0, 1)) for images in served)
    torch.testing.assert_close(ours.sum(0), theirs.sum(0), rtol=0, atol=0.05)
    assert ours.gt(0).equal(theirs.gt(0))


def test_the_race_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--images=8", "--batch-size=4", "--rounds=2", f"--output={tmp_path / 'data.md'}"]
    monkeypatch.setattr(sys, "argv", [data.__file__, *options])
    data.main()
    turns = json.loads((tmp_path / "data.json").read_text())["cpu_s"]
    assert {"pil", "batches", "batches, idbh_strong"} <= {*turns}
    assert {len(seconds) for seconds in turns.values()} == {2}
    assert "| pil | " in (tmp_path / "data.md").read_text()
